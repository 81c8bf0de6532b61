"""Do values, calls and exceptions come through unharmed?"""

import pickle
import sys
import threading
import traceback
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mpicluster.client.containers import has_futures
from mpicluster.errors import KilledWorker, RemoteTaskError
from mpicluster.serialization.calls import Input, load_call
from mpicluster.serialization.exceptions import from_error, to_error, trace_from
from mpicluster.serialization.frames import dumps, from_frames, loads, to_frames


@pytest.mark.parametrize("value", [None, 1, "x", [1, {"a": (2.5, b"z")}], {1, 2}, range(3)])
def test_small_values_are_one_pickle(value: object) -> None:
    frames = to_frames(value, 1000)
    assert isinstance(frames, bytes)
    assert loads(frames) == value


def test_large_arrays_are_left_out_of_the_pickle() -> None:
    array = np.arange(100_000.0)
    frames = to_frames({"a": array, "b": 1}, 1000)
    assert isinstance(frames, list)
    assert len(frames[0]) < 1000
    assert len(frames[1]) == array.nbytes
    copied = [memoryview(bytearray(frame)) for frame in frames]
    back = from_frames(copied)
    assert (back["a"] == array).all()
    back["a"][0] = 7  # a received array may be written to
    assert array[0] == 0


def test_large_pickles_without_buffers_are_one_frame() -> None:
    frames = to_frames(list(range(10_000)), 1000)
    assert isinstance(frames, list)
    assert len(frames) == 1


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10_000).reshape(100, 100)[::2, ::3],
        np.asfortranarray(np.arange(10_000.0).reshape(100, 100)),
        np.zeros((0, 5)),
        np.array(["a", "bc"] * 500),
        np.array([{"a": 1}, None] * 100, dtype=object),
        np.arange(0, 10_000).astype("M8[s]"),
    ],
)
def test_odd_arrays(array: np.ndarray) -> None:
    frames = to_frames(array, 100)
    inline = isinstance(frames, bytes)
    back = loads(frames) if inline else from_frames(list(map(memoryview, frames)))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_tables() -> None:
    table = pd.DataFrame({"a": range(10_000), "b": ["x", "y"] * 5000}).set_index("a")
    frames = to_frames(table, 1000)
    assert isinstance(frames, list)
    pd.testing.assert_frame_equal(from_frames(list(map(memoryview, frames))), table)


def test_what_belongs_to_the_script_travels_by_value() -> None:
    """A class of __main__ cannot be imported elsewhere, though plain pickle would try."""
    module = sys.modules["__main__"]
    kind = type("OfTheScript", (), {"__module__": "__main__"})
    module.OfTheScript = kind
    try:
        content = dumps(kind())
    finally:
        del module.OfTheScript
    assert type(pickle.loads(content)).__name__ == "OfTheScript"


def test_what_cannot_be_pickled_says_so() -> None:
    with pytest.raises(TypeError):
        dumps(threading.Lock())


def test_inputs_unpickle_to_values() -> None:
    payload = dumps((([Input(1), {"k": Input(0)}], Input(1)), {"z": Input(0)}))
    args, kwargs = load_call(payload, ["zero", "one"])
    assert args == (["one", {"k": "zero"}], "one")
    assert kwargs == {"z": "zero"}


def test_futures_are_found_in_containers_only() -> None:
    class Future:
        pass

    class Holder:
        def __init__(self) -> None:
            self.future = Future()

    assert has_futures([1, {"a": (2, Future())}], Future)
    assert has_futures({Future(): 1}, Future)
    assert not has_futures([1, "a", Holder()], Future)


def failing() -> None:
    raise KeyError("inside")


def caught(function: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        function()
    return caught.value


def test_exceptions_keep_type_text_traceback_and_place() -> None:
    error = from_error(to_error(caught(failing), 3, "node7"), "f-1")
    assert isinstance(error, KeyError)
    assert error.args == ("inside",)
    assert "f-1" in error.__notes__[0]
    assert "rank 3 (node7)" in error.__notes__[0]
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "failing" in names


def refuse() -> None:
    raise ValueError("this exception cannot be rebuilt")


class OddError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return refuse, ()


def odd() -> None:
    raise OddError("a", "b")


def test_exceptions_that_cannot_be_rebuilt_arrive_as_text() -> None:
    error = from_error(to_error(caught(odd), 2, "h"))
    assert isinstance(error, RemoteTaskError)
    assert "OddError: ab" in str(error)
    assert "raise OddError" in str(error)


class ParticularError(Exception):
    """Its `args` are not what its `__init__` takes."""

    def __init__(self, place: str, *, code: int) -> None:
        super().__init__(f"{place}: {code}")
        self.code = code


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def particular() -> None:
    try:
        raise KeyError("the first")
    except KeyError as error:
        raise ParticularError("here", code=3) from error


def in_passing() -> None:
    try:
        raise OSError(2, "no such file")
    except OSError:
        raise ValueError("\udc80bad")  # noqa: B904


def test_exceptions_with_their_own_init_keep_type_and_attributes() -> None:
    error = from_error(to_error(caught(particular), 2, "h"))
    assert isinstance(error, ParticularError)
    assert (str(error), error.code) == ("here: 3", 3)


def test_what_led_to_an_exception_comes_with_it() -> None:
    error = from_error(to_error(caught(particular), 2, "h"))
    assert isinstance(error.__cause__, KeyError)
    error = from_error(to_error(caught(in_passing), 2, "h"))
    assert isinstance(error.__context__, OSError)
    assert error.__context__.errno == 2


def test_no_text_and_no_traceback_can_stop_an_exception() -> None:
    def endless() -> None:
        endless()

    def speechless() -> None:
        raise SpeechlessError

    columns = to_error(caught(in_passing), 2, "h")
    assert columns[2] == "\\udc80bad"
    assert "RecursionError" in to_error(caught(endless), 2, "h")[1]
    assert to_error(caught(speechless), 2, "h")[1] == "SpeechlessError"


def test_sys_exit_does_not_end_the_script() -> None:
    error = from_error(to_error(caught(lambda: sys.exit(5)), 2, "h"))
    assert isinstance(error, RemoteTaskError)
    assert "sys.exit(5)" in str(error)


def test_errors_of_the_scheduler_are_rebuilt_by_name() -> None:
    error = from_error([b"", "KilledWorker", "it died", b"", "", 4, "h"])
    assert isinstance(error, KilledWorker)
    assert str(error) == "it died"
    assert trace_from(b"") is None
