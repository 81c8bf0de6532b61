"""What the client takes and refuses: containers, iterators, names, options."""

import concurrent.futures
import gc
import threading
import time
from collections import OrderedDict, defaultdict, namedtuple
from types import TracebackType

import dask
import numpy as np
import pytest

import mpicluster
from mpicluster import (
    Client,
    Lock,
    Queue,
    Semaphore,
    Variable,
    as_completed,
    fire_and_forget,
    get_client,
    get_worker,
    wait,
)  # fmt: skip
from mpicluster.errors import CancelledError, KilledWorker, MpiclusterError

Pair = namedtuple("Pair", "first second")  # noqa: PYI024  (what users have)


class Items(list):
    pass


# --- gather, scatter, map ---


def test_futures_of_iterators_and_views_are_gathered(client):
    futures = {"a": client.submit(abs, -1), "b": client.submit(abs, -2)}
    assert client.gather(futures.values()) == [1, 2]
    assert client.gather(future for future in futures.values()) == [1, 2]


def test_as_completed_refuses_what_is_no_future(client):
    with pytest.raises(TypeError, match="not a future"):
        as_completed([1, 2])
    with pytest.raises(TypeError, match="not a future"):
        as_completed({"a": client.submit(abs, -1)})
    assert list(as_completed([])) == []


def test_map_refuses_names_of_another_number_than_calls(client):
    with pytest.raises(ValueError, match="2 names as key for 3 calls"):
        client.map(abs, range(3), key=["a", "b"])
    with pytest.raises(ValueError, match="fewer names"):
        client.map(abs, iter(range(3)), key=["a", "b"])


def test_scatter_takes_ranges_and_refuses_iterators_and_no_workers(client):
    assert client.gather(client.scatter(range(3))) == [0, 1, 2]
    with pytest.raises(TypeError, match="a list"):
        client.scatter(iter([1, 2]))
    with pytest.raises(ValueError, match="no workers"):
        client.scatter([1], workers=[])


def test_a_name_that_is_scattered_again_means_the_new_value(client):
    old = client.scatter({"x": [1]})["x"]
    assert client.scatter({"x": [1]})["x"].key == old.key
    new = client.scatter({"x": [1, 2]})["x"]
    large = client.scatter({"x": bytes(1 << 20)})["x"]
    assert client.gather([old, new]) == [[1], [1, 2]]
    assert client.submit(len, large).result() == 1 << 20


# --- clients ---


def test_what_runs_for_a_client_ends_with_it(cluster):
    with Client(cluster) as first:
        running = first.submit(time.sleep, 1, pure=False)
        done = first.submit(abs, -1)
        assert done.result() == 1
        with Client(cluster) as second:
            assert second.submit(abs, -2).result() == 2
        assert (running.status, done.status) == ("pending", "finished")
    assert (running.status, done.status) == ("cancelled", "cancelled")
    with pytest.raises(CancelledError):
        done.result()
    with Client(cluster) as last:
        last.wait_until(lambda: not any(last.scheduler_info()["tasks"].values()), 10)
        assert not any(last.scheduler_info()["tasks"].values())


def test_an_executor_of_the_standard_library(client):
    with client.get_executor(retries=1) as executor:
        assert list(executor.map(divmod, [7, 8], [2, 3])) == [(3, 1), (2, 2)]
        failed = executor.submit(int, "x")
        assert isinstance(failed.exception(timeout=30), ValueError)
        assert concurrent.futures.wait([failed], timeout=30).not_done == set()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(abs, -1)


def test_an_executor_gives_running_tasks_up(client):
    executor = client.get_executor()
    given = executor.submit(time.sleep, 1)
    executor.shutdown(cancel_futures=True)
    assert given.cancelled()


def test_names_of_distributed_that_are_absent_are_explained(client):
    with pytest.raises(ImportError, match=r"no performance_report, .* There is no dashboard"):
        mpicluster.performance_report  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mpicluster.nonsense  # noqa: B018
    with pytest.raises(AttributeError, match=r"no 'retry', .* `retries=`"):
        client.submit(abs, -1).retry()
    with pytest.raises(AttributeError, match=r"no 'data', .* values are its arguments"):
        client.submit(lambda: get_worker().data).result()
    with pytest.raises(AttributeError, match=r"no 'rebalance', .* Values stay where they were"):
        client.rebalance()
    with pytest.raises(AttributeError, match=r"no 'scale', .* is fixed when it starts"):
        client.cluster.scale(3)
    with pytest.raises(MpiclusterError, match="no `async` interface"):
        Client(asynchronous=True)
    assert mpicluster.default_client() is client
    assert client.dashboard_link is None


def test_arguments_that_mean_nothing_are_refused(client):
    lazy = dask.delayed(abs)(-1)
    with pytest.raises(TypeError, match=r"'retrys'.* Did you mean 'retries'"):
        client.compute(lazy, retrys=3)
    with pytest.raises(TypeError, match="'nonsense'"):
        client.persist(lazy, nonsense=3)
    with pytest.raises(TypeError, match="Did you mean 'priority'"):
        lazy.compute(prioritys=3)
    assert lazy.compute(num_workers=3) == 1
    with pytest.raises(ValueError, match="on_error is 'skip'"):
        client.run(abs, -1, on_error="skip")


def test_a_printed_future_tells_its_status(client):
    future = client.submit(abs, -1, key="x")
    future.result()
    assert str(future) == "<Future: finished, key: x>"


def test_versions_of_further_packages(client):
    found = client.get_versions(check=True, packages=["pytest", "no-such-package"])
    assert found["client"]["pytest"] == pytest.__version__
    assert found["workers"][2]["pytest"] == pytest.__version__
    assert found["workers"][2]["no-such-package"] == ""


# --- what is shared by name ---


def forget(client):
    """Let what was dropped reach the scheduler."""
    gc.collect()
    client.submit(abs, -1, pure=False).result()


def test_a_future_in_a_queue_or_variable_keeps_its_value(client):
    queue, variable = Queue("kept", client), Variable("kept", client)
    queue.put({"first": client.submit(pow, 2, 10)})
    variable.set([client.submit(pow, 2, 20)])
    forget(client)
    assert client.submit(lambda queue: queue.get()["first"].result(), queue).result() == 1024
    (taken,) = variable.get()
    variable.delete()
    forget(client)
    assert taken.result() == 1 << 20


def test_a_task_hands_a_future_on_by_a_queue(client):
    def produce(queue):
        queue.put(get_client().submit(pow, 3, 4, pure=False))

    queue = Queue("handed on", client)
    client.submit(produce, queue).result()
    forget(client)
    assert queue.get(timeout="10s").result() == 81


def test_futures_in_a_result_keep_their_values(client):
    def start(base):
        return [get_client().submit(pow, base, 2, pure=False)]

    futures = client.map(start, range(4), pure=False)
    forget(client)
    inner = client.gather(futures)
    assert client.gather([future for (future,) in inner]) == [0, 1, 4, 9]
    total = client.submit(lambda found: sum(get_client().gather(list(found))), futures[3])
    assert total.result() == 9


def test_a_future_in_a_result_is_known_before_the_result_is(client):
    """Others who got the result once asked the scheduler for a key that it had not heard of."""

    def start():
        import threading

        client = get_client()
        loop = client.loop
        with loop.lock:  # what this client sends by itself goes late
            loop._last_sent += 1000
            loop._drivers += 1
        future = client.submit(pow, 3, 2, pure=False)

        def go_on():
            with loop.lock:
                loop._last_sent -= 1000
                loop._drivers -= 1

        threading.Timer(1, go_on).start()
        return [future]

    (future,) = client.submit(start, pure=False).result()
    assert future.result() == 9


def test_limits_that_contradict_each_other_are_refused(client):
    with Semaphore(2, "licences", client):
        with pytest.raises(ValueError, match="max_leases=2 already"):
            Semaphore(3, "licences", client).acquire()
        assert Lock("licences", client).acquire(timeout="10s")  # is another thing
    Queue("limited", client, maxsize=1).put(1)
    with pytest.raises(ValueError, match="maxsize=1 already"):
        Queue("limited", client, maxsize=5).put(2)
    with pytest.raises(TimeoutError):
        Queue("limited", client).put(2, timeout=0.05)


def test_questions_about_no_futures_have_empty_answers(client):
    future = client.submit(abs, -1)
    future.result()
    assert client.who_has([]) == {}
    assert client.nbytes([]) == {}
    assert list(client.who_has([future])) == [future.key]
    # The value is pushed to the client while the scheduler is being told of it.
    client.wait_until(lambda: client.who_has([future])[future.key], 10)
    assert list(client.nbytes(summary=False)) == [future.key]
    assert list(client.nbytes()) == ["abs"]
    assert client.nbytes([future]) == {"abs": client.nbytes(summary=False)[future.key]}


def test_failed_futures_of_as_completed_come_with_what_was_raised(client):
    [(future, raised)] = as_completed(
        [client.submit(divmod, 1, 0)], with_results=True, raise_errors=False
    )
    kind, error, trace = raised
    assert (kind, type(error)) == (ZeroDivisionError, ZeroDivisionError)
    assert future.status == "error"
    assert isinstance(trace, TracebackType)


def test_functions_run_on_workers_are_told_their_worker(client):
    def place(word, dask_worker):
        return word, dask_worker.id, dask_worker.address

    ranks = list(client.nthreads())
    assert client.run(place, "at") == {rank: ("at", rank, f"mpi://{rank}") for rank in ranks}
    workers = client.scheduler_info()["workers"]
    assert [(w["type"], w["id"], w["name"], w["status"]) for w in workers.values()] == [
        ("Worker", rank, rank, "running") for rank in ranks
    ]


# --- containers ---


def kinds(*values):
    return [(type(value).__name__, value) for value in values]


def test_futures_in_derived_containers_stand_for_their_values(client):
    one, two = client.submit(abs, -1), client.submit(abs, -2)
    default = defaultdict(list, a=one)
    found = client.submit(
        kinds, Pair(one, two), OrderedDict(b=one, a=[two]), default, Items([one, 5])
    ).result()
    assert found == [
        ("Pair", (1, 2)), ("OrderedDict", OrderedDict(b=1, a=[2])), ("defaultdict", {"a": 1}),
        ("Items", [1, 5]),
    ]  # fmt: skip
    assert default == {"a": one}


def test_a_long_list_with_a_future_in_it_is_an_argument(client):
    """It was once scattered, with the future as the number of an input that it did not have."""
    number = client.submit(pow, 2, 5)
    future = client.submit(lambda found: (found[0], len(found[1])), [number, "x" * 2_000_000])
    assert future.result() == (32, 2_000_000)


def test_a_large_argument_may_change_after_the_call(client):
    array = np.ones(1_000_000)
    futures = client.map(lambda a, number: a.sum() + number, [array] * 3, range(3))
    one = client.submit(np.sum, array)
    array[:] = 7
    assert client.gather([*futures, one]) == [1e6, 1e6 + 1, 1e6 + 2, 1e6]


def test_memory_that_makes_the_next_call_may_be_the_same(client):
    def chunks():
        array = np.zeros(100_000)
        for number in range(300):
            if number % 100 == 0:
                array[:] = number
            yield array

    sums = client.gather(client.map(lambda a, _: a.sum(), chunks(), range(300)))
    assert [sums[0], sums[100], sums[299]] == [0, 1e7, 2e7]


def test_a_set_with_a_future_and_a_long_text_is_an_argument(client):
    number = client.submit(pow, 2, 5)
    given = {number, "x" * 2_000_000}
    assert client.submit(lambda found: max(map(len, map(str, found))), given).result() == 2_000_000
    (future,) = client.map(lambda _, found: 32 in found, [1], found={number, "x" * 200_000})
    assert future.result()


def test_equal_calls_after_a_map_that_raised_are_run(client):
    def calls():
        yield 41
        raise OSError("the file has ended")

    try:
        client.map(lambda x: x + 1, calls())
    except OSError as error:
        kept = error  # with the frames that hold the futures
    one = client.map(lambda x: x + 1, [41])[0]
    assert one.result(timeout=10) == 42
    del kept


def test_collections_are_arguments(client):
    """Their sizes were once asked for, which some do not know."""
    pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2)
    assert client.submit(lambda found: found.npartitions, frame).result() == 2
    assert client.submit(lambda found: found.npartitions, found=frame.a).result() == 2


def test_a_graph_with_an_error_leaves_no_key_that_is_waited_for(client):
    good = dask.delayed(pow)(2, 5, dask_key_name="good")
    bad = dask.delayed(str)(threading.Lock(), dask_key_name="bad")
    with pytest.raises(MpiclusterError) as kept:
        client.compute([good, bad])
    assert client.compute(good).result(timeout=10) == 32
    del kept


def test_equal_calls_with_arrays_share_a_task(client):
    array = np.arange(50_000.0)
    first, second = client.submit(np.sum, array), client.submit(np.sum, array.copy())
    assert first.key == second.key
    assert client.submit(np.sum, array + 1).key != first.key
    assert client.submit(np.sum, array, pure=False).key != first.key


@pytest.mark.parametrize("rank", [2, 3])
def test_large_arguments_go_where_their_task_runs(client, rank):
    arrays = [np.full(100_000, number) for number in range(4)]
    begun = mpicluster.Event(f"begun on {rank}", client)
    end = mpicluster.Event(f"end on {rank}", client)

    def wait(a, b):
        begun.set()
        end.wait()
        return len(a) + len(b)

    futures = client.map(wait, arrays, arrays[::-1], workers=[rank])
    begun.wait()
    counts = {worker: len(keys) for worker, keys in client.has_what().items()}
    end.set()
    assert client.gather(futures) == [200_000] * 4
    assert counts == {2: 0, 3: 0} | {rank: 4}


def test_named_tuples_are_gathered_and_scattered(client):
    futures = client.scatter(Pair(1, 2))
    assert type(futures) is Pair
    assert client.gather(futures) == Pair(1, 2)
    assert client.gather(OrderedDict(a=futures.first)) == OrderedDict(a=1)


def test_a_list_that_holds_itself_is_an_argument_without_futures_only(client):
    cycle = []
    cycle.append(cycle)
    assert client.submit(len, cycle).result() == 1
    future = client.submit(abs, -1)
    assert client.submit(kinds, future, cycle).result()[0] == ("int", 1)
    cycle.append(future)
    with pytest.raises(ValueError, match="contains itself"):
        client.submit(len, cycle)
    cycle.clear()


def forks():
    import os

    return "child" if os.fork() == 0 else "parent"


def test_a_child_that_comes_back_from_a_task_is_no_slot(client):
    assert client.submit(forks, workers=[2]).result() == "parent"
    futures = [client.submit(abs, -number, workers=[2]) for number in range(20)]
    assert client.gather(futures) == list(range(20))


def test_a_function_that_ends_its_slot_is_an_error(client):
    import os

    with pytest.raises(KilledWorker, match="ended a slot: it ended with status 3"):
        client.run(os._exit, 3)
    assert client.submit(abs, -1).result() == 1


def test_replicate_refuses_what_has_no_value(client):
    def fails():
        raise KeyError("no")

    with pytest.raises(KeyError):
        client.replicate([client.submit(fails)])
    future = client.submit(abs, -1)
    cancelled = client.submit(abs, -2)
    client.cancel([cancelled])
    with pytest.raises(CancelledError):
        client.replicate([cancelled])
    for options in ({"n": 0}, {"n": -1}, {"workers": []}):
        with pytest.raises(ValueError, match="which is none"):
            client.replicate([future], **options)


# --- tasks whose futures nobody keeps ---


def test_what_was_fired_and_forgotten_runs_before_the_cluster_ends(tmp_path):
    def write(number):
        time.sleep(0.1)
        (tmp_path / str(number)).write_text("done")

    with Client(n_workers=1, threads_per_worker=1) as client:
        fire_and_forget(client.map(write, range(5)))
    assert len(list(tmp_path.iterdir())) == 5


def test_what_was_forgotten_is_given_up_when_the_script_fails(tmp_path):
    def write(number):
        time.sleep(0.2)
        (tmp_path / str(number)).write_text("done")

    def script():
        with Client(n_workers=1, threads_per_worker=1) as client:
            fire_and_forget(client.map(write, range(20)))
            raise RuntimeError("the script fails")

    with pytest.raises(RuntimeError, match="the script fails"):
        script()
    assert len(list(tmp_path.iterdir())) < 20


def test_the_error_of_a_persisted_value_reaches_what_is_computed_from_it(client):
    def fail():
        raise ValueError("persisted in vain")

    failed = dask.delayed(fail)().persist()
    wait(failed)
    with pytest.raises(ValueError, match="persisted in vain"):
        dask.delayed(abs)(failed).compute()


def test_tasks_with_more_shared_inputs_than_a_slot_keeps(client):
    """Inputs that were pushed out and kept again in one turn were once missing in the slot."""
    values = client.map(abs, range(150))
    for turn in range(8):
        starts = (0, 30, 60, 10)
        sums = [
            client.submit(lambda *some: sum(some), *values[start : start + 90], pure=False)
            for start in starts
        ]
        assert client.gather(sums) == [sum(range(start, start + 90)) for start in starts], turn


def test_errors_and_names_are_those_that_scripts_for_distributed_look_for(client):
    future = client.submit(time.sleep, 1, pure=False)
    future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    with pytest.raises(TypeError):
        client.submit(sum, (number for number in range(3)))
    assert client.id.startswith("Client-")
    assert client.scheduler_info()["id"].startswith("Scheduler-")
