"""What does a client inside a task send?

In a cluster of its own: slots that are started for tasks of tasks stay.
"""

import numpy as np
import pytest

import mpicluster
from mpicluster import Client, LocalCluster


@pytest.fixture
def client():
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        yield client


@pytest.mark.parametrize("workers", [None, [2], [3]])
def test_tasks_send_large_values(client, workers):
    """A task whose client sent more than 64 kB to a worker once waited for ever."""

    def task():
        inner = mpicluster.get_client()
        array = np.arange(100_000.0)
        value = inner.scatter(array, workers=workers)
        sums = [inner.submit(np.sum, value), inner.submit(np.sum, array + 1, workers=workers)]
        texts = inner.map(len, ["x" * 200_000, "y" * 300_000])
        return inner.gather([*sums, *texts]), inner.gather(value).sum()

    total = sum(range(100_000))
    expected = [total, total + 100_000, 200_000, 300_000], total
    assert client.submit(task, pure=False).result(timeout=30) == expected


def test_a_task_sends_many_large_values(client):
    """Each asks its worker for room; the answers to all once filled the slot's control socket, and
    worker and slot waited for each other.
    """

    def task(first):
        inner = mpicluster.get_client()
        arrays = [np.full(9000, first + number) for number in range(1200)]
        found = inner.map(lambda array: int(array[0]), inner.scatter(arrays))
        return sum(inner.gather(found))

    tasks = client.map(task, [0, 10_000], pure=False)
    others = client.map(lambda x: x, range(50), pure=False)
    assert client.gather(others) == list(range(50))
    numbers = sum(range(1200))
    assert client.gather(tasks) == [numbers, numbers + 1200 * 10_000]


def test_a_task_cannot_run_functions_everywhere(client):
    def task():
        return mpicluster.get_client().run(int)

    with pytest.raises(ValueError, match="only the client of the script"):
        client.submit(task, pure=False).result(timeout=10)
