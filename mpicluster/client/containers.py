"""Where are the futures in a value, and how are others put in their place?

Looks into lists, tuples, dicts and sets, also into those of derived classes like named tuples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from mpicluster.serialization.calls import Input

if TYPE_CHECKING:
    from mpicluster.client.loop import ClientLoop

#: Types that can neither be a future nor hold one.
PLAIN: Final = frozenset({int, float, str, bytes, bool, complex, type(None), bytearray})
#: What is looked into.
CONTAINERS: Final = (list, tuple, dict, set, frozenset)
#: Stands in `Replacing` for a container that is being rebuilt.
_UNDER_WAY: Final = object()


def has_futures(value: Any, future_type: type) -> bool:
    """Return whether a future is in the value or in its lists, tuples, dicts and sets."""
    todo = [value]
    #: Ids of the containers that were met, so that one that holds itself has an end.
    seen: set[int] = set()
    while todo:
        value = todo.pop()
        if type(value) in PLAIN:
            continue
        if isinstance(value, future_type):
            return True
        if isinstance(value, _SetOf):
            value = value.items
        if isinstance(value, CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, dict):
                todo.extend(value.values())
                todo.extend(value.keys())
            else:
                todo.extend(value)
    return False


def replace_futures(
    value: Any, future_type: type, add: Callable[[Any], Input], loop: ClientLoop
) -> Any:
    """Return the value with `add(key)` in the place of futures, inside containers too.

    Containers without futures are the same objects as before. Raises `ValueError` for a container
    that holds itself and a future, and for a future of another connection than `loop`.
    """
    return _Replacing(future_type, add, loop).replace(value)


class _Replacing:
    """The containers of one value that have been met."""

    def __init__(
        self, future_type: type, add: Callable[[Any], Input], loop: ClientLoop
    ) -> None:
        self._future_type = future_type
        self._add = add
        self._loop = loop
        #: {id of a container: what takes its place}.
        self._found: dict[int, Any] = {}

    def replace(self, value: Any) -> Any:
        """Return what takes the place of a value."""
        if type(value) in PLAIN:
            return value
        if isinstance(value, self._future_type):
            return self._add(value.use_as_input(self._loop))  # type: ignore[attr-defined]
        if not isinstance(value, CONTAINERS):
            return value
        found = self._found.get(id(value))
        if found is _UNDER_WAY:
            if has_futures(value, self._future_type):
                raise ValueError(
                    f"An argument holds a {type(value).__name__} that contains itself and a "
                    "future. Give the future as an argument of its own."
                )
            return value
        if found is None:
            self._found[id(value)] = _UNDER_WAY
            found = self._found[id(value)] = self._container(value)
        return found

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            pairs = [(self.replace(name), self.replace(item)) for name, item in value.items()]
            if all(
                old is new and item is value[old]
                for old, (new, item) in zip(value, pairs, strict=True)
            ):
                return value
            return rebuild(value, pairs)
        before = list(value)
        items = [self.replace(item) for item in before]
        if all(old is new for old, new in zip(before, items, strict=True)):
            return value
        if isinstance(value, set | frozenset):
            return _SetOf(type(value), items)
        return rebuild(value, items)


def rebuild(like: Any, items: Iterable[Any]) -> Any:
    """Return a container of the class of another, with these items; a dict's are pairs.

    >>> rebuild((1, 2), [3, 4])
    (3, 4)
    """
    kind = type(like)
    if kind in CONTAINERS:
        return kind(items)
    if isinstance(like, dict):
        made = copy.copy(like)
        made.clear()
        for name, item in items:
            made[name] = item
        return made
    if isinstance(like, list):
        values = copy.copy(like)
        values[:] = items
        return values
    if hasattr(like, "_fields"):  # a named tuple
        return kind(*items)
    return kind(items)


class _SetOf:
    """A set with inputs in it: it unpickles to a set, made where the inputs are values."""

    def __init__(self, kind: type, items: list[Any]) -> None:
        self.kind, self.items = kind, items

    def __reduce__(self) -> tuple[Any, ...]:
        return self.kind, (self.items,)
