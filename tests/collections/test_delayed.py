"""Delayed calls on a client: futures as arguments, containers, several results, purity."""

import dask
import pytest
from dask import delayed

from mpicluster import Client, Future, LocalCluster, Variable, futures_of, wait


def inc(x):
    return x + 1


def add(x, y):
    return x + y


def test_calls_feed_calls(client):
    assert delayed(add)(delayed(inc)(1), delayed(inc)(2)).compute() == 5


def test_futures_are_arguments(client):
    future = client.submit(inc, 1)
    assert delayed(add)(future, 10).compute() == 12
    assert delayed(sum)([future, client.submit(inc, 5)]).compute() == 8


def test_nested_containers(client):
    one = delayed(inc)(0)
    value = delayed(lambda x: x)({"a": [one, (one, 2)], "b": {"c": one}, "d": {3, 4}})
    assert value.compute() == {"a": [1, (1, 2)], "b": {"c": 1}, "d": {3, 4}}


def test_keyword_arguments(client):
    assert delayed(dict)(a=delayed(inc)(0), b=[delayed(inc)(1)]).compute() == {"a": 1, "b": [2]}


def test_several_results(client):
    quotient, rest = delayed(divmod, nout=2)(17, 5)
    assert dask.compute(quotient, rest) == (3, 2)


def test_attributes_items_and_methods(client):
    text = delayed(str)("a,b")
    assert text.split(",")[1].upper().compute() == "B"


def test_pure_calls_share_a_key(client):
    first, second = delayed(inc, pure=True)(1), delayed(inc, pure=True)(1)
    assert first.key == second.key
    assert dask.compute(first, second) == (2, 2)
    assert delayed(inc)(1).key != delayed(inc)(1).key


def test_a_persisted_call_is_an_argument(client):
    kept = delayed(inc)(1).persist()
    assert len(futures_of(kept)) == 1
    assert delayed(add)(kept, kept).compute() == 4


def test_long_chains(client):
    value = delayed(inc)(0)
    for _ in range(1500):
        value = delayed(inc)(value)
    assert value.compute() == 1501


def test_an_exception_keeps_its_type_and_shows_the_function(client):
    def divide(x):
        return 1 / x

    with pytest.raises(ZeroDivisionError) as caught:
        delayed(inc)(delayed(divide)(0)).compute()
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "divide"
    del caught  # or the frames of its traceback keep it, and themselves


def test_an_exception_in_a_fused_task_shows_the_function(client):
    import dask.array as da

    def fail(block):
        raise LookupError("no such block")

    a = (da.ones(10, chunks=5) + 1).map_blocks(fail, dtype="f8", meta=da.ones(1)._meta)
    with pytest.raises(LookupError, match="no such block") as caught:
        (a * 2).sum().compute()
    assert caught.traceback[-1].name == "fail"
    del caught


def test_threads_can_be_asked_for_while_a_client_is_open(client):
    import os

    assert delayed(os.getpid)().compute(scheduler="threads") == os.getpid()
    assert delayed(os.getpid)().compute() != os.getpid()


def test_dask_inside_a_task(client):
    def inner():
        import dask.array as da

        return int(da.ones(10, chunks=5).sum().compute())

    assert client.submit(inner).result() == 10
    assert delayed(inner)().compute() == 10


def test_compute_gives_futures_or_values(client):
    one = client.compute(delayed(inc)(1))
    assert isinstance(one, Future)
    assert one.result() == 2
    several = client.compute([delayed(inc)(2), delayed(inc)(3), 7])
    assert client.gather(several[:2]) == [3, 4]
    assert several[2] == 7
    assert client.compute(delayed(inc)(1), sync=True) == 2
    assert client.compute([delayed(inc)(1), delayed(inc)(2)], sync=True) == [2, 3]


def test_persist_gives_collections(client):
    single = client.persist(delayed(inc)(1))
    assert single.compute() == 2
    first, second = client.persist([delayed(inc)(1), delayed(inc)(2)])
    wait([first, second])
    assert dask.compute(first, second) == (2, 3)
    with pytest.raises(TypeError, match="not a dask collection"):
        client.persist([1])


def test_mixed_collections(client):
    import dask.array as da
    import dask.bag as db

    a, b, c = da.arange(10, chunks=5).sum(), db.from_sequence([1, 2]).sum(), delayed(inc)(1)
    assert dask.compute(a, b, {"x": c, "y": 3}) == (45, 3, {"x": 2, "y": 3})
    kept = dask.persist(a, b, c)
    assert all(futures_of(one) for one in kept)
    assert dask.compute(*kept) == (45, 3, 2)


class Model:
    weight = 1

    def predict(self, x):
        return self.weight * x


class Lookalike:
    """Equal to all others of its kind."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return isinstance(other, Lookalike)

    def __hash__(self):
        return 1

    def __call__(self):
        return self.number


def test_calls_see_what_their_function_is_now(client):
    model = Model()
    assert client.submit(model.predict, 10).result() == 10
    model.weight = 7
    assert client.submit(model.predict, 10).result() == 70
    assert client.gather(client.map(model.predict, [1, 2])) == [7, 14]
    equal = [client.submit(Lookalike(number), pure=False) for number in range(3)]
    assert client.gather(equal) == [0, 1, 2]


def test_futures_of_another_cluster_are_refused(client):
    with LocalCluster(n_workers=1, threads_per_worker=1) as other, Client(other) as second:
        theirs = second.submit(abs, -1000)
        ours = client.submit(abs, -3)
        with pytest.raises(ValueError, match="belongs to another cluster"):
            second.gather(ours)
        with pytest.raises(ValueError, match="belongs to another cluster"):
            second.cancel(ours)
        calls = [
            lambda: second.submit(abs, ours),
            lambda: second.map(max, [1, 2], [theirs, ours]),
            lambda: second.submit(max, [1], default=ours),
            lambda: second.submit(len, {"deep": [(theirs, {ours})]}),
            lambda: second.get({"x": (abs, ours)}, "x"),
            lambda: second.get({"y": ours, "x": (abs, "y")}, "x"),
            lambda: second.compute(dask.delayed(max)([theirs, ours], default=0)),
            lambda: second.compute(client.persist(dask.delayed(abs)(-2)) + 1),
            lambda: Variable("theirs", client=second).set([ours]),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="belongs to another cluster"):
                call()
        assert (theirs.result(), ours.result()) == (1000, 3)
        assert second.submit(max, theirs, 5).result() == 1000


def test_clients_of_one_cluster_take_each_others_futures(client):
    with Client(client.cluster) as second:
        future = client.submit(abs, -3)
        assert second.submit(max, future, 2).result() == 3
        assert second.compute(dask.delayed(max)(future, 4), sync=True) == 4
        assert client.submit(sum, [second.submit(abs, -1), future]).result() == 4
