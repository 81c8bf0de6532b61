"""How are the tasks of a plain dict graph read: `(function, argument, ...)` with keys in it?

The usual shapes (arguments that are keys, numbers, texts, or lists of those) are read here in one
pass; everything else is left to dask, which makes its own task objects of them.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from mpicluster.client.submission import InputList
from mpicluster.ids import Key
from mpicluster.serialization.calls import Input, InputRun

#: Types of arguments that may be keys.
KEYS: Final = frozenset({str, int, float, bool, tuple})
#: Types of arguments that are never keys and hold none.
LITERALS: Final = frozenset({bytes, complex, type(None)})


def is_call(task: Any) -> bool:
    """Return whether the value of a graph's key is a task in dask's older form."""
    return type(task) is tuple and bool(task) and callable(task[0])


def simple_dependencies(
    task: tuple[Any, ...], graph: Mapping[Hashable, Any]
) -> list[Hashable] | None:
    """Return the keys that a task needs; None if its arguments are of no simple shape."""
    found: list[Hashable] = []
    for argument in task[1:]:
        kind = type(argument)
        if kind is list:
            for item in argument:
                if not _add_if_simple(item, type(item), graph, found):
                    return None
        elif not _add_if_simple(argument, kind, graph, found):
            return None
    return found


def _add_if_simple(
    value: Any, kind: type, graph: Mapping[Hashable, Any], found: list[Hashable]
) -> bool:
    if kind not in KEYS:
        return kind in LITERALS
    try:
        if value in graph:
            found.append(value)
            return True
    except TypeError:  # a tuple with something in it that has no hash
        return False
    return kind is not tuple


def makes_pieces(function: Any) -> bool:
    """Return whether the function is that of a shuffle by tasks, which returns a dict of tables.

    All tasks that need its result take one table out of it.
    """
    name = getattr(function, "__name__", None)
    return name == "_shuffle_group" and function.__module__.startswith("dask.dataframe.")


def simple_call(
    task: tuple[Any, ...],
    graph: Mapping[Hashable, Any],
    keys: Mapping[Hashable, Key],
    inputs: InputList,
) -> tuple[Callable[..., Any], list[Any]]:
    """Return a task of simple shape as a function and arguments with inputs in them."""
    args: list[Any] = []
    for argument in task[1:]:
        kind = type(argument)
        if kind is list:
            args.append(_list_of(argument, graph, keys, inputs))
        elif kind in KEYS and argument in graph:
            args.append(inputs.add(keys[argument]))
        else:
            args.append(argument)
    return task[0], args


def _list_of(
    items: list[Any],
    graph: Mapping[Hashable, Any],
    keys: Mapping[Hashable, Key],
    inputs: InputList,
) -> Any:
    """Return a list with inputs in the place of keys; one object if there is nothing else."""
    places = inputs.keys
    start = len(places)
    if items and all(type(item) in KEYS and item in graph for item in items):
        its_keys = [keys[item] for item in items]
        for key in its_keys:
            places.setdefault(key, len(places))
        if places[its_keys[0]] == start and len(places) == start + len(items):
            return InputRun(start, len(places))
        return [Input(places[key]) for key in its_keys]
    return [
        inputs.add(keys[item]) if type(item) in KEYS and item in graph else item for item in items
    ]
