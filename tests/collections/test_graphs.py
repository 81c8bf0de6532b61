"""Graphs given to `Client.get`, annotations, configuration, clean-up, limits."""

import operator
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from dask import delayed
from dask._task_spec import Alias, DataNode, List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph

from mpicluster import Client
from mpicluster.errors import LostValueError, MpiclusterError, NoValidWorkerError
from mpicluster.ordering import CycleError


def inc(x):
    return x + 1


def add(x, y):
    return x + y


def rank_of_task():
    from mpicluster.worker.slot import current_slot

    return current_slot.settings.rank


# --- plain graphs ---


def test_keys_may_be_texts_numbers_and_tuples(client):
    graph = {"x": 1, ("y", 0): (inc, "x"), 3: (add, "x", ("y", 0)), 2.5: (sum, ["x", 3, 10])}
    assert client.get(graph, 3) == 3
    assert client.get(graph, [2.5, [3, ("y", 0)], [[]]]) == [14, [3, 2], [[]]]


def test_nested_tasks_lists_and_aliases(client):
    graph = {
        "x": 1,
        "alias": "x",
        "again": "alias",
        "nested": (add, (inc, "x"), (sum, ["again", (inc, 5)])),
        "list": [["x", "nested"], "alias"],
        "dict": (lambda d: d["k"], {"k": 5}),
        "none": None,
    }
    names = ["nested", "list", "again", "dict", "none"]
    assert client.get(graph, names) == [9, [[1, 9], 1], 1, 5, None]


def test_arguments_that_only_look_like_keys(client):
    graph = {"x": 1, "y": (lambda *args: args, "z", ("w", 1), ("x", 1), b"x", None, [1, "x"])}
    assert client.get(graph, "y") == ("z", ("w", 1), (1, 1), b"x", None, [1, 1])


def test_dask_tasks(client):
    graph = {
        "x": DataNode("x", 1),
        "y": Task("y", add, TaskRef("x"), 2),
        "z": Alias("z", "y"),
        "sum": Task("sum", sum, List(TaskRef("y"), TaskRef("z"), Task(None, inc, TaskRef("x")))),
    }
    assert client.get(graph, ["sum", "z"]) == [8, 3]


def test_fused_tasks_run_without_dask_in_the_graph(client):
    first, second = Task("a", inc, TaskRef("x")), Task("b", inc, TaskRef("a"))
    third = Task("c", add, TaskRef("b"), TaskRef("a"))
    graph = {"x": DataNode("x", 1), "c": Task.fuse(first, second, third)}
    assert client.get(graph, "c") == 5


def test_siblings_that_share_literals_and_others_that_do_not(client):
    shared = [1, 2, 3]
    function = {"f": lambda values, n: sum(values) + n}["f"]
    graph = {
        ("t", n): Task(("t", n), function, shared if n % 5 else [n, n], n, _data_producer=True)
        for n in range(20)
    }
    found = client.get(graph, list(graph))
    assert found == [(6 if n % 5 else 2 * n) + n for n in range(20)]


def test_high_level_graphs(client):
    graph = HighLevelGraph(
        {"a": {("a", 0): (inc, 1)}, "b": {("b", 0): (inc, ("a", 0))}}, {"a": set(), "b": {"a"}}
    )
    assert client.get(graph, [("b", 0)]) == [3]


def test_only_what_is_needed_runs(client):
    def fail():
        raise AssertionError("nobody asked for this")

    assert client.get({"x": 1, "y": (inc, "x"), "bad": (fail,)}, "y") == 2


def test_a_cycle_is_an_error_that_names_it(client):
    with pytest.raises(CycleError, match=r"a.*->.*b.*->.*a"):
        client.get({"a": (inc, "b"), "b": (inc, "a")}, "a")


def test_a_missing_key_is_an_error_that_names_it(client):
    with pytest.raises(LostValueError, match="'nowhere'"):
        client.get({"a": (inc, 1)}, "nowhere")
    with pytest.raises(LostValueError, match="'gone'"):
        client.get({"a": Task("a", inc, TaskRef("gone"))}, "a")


def test_futures_instead_of_values(client):
    futures = client.get({"x": (inc, 1), "y": (inc, "x")}, ["x", "y"], sync=False)
    assert client.gather(futures) == [2, 3]


def test_a_graph_larger_than_a_message_keeps_what_its_end_needs(client):
    graph = {("x", n): (inc, n) for n in range(1000)}
    graph["sum"] = (sum, [("x", n) for n in range(1000)])
    graph["again"] = (add, "sum", ("x", 0))
    assert client.get(graph, ["sum", "again"]) == [500500, 500501]


# --- annotations and options ---


def test_retries_of_an_annotation(client, tmp_path):
    path = str(tmp_path / "failed")

    def fail_once(x):
        import pathlib

        if not pathlib.Path(path).exists():
            pathlib.Path(path).touch()
            raise OSError("once")
        return x

    with pytest.raises(OSError, match="once"):
        delayed(fail_once)(1).compute()
    (tmp_path / "failed").unlink()
    with dask.annotate(retries=2):
        value = delayed(fail_once)(2)
    assert value.compute(optimize_graph=False) == 2


def test_workers_of_an_annotation(client):
    for rank in (2, 3):
        with dask.annotate(workers=[rank], allow_other_workers=False):
            values = [delayed(rank_of_task, pure=False)() for _ in range(4)]
        assert dask.compute(*values, optimize_graph=False) == (rank,) * 4


def test_callable_annotations(client):
    with dask.annotate(workers=lambda key: [2 + key[1] % 2]):
        where = da.map_blocks(
            lambda block: block + rank_of_task(), da.zeros(6, chunks=1), dtype="f8"
        )
    assert where.compute(optimize_graph=False).tolist() == [2, 3, 2, 3, 2, 3]


def test_resources_and_priority_of_annotations(client):
    with dask.annotate(resources={"GPU": 1}, priority=5):
        value = delayed(inc)(1)
    assert value.compute(optimize_graph=False) == 2
    with dask.annotate(resources={"GPU": 4}):
        value = delayed(inc)(1)
    with pytest.raises(NoValidWorkerError, match="GPU"):
        value.compute(optimize_graph=False)


def test_options_of_compute_and_persist(client):
    assert delayed(rank_of_task)().compute(workers=3) == 3
    assert dask.compute(delayed(rank_of_task)(), workers=[2], retries=1, priority=1) == (2,)
    assert delayed(rank_of_task)().persist(workers=2).compute() == 2
    assert client.compute(delayed(rank_of_task)(), workers=3).result() == 3
    with pytest.raises(NoValidWorkerError):
        delayed(inc)(1).compute(workers="no-such-host")


def test_annotations_around_compute(client):
    with dask.annotate(workers=[3]):
        assert delayed(rank_of_task)().compute() == 3


# --- dask's configuration ---


def test_configuration_is_put_back(cluster):
    names = ("scheduler", "dataframe.shuffle.method", "array.rechunk.method")
    before = [dask.config.get(name, None) for name in names]
    with Client(cluster) as outer:
        assert dask.config.get("scheduler") is outer
        with Client(cluster) as inner:
            assert dask.config.get("scheduler") is inner
            assert delayed(inc)(1).compute() == 2
        assert dask.config.get("scheduler") is outer
        assert delayed(inc)(2).compute() == 3
    assert [dask.config.get(name, None) for name in names] == before


def test_clients_may_be_closed_in_any_order(cluster):
    before = dask.config.get("scheduler", None)
    first, second = Client(cluster), Client(cluster)
    first.close()
    assert dask.config.get("scheduler") is second
    assert delayed(inc)(1).compute() == 2
    second.close()
    assert dask.config.get("scheduler", None) is before


def test_a_client_that_is_not_the_default_leaves_dask_alone(cluster):
    before = dask.config.get("scheduler", None)
    with Client(cluster, set_as_default=False) as client:
        assert dask.config.get("scheduler", None) is before
        assert client.get({"x": (inc, 1)}, "x") == 2


# --- limits ---


def test_a_large_graph_gives_a_warning_that_names_its_tasks(small_limit):
    graph = {("load", n): (len, b"%d" % n + b"x" * 3000) for n in range(10)}
    graph["total"] = (sum, list(graph))
    with pytest.warns(UserWarning, match=r"'load' \(10 tasks, 29\.\d+ kiB\)") as caught:
        assert small_limit.get(graph, "total") == 10 * 3001
    text = str(caught[0].message)
    assert "client.scatter" in text
    assert "large_graph_bytes" in text


def test_a_function_with_data_in_it_counts_too(small_limit):
    data = np.arange(10_000.0)

    def total():
        return data.sum()

    with pytest.warns(UserWarning, match="the functions themselves"):
        assert delayed(total)().compute() == data.sum()


def test_small_graphs_give_no_warning(small_limit):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small_limit.get({("x", n): (inc, n) for n in range(50)}, [("x", 3)]) == [4]


def test_released_collections_leave_no_memory_behind(client):
    kept = da.ones((100, 1000), chunks=(10, 1000)).persist()
    assert (kept + 1).sum().compute() == 200_000
    assert client.wait_until(lambda: client.scheduler_info()["tasks"] == {"memory": 10}, 10)
    del kept  # the fixture checks that all tasks and bytes go


def cut(number):
    """Return two large arrays, as a shuffle cuts a partition."""
    return {half: np.full(50_000, number + half) for half in (0, 1)}


def test_an_input_of_several_tasks_is_kept_for_no_longer_than_it_is_needed(client):
    graph = {("cut", n): (cut, n) for n in range(4)}
    for n in range(4):
        graph |= {("take", n, half): (operator.getitem, ("cut", n), half) for half in (0, 1)}
        graph |= {("sum", n, m): (np.sum, ("take", n, m % 2)) for m in range(8)}
    wanted = [("sum", n, m) for n in range(4) for m in range(8)]
    assert client.get(graph, wanted) == [50_000 * (n + m % 2) for n in range(4) for m in range(8)]

    def segments():
        workers = client.scheduler_info()["workers"].values()
        return [worker["metrics"]["segment_bytes"] for worker in workers]

    assert client.wait_until(lambda: not any(segments()), 10), segments()


def test_calls_may_change_what_they_are_given(client):
    """Inputs of submitted calls are their own, however often a slot has had them."""
    (value,) = client.scatter([[1, 2]])
    popped = [client.submit(list.pop, value, pure=False, workers=[2]) for _ in range(5)]
    assert client.gather(popped) == [2] * 5


# --- what belongs to distributed ---


def test_p2p_is_refused_before_anything_runs(client):
    pytest.importorskip("distributed")
    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"a": [1, 2, 3, 4], "b": range(4)}), npartitions=3)
    for work in (
        lambda: frame.shuffle("a", shuffle_method="p2p").compute(),
        lambda: frame.merge(frame, on="a", shuffle_method="p2p").persist(),
        lambda: da.ones((8, 8), chunks=(2, 8)).rechunk((8, 2), method="p2p").compute(),
    ):
        with pytest.raises(MpiclusterError, match="say shuffle_method='tasks'"):
            work()


def test_the_client_answers_for_distributed(client):
    for name in ("distributed", "dask.distributed"):
        assert delayed(rank_of_task)().compute(scheduler=name) > 1
        assert dask.compute(delayed(rank_of_task)(), scheduler=name)[0] > 1
        assert delayed(rank_of_task)().persist(scheduler=name).compute() > 1


def test_names_of_schedulers_are_as_before(cluster):
    from dask.base import named_schedulers

    before = dict(named_schedulers)
    with Client(cluster) as first, Client(cluster) as second:
        assert named_schedulers["distributed"].__self__ is second
        second.close()
        assert named_schedulers["distributed"].__self__ is first
    assert named_schedulers == before


def test_a_function_that_carries_data_gives_a_warning(client):
    big = np.ones(2_000_000)
    with pytest.warns(UserWarning, match="'lambda' has 16 MB once it is pickled"):
        assert client.submit(lambda: big.sum() + 1).result() == 2e6 + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.submit(lambda: 3).result() == 3
