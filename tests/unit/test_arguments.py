"""Do the large arguments of calls travel as values of their own, each once?"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpicluster import messages as m
from mpicluster.client.arguments import LargeArguments, large_bytes, may_be_large
from mpicluster.client.containers import replace_futures
from mpicluster.client.core import ClientCore
from mpicluster.client.submission import InputList, TaskBuffer, dump_call, is_large
from mpicluster.config import Config
from mpicluster.errors import TaskSerializationError
from mpicluster.ids import CLIENT_RANK
from mpicluster.serialization.calls import load_call
from mpicluster.serialization.frames import from_frames

LIMIT = 1000


class Client:
    """What large arguments need of a client, around a real core."""

    def __init__(self) -> None:
        self.config = Config(scatter_bytes_min=LIMIT)
        self.core = ClientCore(self.config, CLIENT_RANK)
        self.loop = SimpleNamespace(core=self.core, config=self.config)
        self.turn = 1

    def next_rank(self, _options: m.TaskOptions) -> int:
        self.turn += 1
        return self.turn

    def make_future(self, record: Any) -> Any:
        return record


@pytest.fixture
def client() -> Client:
    return Client()


def dump(client: Client, *args: Any, **kwargs: Any) -> tuple[bytes, LargeArguments, list[Any]]:
    """Return the payload of a call, its large arguments and what its inputs are."""
    large, inputs = LargeArguments(client), InputList()  # type: ignore[arg-type]
    payload = dump_call(args, kwargs, inputs, large, "call")
    return payload, large, list(inputs.keys)


def values_of(inputs: list[Any]) -> list[Any]:
    return [from_frames(argument.frames) for argument in inputs]


def test_a_large_array_becomes_an_input(client: Client) -> None:
    array = np.arange(1000.0)
    payload, _, inputs = dump(client, array, 5, other=array)
    assert len(payload) < 300
    args, kwargs = load_call(payload, values_of(inputs))
    assert (args[0] == array).all()
    assert args[1] == 5
    assert kwargs["other"] is args[0]


@pytest.mark.parametrize(
    "value", ["x" * 2000, b"y" * 2000, list(range(2000)), {"deep": [np.zeros(1000)]}]
)
def test_a_large_argument_of_any_kind_becomes_an_input(client: Client, value: Any) -> None:
    payload, _, inputs = dump(client, 1, value, name=value)
    assert len(payload) < 300
    args, kwargs = load_call(payload, values_of(inputs))
    assert repr(args) == repr((1, value))
    assert repr(kwargs) == repr({"name": value})


def test_a_container_with_an_input_stays_in_the_call(client: Client) -> None:
    """It was once scattered with the number of an input, which means nothing outside the call."""
    large, inputs = LargeArguments(client), InputList()  # type: ignore[arg-type]
    future = inputs.add(70)
    array = np.zeros(1000)
    numbers = replace_futures({Future()}, Future, inputs.add, None)  # type: ignore[arg-type]
    call = ([future, "x" * 2000, array], {"deep": [numbers, "y" * 2000]}, "z" * 2000)
    payload = dump_call(call, {}, inputs, large, "call")
    assert next(iter(inputs.keys)) == 70
    assert len(inputs.keys) == 3
    args, _ = load_call(payload, ["seventy", *values_of(list(inputs.keys)[1:])])
    assert args[0][:2] == ["seventy", "x" * 2000]
    assert (args[0][2] == array).all()
    assert args[1:] == ({"deep": [{"seventy"}, "y" * 2000]}, "z" * 2000)


class Future:
    """What `replace_futures` replaces."""

    def use_as_input(self, _loop: Any) -> int:
        return 70


def test_arguments_that_are_large_together_travel_by_themselves(client: Client) -> None:
    arrays = [np.full(50, number) for number in range(5)]
    payload, _, inputs = dump(client, *arrays, "small")
    assert len(payload) < LIMIT
    args, _ = load_call(payload, values_of(inputs))
    assert all((found == array).all() for found, array in zip(args, arrays, strict=False))
    assert args[5] == "small"


def test_many_small_arguments_stay_in_the_call(client: Client) -> None:
    _, _, inputs = dump(client, *("x" * 40 for _ in range(100)))
    assert inputs == []


def test_what_only_says_that_it_is_large_stays_in_the_call(client: Client) -> None:
    payload, _, inputs = dump(client, Lazy())
    assert inputs == []
    args, _ = load_call(payload, [])
    assert isinstance(args[0], Lazy)


class Lazy:
    """As zarr's arrays: large, with a small pickle."""

    nbytes = 10**12


def test_the_same_object_in_several_calls_travels_once(client: Client) -> None:
    large = LargeArguments(client)  # type: ignore[arg-type]
    buffer = TaskBuffer(client.loop, m.NO_OPTIONS, large)  # type: ignore[arg-type]
    array, other = np.zeros(1000), np.ones(1000)
    keys = []
    for args in ((array, 1), (array, 2), (other, array)):
        inputs = InputList()
        payload = dump_call(args, {}, inputs, large, "call")
        found = large.to_keys(inputs.keys)
        keys.append(found)
        buffer.add(client.core.next_number(), 1, payload, found, True)
    buffer.send()
    assert keys[0] == keys[1]
    assert keys[2][1] == keys[0][0]
    (scheduler, declared), *workers = client.core.outgoing(0.0)
    assert scheduler == 0
    assert [type(message) for message in declared] == [m.DeclareValues, m.SubmitTasks]
    assert declared[0].keys == [keys[0][0], keys[2][0]]  # type: ignore[attr-defined]
    assert [rank for rank, _ in workers] == declared[0].ranks  # type: ignore[attr-defined]
    assert sum(len(messages) for _, messages in workers) == 2


@pytest.mark.parametrize("value", ["x" * 2000, [b"y" * 2000]])
def test_an_object_twice_in_a_call_is_one_there_too(client: Client, value: Any) -> None:
    payload, _, inputs = dump(client, value, again=value)
    assert len(inputs) == 1
    args, kwargs = load_call(payload, values_of(inputs))
    assert args[0] is kwargs["again"]


def test_literals_of_a_graph_are_not_forgotten(client: Client) -> None:
    large = LargeArguments(client, constant=True)  # type: ignore[arg-type]
    text = "x" * 2000
    first = large.take(text)
    assert first is not None
    large.to_keys([first])
    large.send()
    assert large.take(text) is first
    assert first.frames == []  # the memory is the message's now


def test_after_forget_an_object_may_have_changed(client: Client) -> None:
    large = LargeArguments(client)  # type: ignore[arg-type]
    array = np.zeros(1000)
    first = large.find(array)
    assert large.find(array) is first
    large.forget()
    assert large.find(array) is not first


def test_the_arguments_of_a_call_go_to_one_worker(client: Client) -> None:
    large = LargeArguments(client)  # type: ignore[arg-type]
    for _ in range(3):
        inputs = InputList()
        dump_call((np.zeros(1000), np.zeros(1000)), {}, inputs, large, "call")
        large.to_keys(inputs.keys)
    large.send()
    declared = client.core.outgoing(0.0)[0][1][0]
    assert isinstance(declared, m.DeclareValues)
    assert declared.ranks == [2, 2, 3, 3, 4, 4]


def test_it_is_under_way_until_it_has_left(client: Client) -> None:
    large = LargeArguments(client)  # type: ignore[arg-type]
    waited = []
    client.wait_until = lambda done: waited.append(done())  # type: ignore[attr-defined]
    inputs = InputList()
    dump_call((np.zeros(1000),), {}, inputs, large, "call")
    large.to_keys(inputs.keys)
    large.send()
    assert large.under_way
    large.wait()
    assert waited == [False]
    put = client.core.outgoing(0.0)[1][1][0]
    assert isinstance(put, m.PutLargeValue)
    assert put.on_sent is not None
    put.on_sent()
    large.wait()
    assert waited == [False]
    assert not large.under_way


def test_what_is_on_its_way_to_a_lost_worker_is_not_waited_for(client: Client) -> None:
    """MPI may never let go of it; `submit` once waited for ever."""
    large = LargeArguments(client)  # type: ignore[arg-type]
    waited = []
    client.wait_until = lambda done: waited.append(done())  # type: ignore[attr-defined]
    for _ in range(2):
        inputs = InputList()
        dump_call((np.zeros(1000),), {}, inputs, large, "call")
        large.to_keys(inputs.keys)
    large.send()
    client.core.lost_workers[2] = "it is gone"
    large.wait()
    client.core.lost_workers[3] = "and this one"
    large.wait()
    assert waited == [False]


def test_equal_arguments_have_equal_digests(client: Client) -> None:
    def digest(value: Any) -> bytes:
        found = LargeArguments(client).take(value)  # type: ignore[arg-type]
        assert found is not None
        return found.digest()

    assert digest(np.zeros(1000)) == digest(np.zeros(1000))
    assert digest(np.zeros(1000)) != digest(np.ones(1000))
    assert digest(np.zeros(1000)) != digest(np.zeros((10, 100)))


def test_what_cannot_be_pickled_is_an_error_that_names_the_task(client: Client) -> None:
    class Closed:
        nbytes = 10**9
        size = "none"

        def __reduce__(self) -> Any:
            raise OSError("the file is closed")

    for call in ((Closed(),), (["x" * 2000, Closed()],)):
        with pytest.raises(TaskSerializationError, match="'call' cannot be pickled: the file is"):
            dump(client, *call)


def test_sizes() -> None:
    class Unknown:
        @property
        def nbytes(self) -> int:
            raise NotImplementedError("as dask's tables say")

    assert may_be_large(Lazy(), LIMIT)
    assert not may_be_large(Lazy, LIMIT)
    assert not may_be_large(Unknown(), LIMIT)
    assert not may_be_large(np.zeros(10), LIMIT)
    assert may_be_large(np.zeros(1000), LIMIT)
    assert may_be_large(pd.DataFrame({"a": range(1000)}), LIMIT)
    assert not may_be_large(pd.DataFrame({"a": range(10)}), LIMIT)
    assert not may_be_large("text" * 1000, LIMIT)
    assert is_large("x" * 2000, LIMIT)
    assert not is_large("x" * 20, LIMIT)
    assert not is_large(open, LIMIT)


def test_where_workers_may_be_lost_more_stays_in_the_task() -> None:
    assert large_bytes(Config(scatter_bytes_min=LIMIT)) == LIMIT
    assert large_bytes(Config(scatter_bytes_min=LIMIT, survive="ranks")) == 1 << 20
