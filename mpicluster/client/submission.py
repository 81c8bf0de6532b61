"""How does a call become a task?

Pickles the function once and the arguments of each call, puts the values of futures in their
place, scatters large arguments, and gathers tasks into messages that go out while the next are
being made. Nothing here waits for a result.
"""

from collections.abc import Callable
from datetime import date, timedelta
from io import BytesIO
from typing import Any, Final

import cloudpickle

from mpicluster import messages as m
from mpicluster.client.containers import CONTAINERS, PLAIN
from mpicluster.client.loop import ClientLoop
from mpicluster.errors import TaskSerializationError
from mpicluster.ids import FunctionId, Key
from mpicluster.serialization.calls import Input
from mpicluster.serialization.frames import dumps


class InputList:
    """The inputs of one task: each key once, in the order in which they were met."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: dict[Key, int] = {}

    def add(self, key: Key) -> Input:
        """Return what stands for a value in the arguments."""
        return Input(self.keys.setdefault(key, len(self.keys)))


def nbytes_of(value: Any) -> int:
    """Return the bytes of an array or a table, 0 for everything else, classes among it."""
    if isinstance(value, type):
        return 0
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    if hasattr(value, "memory_usage") and hasattr(value, "dtypes"):
        usage = value.memory_usage()
        return int(usage.sum()) if hasattr(usage, "sum") else int(usage)
    return 0


class LightPickler:
    """Pickles a call without its large arrays and tables: each becomes an input."""

    def __init__(
        self, limit: int, inputs: InputList, scatter: Callable[[Any], Key]
    ) -> None:
        self._limit = limit
        self._inputs = inputs
        self._scatter = scatter

    def dump_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Return the payload."""
        outer = self

        class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
            def reducer_override(self, value: Any) -> Any:
                if not isinstance(value, type) and nbytes_of(value) > outer._limit:
                    return outer._inputs.add(outer._scatter(value)).__reduce__()
                return super().reducer_override(value)

        with BytesIO() as file:
            Pickler(file, protocol=5).dump((args, kwargs))
            return file.getvalue()


def is_large(value: Any, limit: int) -> bool:
    """Return whether a value has buffers or a pickle of more than `limit` bytes."""
    if type(value) in PLAIN and not isinstance(value, str | bytes | bytearray):
        return False
    if isinstance(value, str | bytes | bytearray):
        return len(value) > limit
    nbytes = nbytes_of(value)
    if nbytes:
        return nbytes > limit
    if isinstance(value, type | date | timedelta) or _is_small_container(value):
        return False
    try:
        return len(dumps(value)) > limit
    except Exception:  # noqa: BLE001  (pickling the call says what is wrong)
        return False


#: Containers of at most this many plain items are small without being pickled.
_SMALL_LENGTH: Final = 100


def _is_small_container(value: Any) -> bool:
    """Return whether a value is a short container of numbers and short texts."""
    kind = type(value)
    if kind not in CONTAINERS or len(value) > _SMALL_LENGTH:
        return False
    items = [*value, *value.values()] if kind is dict else value
    return all(
        type(item) in PLAIN
        and (not isinstance(item, str | bytes | bytearray) or len(item) <= _SMALL_LENGTH)
        for item in items
    )


def dump_call(args: tuple[Any, ...], kwargs: dict[str, Any], prefix: str) -> bytes:
    """Return the payload of a call."""
    try:
        return dumps((args, kwargs))
    except Exception as error:
        raise TaskSerializationError(
            f"An argument of {prefix!r} cannot be pickled: {error}. Arguments must be able to "
            "travel to another process; open files and connections inside the function."
        ) from error


class TaskBuffer:
    """Tasks with the same options on their way into a `SubmitTasks` message."""

    __slots__ = (
        "_bytes_max", "_core", "_nbytes", "_options", "_tasks_max", "_with_inputs", "dependencies",
        "functions", "graph", "kept", "keys", "payloads", "wanted",
    )  # fmt: skip

    def __init__(self, loop: ClientLoop, options: m.TaskOptions) -> None:
        self._core = loop.core
        self._options = options.to_columns()
        self._tasks_max = loop.config.submit_tasks_max
        self._bytes_max = loop.config.submit_bytes_max
        #: The number of the graph that the tasks belong to, if it needs several messages.
        self.graph = 0
        self._clear()

    def _clear(self) -> None:
        self.keys: list[Key] = []
        self.functions: list[FunctionId] = []
        self.payloads: list[bytes] = []
        self.dependencies: list[list[Key]] = []
        self.wanted = bytearray()
        #: Futures that must live until the tasks that use them have been sent.
        self.kept: list[Any] = []
        self._nbytes = 0
        self._with_inputs = False

    @property
    def full(self) -> bool:
        """Whether a message should be sent before more is added."""
        return len(self.keys) >= self._tasks_max or self._nbytes >= self._bytes_max

    def add(
        self, key: Key, function: FunctionId, payload: bytes, inputs: list[Key], wanted: bool
    ) -> None:
        """Add a task."""
        self.keys.append(key)
        self.functions.append(function)
        self.payloads.append(payload)
        self.dependencies.append(inputs)
        self.wanted.append(wanted)
        if inputs:
            self._with_inputs = True
        self._nbytes += len(payload)

    def send(self) -> None:
        """Queue what there is."""
        if self.keys:
            self._core.to_scheduler(m.SubmitTasks(
                self.keys, self.functions, self.payloads,
                self.dependencies if self._with_inputs else [], bytes(self.wanted), self._options,
                self.graph,
            ))  # fmt: skip
            self._clear()


def function_name(function: Callable[..., Any]) -> str:
    """Return the name under which people see a function's tasks.

    >>> function_name(len)
    'len'
    """
    name = getattr(function, "__name__", None)
    if name is None:
        inner = getattr(function, "func", None)
        name = function_name(inner) if inner is not None else type(function).__name__
    return "lambda" if name == "<lambda>" else str(name)
