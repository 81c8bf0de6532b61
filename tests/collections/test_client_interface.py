"""Do the client's and the futures' methods mean what they mean in `distributed`?"""

import asyncio
import pickle
import platform
import threading
import time
import traceback

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from mpicluster import (
    Client,
    LocalCluster,
    MpiclusterError,
    Queue,
    WorkerPlugin,
    as_completed,
    futures_of,
    get_client,
    get_worker,
    wait,
)
from mpicluster.errors import CancelledError, NoValidWorkerError, VersionMismatchError
from mpicluster.ids import SCHEDULER_RANK
from mpicluster.messages import encode_bundle
from mpicluster.transport.local import LocalTransport


def slow(seconds, result=None):
    time.sleep(seconds)
    return result


def where(_=None):
    return get_worker().name


# --- workers ---


def test_workers_are_waited_for_and_counted(client):
    client.wait_for_workers(2)
    with pytest.raises(ValueError, match="3 workers were asked for, but the cluster has 2"):
        client.wait_for_workers(3)
    assert client.ncores() == client.nthreads() == {2: 1, 3: 1}


def test_workers_have_the_names_that_tasks_print(client):
    address = client.submit(lambda: get_worker().address, workers=[3], pure=False).result()
    assert address == "mpi://3"
    assert client.submit(where, workers=[address], pure=False).result() == 3
    assert client.run(where, workers=[address]) == {3: 3}
    found = {w["address"]: rank for rank, w in client.scheduler_info()["workers"].items()}
    assert found == {"mpi://2": 2, "mpi://3": 3}


def test_workers_may_be_a_wish_or_a_must(client):
    with pytest.raises(NoValidWorkerError, match="There is no worker 99"):
        client.submit(where, workers=[99])
    future = client.submit(where, workers=[99], allow_other_workers=True, pure=False)
    assert future.result() in (2, 3)
    # Its worker is busy, the other one is not: a wish must not wait for it.
    busy = client.submit(slow, 2, workers=[2], pure=False)
    time.sleep(0.2)
    wish = client.submit(where, workers=[2], allow_other_workers=True, pure=False)
    assert wish.result(timeout=1) == 3
    must = client.submit(where, workers=[2], pure=False)
    with pytest.raises(TimeoutError):
        must.result(timeout=0.2)
    del busy
    assert must.result() == 2


def test_where_values_and_tasks_are(client):
    here = client.submit(slow, 0, "x", workers=[2], pure=False)
    wait([here])
    running = client.submit(slow, 1.5, workers=[3], pure=False)
    deadline = time.monotonic() + 5
    while client.processing()[3] != [running.key] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.processing() == {2: [], 3: [running.key]}
    assert client.who_has([here]) == {here.key: [2]}
    assert client.has_what() == {2: [here.key], 3: []}


def parent():
    child = get_client().submit(slow, 1.5, pure=False)
    return child.result()


def test_tasks_of_tasks_are_listed_by_what_they_run(client):
    future = client.submit(parent, pure=False)

    def listed():
        return sorted(name for names in client.processing().values() for name in names)

    assert client.wait_until(lambda: len(listed()) == 2, 5)
    first, second = listed()
    assert first == future.key
    assert second.startswith("slow-")
    del future


def test_a_queue_gives_all_that_there_is(client):
    queue = Queue("all of it", client)
    assert queue.get(batch=True, timeout=5) == []
    queue.put(1)
    queue.put(2)
    assert queue.get(batch=True, timeout=5) == [1, 2]


async def twice(number):
    await asyncio.sleep(0.01)
    return 2 * number


def test_async_functions_run_as_tasks(client):
    assert client.gather(client.map(twice, [1, 2])) == [2, 4]
    assert client.submit(twice, "a").result() == "aa"


class UnreadableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_an_exception_without_a_text_keeps_the_rest(client):
    def fail_unreadably():
        raise UnreadableError

    future = client.submit(fail_unreadably)
    assert type(future.exception()).__name__ in ("UnreadableError", "RemoteTaskError")
    names = [entry.name for entry in traceback.extract_tb(future.traceback())]
    assert names[-1] == "fail_unreadably"


def test_a_shuffle_on_disk_is_refused(client):
    frame = dd.from_pandas(pd.DataFrame({"k": range(10)}), npartitions=2)
    with pytest.raises(MpiclusterError, match="method 'disk'"):
        frame.shuffle("k", shuffle_method="disk").compute()


class Watching(WorkerPlugin):
    def transition(self, key, start, finish):
        raise AssertionError


def test_a_plugin_that_wants_transitions_is_warned_of(client):
    with pytest.warns(UserWarning, match=r"Watching.transition is never called"):
        client.register_plugin(Watching(), name="watching")
    client.unregister_worker_plugin("watching")


def test_urgent_tasks_of_one_client_run_first(client):
    """One slot is busy while others are submitted; the order in which they run is told by them."""
    busy = client.submit(slow, 0.5, workers=[2], pure=False)
    time.sleep(0.1)
    plain = client.map(lambda _: time.time(), range(5), workers=[2], pure=False)
    urgent = client.submit(time.time, workers=[2], priority=10, pure=False)
    last = client.submit(time.time, workers=[2], priority=-10, pure=False)
    times = client.gather(plain)
    # What was sent ahead before it came is not taken back.
    assert urgent.result() < max(times) < last.result()
    del busy


# --- futures ---


def test_a_future_tells_whether_it_is_done(client):
    future = client.submit(slow, 0.3, "x", pure=False)
    assert (future.done(), future.status) == (False, "pending")
    assert future.result() == "x"
    assert (future.done(), future.status, future.cancelled()) == (True, "finished", False)
    assert (future.exception(), future.traceback()) == (None, None)


def test_whoever_waits_may_stop_waiting(client):
    future = client.submit(slow, 0.6, "x", pure=False)
    with pytest.raises(TimeoutError, match=r"was not done within 0\.05"):
        future.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        future.exception(timeout="50ms")
    with pytest.raises(TimeoutError):
        wait([future], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(iter(as_completed([future], timeout=0.05)))
    assert future.result(timeout=10) == "x"  # nothing was lost by it


def test_wait_for_the_first_or_for_all(client):
    quick = client.submit(slow, 0, pure=False)
    late = client.submit(slow, 1, pure=False)
    first = wait([quick, late], return_when="FIRST_COMPLETED")
    assert (first.done, first.not_done) == ({quick}, {late})
    both = wait([quick, late])
    assert (both.done, both.not_done) == ({quick, late}, set())


def test_a_released_future_is_of_no_use_and_its_value_goes(client):
    future = client.submit(slow, 0, pure=False)
    wait([future])
    future.release()
    assert client.wait_until(lambda: not client.scheduler_info()["tasks"], 10)
    with pytest.raises(CancelledError, match="was released"):
        future.result()


def test_callbacks_get_the_future_before_and_after_it_is_done(client):
    called, lock = [], threading.Semaphore(0)

    def note(future):
        called.append((future.key, future.result(), threading.current_thread().name))
        lock.release()

    future = client.submit(slow, 0.2, "x", pure=False)
    future.add_done_callback(note)
    assert lock.acquire(timeout=10)
    future.add_done_callback(note)
    assert lock.acquire(timeout=10)
    assert called == [(future.key, "x", "mpicluster-callbacks")] * 2


def test_equal_calls_share_a_task_unless_they_are_not_pure(client):
    first, second = client.submit(slow, 0, "x"), client.submit(slow, 0, "x")
    assert first.key == second.key
    assert client.submit(slow, 0, "y").key != first.key
    others = {client.submit(slow, 0, "x", pure=False).key for _ in range(3)}
    assert len(others | {first.key}) == 4
    assert len({future.key for future in client.map(slow, [0, 0])}) == 1
    assert len({future.key for future in client.map(slow, [0, 0], pure=False)}) == 2


def test_gather_may_leave_out_what_failed(client):
    good, bad = client.submit(abs, -1), client.submit(slow, "no number")
    assert client.gather([good, bad], errors="skip") == [1]
    with pytest.raises(TypeError):
        client.gather([good, bad])


# --- as_completed ---


def test_as_completed_grows_while_it_runs(client):
    """Each result makes the next task, as a search does that goes on where it found something."""
    found = []
    running = as_completed([client.submit(abs, -1)])
    for future in running:
        found.append(future.result())
        if found[-1] < 5:
            running.add(client.submit(abs, -found[-1] - 1))
    assert found == [1, 2, 3, 4, 5]
    running.update(client.map(abs, [-7, -8]))
    assert sorted(future.result() for future in running) == [7, 8]


def test_as_completed_gives_what_is_there_in_batches(client):
    futures = client.map(slow, [0, 0, 0], range(3), pure=False)
    late = client.submit(slow, 1, "late", pure=False)
    running = as_completed([*futures, late], with_results=True)
    wait(futures)
    assert running.has_ready()
    assert running.count() == 4
    assert sorted(value for _, value in running.next_batch()) == [0, 1, 2]
    assert running.next_batch(block=False) == []
    assert [[value for _, value in batch] for batch in running.batches()] == [["late"]]
    assert running.is_empty()
    running = as_completed([client.submit(slow, 5, pure=False)])
    running.clear()
    assert list(running) == []


# --- actors, versions, metrics ---


class Counter:
    pass


def test_actors_are_explained(client):
    for name in ("actor", "actors"):
        with pytest.raises(MpiclusterError, match="There are no actors"):
            client.submit(Counter, **{name: True})
        with pytest.raises(MpiclusterError, match="There are no actors"):
            client.map(abs, [1], **{name: True})
        assert client.submit(abs, -1, **{name: False}).result() == 1


@pytest.mark.parametrize("place", ["scheduler", "worker"])
def test_other_versions_are_named_with_their_hosts(client, monkeypatch, place):
    client.get_versions(check=True)
    if place == "scheduler":
        monkeypatch.setitem(client.cluster.versions, "numpy", "0.1")
    else:
        (worker,) = [w for w in client._workers() if w["rank"] == 3]
        monkeypatch.setitem(worker, "versions", {**worker["versions"], "numpy": "0.1"})
    monkeypatch.setattr(
        "mpicluster.client.everywhere.local_versions",
        lambda: {**client.cluster.versions, "numpy": np.__version__},
    )
    rank = 0 if place == "scheduler" else 3
    text = rf"numpy is {np.__version__} for the client, but 0.1 on \S+ \(rank {rank}\)"
    with pytest.raises(VersionMismatchError, match=text):
        client.get_versions(check=True)
    assert client.get_versions()[f"{place}s" if place == "worker" else place]


def test_the_scheduler_measures_tasks_by_their_names():
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster, Client(cluster) as client:
        futures = client.map(slow, [0.05] * 4, range(4))
        arrays = client.map(np.ones, [125_000, 125_000], pure=False)
        wait([*futures, *arrays])
        assert isinstance(client.submit(slow, "no number").exception(), TypeError)
        prefixes = client.scheduler_info()["prefixes"]
        assert prefixes["slow"]["finished"] == 4
        assert prefixes["slow"]["erred"] == 1
        assert 0.2 <= prefixes["slow"]["duration_s"] < 2
        assert prefixes["ones"]["finished"] == 2
        assert 2_000_000 <= prefixes["ones"]["nbytes"] < 2_010_000


def test_workers_report_their_memory_their_share_of_work_and_what_they_moved():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, share_memory=False, status_interval_s=0.1
    ) as cluster, Client(cluster) as client:  # fmt: skip
        before = client.scheduler_info()["workers"][3]["metrics"]
        made = client.submit(np.ones, 1_000_000, workers=[2])
        assert client.submit(np.sum, made, workers=[3]).result() == 1_000_000
        client.submit(slow, 1, workers=[3]).result()

        def metrics(rank):
            return client.scheduler_info()["workers"][rank]["metrics"]

        assert client.wait_until(lambda: metrics(3).get("received_bytes", 0) >= 8_000_000, 5)
        assert client.wait_until(lambda: metrics(2)["sent_bytes"] >= 8_000_000, 5)
        assert metrics(2)["store_bytes"] >= 8_000_000
        assert client.wait_until(lambda: metrics(3)["busy_s"] >= 1.0, 5)
        assert before.get("busy_s", 0.0) < 1.0
        assert 0.0 < metrics(3)["busy_share"] <= 1.0
        assert metrics(3)["memory_bytes"] > 10_000_000


# --- values and displays ---


def test_no_value_goes_through_the_scheduler(client, monkeypatch):
    """Not on its way from the script, between workers, or back; small ones neither."""
    said = []
    send = LocalTransport.send

    def note(self, rank, messages):
        if SCHEDULER_RANK in (rank, self.rank):
            said.append(encode_bundle(messages))
        send(self, rank, messages)

    monkeypatch.setattr(LocalTransport, "send", note)
    for count in (100, 1_000_000):
        mark = b"a value of its own"
        value = client.scatter(np.frombuffer(mark * count, dtype=np.uint8), workers=[2])
        moved = client.submit(np.flip, value, workers=[3])
        again = client.submit(np.flip, moved, workers=[2])
        assert again.result().tobytes() == mark * count
    assert len(said) > 10
    assert not any(mark in bundle or mark[::-1] in bundle for bundle in said)
    assert sum(map(len, said)) < 20_000


def test_persist_returns_before_anything_is_computed(client):
    parts = [dask.delayed(slow, pure=False)(0.5, number) for number in range(4)]
    started = time.monotonic()
    persisted = client.persist(parts)
    assert time.monotonic() - started < 0.4
    assert {future.status for future in futures_of(persisted)} == {"pending"}
    assert client.gather(client.compute(persisted)) == [0, 1, 2, 3]


def test_notebooks_show_roles_ranks_hosts_slots_and_memory(client):
    future = client.submit(abs, -1, pure=False)
    wait([future])
    for shown in (client, client.cluster):
        text = shown._repr_html_()
        for word in ("scheduler", "client", "worker", platform.node(), "GiB", "<table>"):
            assert word in text, (shown, word)
        assert text.count("<tr>") == text.count("</tr>") >= 3
    assert "finished" in future._repr_html_()
    assert future.key in future._repr_html_()


# --- the end ---


def test_shutdown_ends_the_cluster():
    cluster = LocalCluster(n_workers=1)
    client = Client(cluster)
    assert client.submit(abs, -1).result() == 1
    client.shutdown()
    assert client.status == "closed"
    with pytest.raises(MpiclusterError, match="closed"):
        client.submit(abs, -1)
    with pytest.raises(MpiclusterError, match="closed"):
        Client(cluster)


def test_the_current_client_is_the_newest_or_the_one_that_is_set(cluster, client):
    assert Client.current() is client
    with Client(cluster) as other:
        assert Client.current() is other
        with client.as_current():
            assert Client.current() is client
        assert Client.current() is other
    assert Client.current() is client


def test_waiting_the_asynchronous_way_is_refused_with_what_takes_its_place(client):
    future = client.submit(abs, -1)

    async def wait_for_one():
        return await future

    async def go_through_all():
        return [found async for found in as_completed([future])]

    with pytest.raises(TypeError, match=r"`future.result\(\)` waits for its value\. There is no"):
        wait_for_one().send(None)  # not by asyncio, whose cycles would keep the future
    with pytest.raises(TypeError, match=r"in an `async for`.*: a plain `for` does the same\."):
        go_through_all().send(None)
    assert type(future).__name__ == type(future).__qualname__ == "Future"
    assert pickle.loads(pickle.dumps(type(future))) is type(future)
    with pytest.raises(AttributeError, match=r"A Future of mpicluster has no 'retry'"):
        future.retry()
