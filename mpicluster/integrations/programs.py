"""How does a slot run what dask has fused into one task?

dask's own fused tasks carry a graph that is ordered anew at each run. Here the client orders it
once: a program is a list of steps, each a function with the positions of its arguments. Nothing
here imports dask, so that slots need it only where the user's functions do.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

#: A function, the positions of its arguments, the names of those at the end that are keywords.
Step: TypeAlias = tuple[Callable[..., Any], tuple[int, ...], tuple[str, ...]]


class Program:
    """A function made of steps; its result is that of the last.

    Positions count the arguments first, then the constants, then the results of the steps.

    >>> Program([(divmod, (0, 1), ()), (sum, (2,), ())], [4])(9)
    3
    """

    __slots__ = ("_constants", "_steps")

    def __init__(self, steps: Sequence[Step], constants: Sequence[Any]) -> None:
        self._constants = constants
        #: Steps with the positions that nobody reads after them: intermediate values go early.
        self._steps = [(*step, last) for step, last in zip(steps, _last_uses(steps), strict=True)]

    def __call__(self, *arguments: Any) -> Any:
        """Run the steps."""
        values: list[Any] = [*arguments, *self._constants]
        del arguments
        result = None
        for function, positions, names, last in self._steps:
            inputs = [values[position] for position in positions]
            for position in last:
                values[position] = None
            if names:
                count = len(names)
                keywords = dict(zip(names, inputs[-count:], strict=True))
                del inputs[-count:]
                result = function(*inputs, **keywords)
            else:
                result = function(*inputs)
            values.append(result)
        return result


def _last_uses(steps: Sequence[Step]) -> list[tuple[int, ...]]:
    """Return for each step the positions that no later step reads."""
    later: set[int] = set()
    found: list[tuple[int, ...]] = []
    for _, positions, _ in reversed(steps):
        found.append(tuple(sorted(set(positions) - later)))
        later.update(positions)
    return found[::-1]


# --- functions of steps and tasks ---


def identity(value: Any) -> Any:
    """Return the argument."""
    return value


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function that is a value itself, such as a partial."""
    return function(*args, **kwargs)


def make_list(*items: Any) -> list[Any]:
    """Return the arguments as a list."""
    return list(items)


def make_tuple(*items: Any) -> tuple[Any, ...]:
    """Return the arguments as a tuple."""
    return items


def make_set(*items: Any) -> set[Any]:
    """Return the arguments as a set."""
    return set(items)


def make_dict(*items: Any) -> dict[Any, Any]:
    """Return a dict of keys and values in turn."""
    return dict(zip(items[::2], items[1::2], strict=True))


def run_node(node: Callable[[dict[Any, Any]], Any], names: Sequence[Any], *values: Any) -> Any:
    """Run one of dask's task objects."""
    return node(dict(zip(names, values, strict=True)))


# --- results of which each reader needs one piece ---


class Pieces(Mapping[Any, Any]):
    """A dict whose values are pickled one by one, so that a task loads only the piece it takes.

    A shuffle makes a dict of tables from each partition, and as many tasks that take one table
    each: all of them loading all tables would take most of a shuffle's time.
    """

    def __init__(self, pickles: dict[Any, Any]) -> None:
        self._pickles = pickles

    def __getitem__(self, name: Any) -> Any:
        return pickle.loads(self._pickles[name])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pickles)

    def __len__(self) -> int:
        return len(self._pickles)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        buffers = [pickle.PickleBuffer(content) for content in self._pickles.values()]
        return _to_pieces, (list(self._pickles), buffers)


def _to_pieces(names: list[Any], buffers: list[Any]) -> Pieces:
    return Pieces(dict(zip(names, buffers, strict=True)))


def call_for_pieces(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function; return a dict as pieces."""
    value = function(*args)
    if type(value) is not dict:
        return value
    return Pieces({name: pickle.dumps(piece, 5) for name, piece in value.items()})
