import pytest

from mpicluster import Client, LocalCluster

pytest.importorskip("dask.array")
pytest.importorskip("dask.dataframe")


@pytest.fixture(scope="package")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, resources={"GPU": 1}, submit_tasks_max=200
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    """A client that leaves nothing behind: all tests here check that by using it."""
    with Client(cluster) as client:
        yield client
        check_nothing_is_left(client)


@pytest.fixture
def small_limit():
    """A client that warns of graphs of more than 20 kB."""
    limit = {"large_graph_bytes": 20_000}
    with LocalCluster(n_workers=1, threads_per_worker=1, **limit) as cluster, Client(cluster) as c:
        yield c


def check_nothing_is_left(client):
    """The scheduler knows no task and the workers hold no bytes."""
    client.wait_until(lambda: counts(client) == ({}, 0), 10)
    assert counts(client) == ({}, 0)


def counts(client):
    info = client.scheduler_info()
    tasks = {state: count for state, count in info["tasks"].items() if count}
    return tasks, sum(worker["nbytes"] for worker in info["workers"].values())
