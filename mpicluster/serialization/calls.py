"""How does a call (a function's arguments) travel when some of them are values of other tasks?

The payload of a task is the pickle of `(args, kwargs)`. Where an argument is the value of another
task it holds an `Input(i)`, which unpickles straight to the i-th input: nothing is searched and
replaced when the task runs.
"""

import pickle
import threading
from collections.abc import Callable
from typing import Any


class Inputs(threading.local):
    """The inputs of the task whose payload this thread is unpickling."""

    values: list[Any] = []


_inputs = Inputs()


class Input:
    """Stands for the i-th input of a task; it exists only while its payload is pickled."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        return _input, (self.index,)


class ReadsOnly:
    """A function on its way to slots that does not change its inputs.

    Tasks of a graph must not (dask's documentation, "Best Practices"), so those that run in one
    slot may use the same objects.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadsOnly, (self.function,)


class InputRun:
    """Stands for the list of the inputs `start` to `stop`: long lists of values cost nothing."""

    __slots__ = ("start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    def __reduce__(self) -> tuple[Any, ...]:
        return _input_run, (self.start, self.stop)


def _input(index: int) -> Any:
    return _inputs.values[index]


def _input_run(start: int, stop: int) -> list[Any]:
    return _inputs.values[start:stop]


def load_call(payload: bytes, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, with its inputs in place."""
    if not values:
        args, kwargs = pickle.loads(payload)
        return args, kwargs
    _inputs.values = values
    try:
        args, kwargs = pickle.loads(payload)
    finally:
        _inputs.values = []
    return args, kwargs
