"""How does a call become a task?

Pickles the function once and the arguments of each call, puts the values of futures in their
place, lets large arguments travel by themselves, and gathers tasks into messages that go out while
the next are being made. Nothing here waits for a result.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import cloudpickle

from mpicluster import messages as m
from mpicluster.client.arguments import LargeArgument, LargeArguments
from mpicluster.client.containers import CONTAINERS, PLAIN, has_futures
from mpicluster.client.loop import ClientLoop
from mpicluster.errors import TaskSerializationError
from mpicluster.ids import FunctionId, Key
from mpicluster.serialization.calls import Input
from mpicluster.serialization.frames import dumps, to_frames


class InputList:
    """The inputs of one task: each once, in the order in which they were met."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        #: Large arguments have no key before it is clear that no equal call is known.
        self.keys: dict[Key | LargeArgument, int] = {}

    def add(self, key: Key | LargeArgument) -> Input:
        """Return what stands for a value in the arguments."""
        return Input(self.keys.setdefault(key, len(self.keys)))


def dump_call(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: InputList,
    large: LargeArguments,
    prefix: str,
) -> bytes:
    """Return the payload of a call; its large arguments become inputs."""
    try:
        if kwargs or not _NO_ARRAYS.issuperset(map(type, args)):
            args, kwargs = _with_stand_ins(args, kwargs, inputs, large.find)
        payload = dumps((args, kwargs))
        if len(payload) <= large.limit:
            return payload
        # Texts, containers with much in them, and several that are large only together. What holds
        # an input stays: that means nothing outside of its call.
        share = large.limit // max(min(len(args) + len(kwargs), _SHARES_MAX), 1)

        def take(value: Any) -> LargeArgument | None:
            return None if has_futures(value, Input) else large.take(value, share)

        args, kwargs = _with_stand_ins(args, kwargs, inputs, take)
        left = [value for value in (*args, *kwargs.values()) if type(value) is not Input]
        if has_futures(left, Input):  # in containers, perhaps beside arrays
            return _dump_lightly((args, kwargs), inputs, large)
        return dumps((args, kwargs))
    except Exception as error:
        raise TaskSerializationError(
            f"An argument of {prefix!r} cannot be pickled: {error}. Arguments must be able to "
            "travel to another process; open files and connections inside the function."
        ) from error


#: Of many arguments only those stay in a call that have at most this share of the limit.
_SHARES_MAX: Final = 16
#: Types of arguments that are no arrays or tables themselves, as most are.
_NO_ARRAYS: Final = PLAIN | {Input, *CONTAINERS}


def _with_stand_ins(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: InputList,
    find: Callable[[Any], LargeArgument | None],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, with inputs in the place of what is found to be large."""

    def replaced(value: Any) -> Any:
        found = None if type(value) is Input else find(value)
        return value if found is None else inputs.add(found)

    return (
        tuple([replaced(value) for value in args]),
        {name: replaced(value) for name, value in kwargs.items()},
    )


def _dump_lightly(call: Any, inputs: InputList, large: LargeArguments) -> bytes:
    """Return the pickle of a call, with inputs in the place of arrays and tables inside it."""

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, value: Any) -> Any:
            found = large.find(value)
            if found is not None:
                return inputs.add(found).__reduce__()
            return super().reducer_override(value)

    with BytesIO() as file:
        Pickler(file, protocol=5).dump(call)
        return file.getvalue()


def is_large(value: Any, limit: int) -> bool:
    """Return whether a value has a pickle of more than `limit` bytes."""
    try:
        return not isinstance(to_frames(value, limit), bytes)
    except Exception:  # noqa: BLE001  (pickling the call says what is wrong)
        return False


class TaskBuffer:
    """Tasks with the same options on their way into a `SubmitTasks` message."""

    __slots__ = (
        "_bytes_max", "_core", "_nbytes", "_options", "_tasks_max", "_with_inputs", "dependencies",
        "functions", "graph", "keys", "large", "payloads", "wanted",
    )  # fmt: skip

    def __init__(
        self, loop: ClientLoop, options: m.TaskOptions, large: LargeArguments
    ) -> None:
        self._core = loop.core
        #: What goes to workers before these tasks can run.
        self.large = large
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
        self._nbytes = 0
        self._with_inputs = False

    @property
    def full(self) -> bool:
        """Whether a message should be sent before more is added."""
        return (
            len(self.keys) >= self._tasks_max or self._nbytes >= self._bytes_max or self.large.full
        )

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
            self.large.send()
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
