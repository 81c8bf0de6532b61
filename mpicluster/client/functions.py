"""Which functions has the scheduler been told, and which must be told again?

A function is pickled with what it refers to: defaults, closure, the script's globals. When one of
them changes, the next call must see it. Pickling anew for each call costs 50 us and more, so a
function is remembered together with all that it refers to, as long as that cannot change in place;
any other is pickled for each `submit`, `map` or graph.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Final

from mpicluster import messages as m
from mpicluster.client.loop import ClientLoop
from mpicluster.errors import TaskSerializationError
from mpicluster.ids import FunctionId
from mpicluster.serialization.calls import ReadsOnly
from mpicluster.serialization.frames import dumps, is_by_reference

#: Functions that are remembered.
FUNCTIONS_MAX: Final = 256
#: Objects of these types never change.
CONSTANT_TYPES: Final = frozenset({
    int, float, complex, str, bytes, bool, type(None), type(...), CodeType, ModuleType,
})  # fmt: skip
#: Objects that a function may refer to, directly and through others, to be remembered.
REFERENCES_MAX: Final = 200


class FunctionTable:
    """The functions that the scheduler has been told."""

    def __init__(self, loop: ClientLoop) -> None:
        self._core = loop.core
        self._large_nbytes = loop.config.large_graph_bytes
        #: Bytes of all functions that were defined.
        self.nbytes = 0
        self._by_digest: dict[tuple[bytes, str], FunctionId] = {}
        #: {(id, prefix, reads_only): (function and all that it refers to, number)}.
        self._recent: OrderedDict[tuple[int, str, bool], tuple[list[Any], FunctionId]]
        self._recent = OrderedDict()

    def number(
        self, function: Callable[..., Any], prefix: str, *, reads_only: bool = False
    ) -> FunctionId:
        """Return a function's number; if it is new or has changed it is pickled and defined.

        Slots may give a function that `reads_only` the same objects as other tasks.
        """
        references = references_of(function)
        if references is None:
            return self._define(function, prefix, reads_only)
        name = (id(function), prefix, reads_only)
        found = self._recent.get(name)
        if found is not None and are_the_same(found[0], references):
            return found[1]
        number = self._define(function, prefix, reads_only)
        self._recent[name] = (references, number)
        if len(self._recent) > FUNCTIONS_MAX:
            self._recent.popitem(last=False)
        return number

    def _define(
        self, function: Callable[..., Any], prefix: str, reads_only: bool
    ) -> FunctionId:
        try:
            code = dumps(ReadsOnly(function) if reads_only else function)
        except Exception as error:
            raise TaskSerializationError(
                f"The function {prefix!r} cannot be pickled: {error}. Functions may refer only to "
                "what can travel to another process; open files and connections inside them."
            ) from error
        digest = (blake2b(code, digest_size=16).digest(), prefix)
        number = self._by_digest.get(digest)
        if number is None:
            number = self._by_digest[digest] = self._core.next_number()
            self.nbytes += len(code)
            if not reads_only:  # graphs warn of their functions themselves
                warn_if_function_is_large(code, prefix, self._large_nbytes)
            self._core.to_scheduler(m.DefineFunctions([number], [prefix], [code]))
        return number


def warn_if_function_is_large(code: bytes, prefix: str, limit: int) -> None:
    """Warn of a function that carries data; every slot that runs it gets all of it."""
    if len(code) > limit:
        warnings.warn(
            f"The function {prefix!r} has {len(code) / 1e6:.0f} MB once it is pickled, because it "
            "refers to data from outside, and each slot that runs it gets a copy. Give the data "
            "to the workers with client.scatter and pass the future as an argument. The limit is "
            "the setting large_graph_bytes.",
            stacklevel=2,
        )


def are_the_same(first: list[Any], second: list[Any]) -> bool:
    """Return whether two lists hold the very same objects."""
    return len(first) == len(second) and all(map(_is, first, second))


def _is(first: Any, second: Any) -> bool:
    return first is second


def references_of(function: Any) -> list[Any] | None:
    """Return a function and all that it is pickled with; None if some of that may change in place.

    >>> references_of(len)
    [<built-in function len>]
    """
    found: list[Any] = []
    todo = [function]
    seen: set[int] = set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        found.append(value)
        if len(found) > REFERENCES_MAX:
            return None
        inner = _inner(value)
        if inner is None:
            return None
        todo.extend(inner)
    return found


def _inner(value: Any) -> list[Any] | None:
    """Return what an object is pickled with beside itself; None if that may change in place."""
    kind = type(value)
    if kind in CONSTANT_TYPES:
        return []
    if kind is tuple:
        return list(value)
    if kind is BuiltinFunctionType:
        return [] if isinstance(value.__self__, ModuleType | None) else None
    if isinstance(value, type):
        return [] if is_by_reference(value) else None
    if kind is not FunctionType:
        return None
    if is_by_reference(value):
        return []
    inner: list[Any] = [value.__code__, *(value.__defaults__ or ())]
    for part in (value.__kwdefaults__, value.__dict__, value.__annotations__):
        inner += (part or {}).values()
    try:
        inner += [cell.cell_contents for cell in value.__closure__ or ()]
    except ValueError:  # an empty cell: the function is not complete yet
        return None
    names = value.__globals__
    inner += [names[name] for name in global_names(value.__code__) if name in names]
    return inner


def global_names(code: CodeType) -> Iterator[str]:
    """Yield the names that a function and the functions inside it may look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from global_names(constant)
