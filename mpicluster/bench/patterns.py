"""Which patterns of Task Bench are run, and how small may their tasks be?

Patterns and METG(50 %) are those of the paper (arXiv 1908.05790): a graph has `width` columns and
some levels; a task depends on columns of the level above. METG(50 %) is the time per task and core
at which half of it is spent on the task's own work.
"""

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

from mpicluster.bench import work
from mpicluster.bench.backends import GRAPHS, Backend
from mpicluster.bench.case import Case, LeftOut
from mpicluster.bench.graphs import Graph

#: (width, level, column) -> columns of the level above.
Pattern = Callable[[int, int, int], Sequence[int]]
#: Levels of a graph: many enough for the way of one level to the next to count.
LEVELS: Final = 100
#: Neighbours in `nearest` and `spread`, as in the paper.
RADIX: Final = 5
#: `spread` and `random_nearest` change their neighbours from level to level, so many times.
PERIOD: Final = 3
#: Share of the neighbours that `random_nearest` keeps.
KEPT: Final = 0.25
#: Work per task is halved or doubled up to this often until the efficiency crosses one half.
TRIES_MAX: Final = 10


def _clip(width: int, first: int, last: int) -> range:
    return range(max(0, first), min(width, last + 1))


def trivial(_width: int, _level: int, _column: int) -> Sequence[int]:
    """No dependencies."""
    return ()


def no_comm(_width: int, _level: int, column: int) -> Sequence[int]:
    """The same column."""
    return (column,)


def stencil_1d(width: int, _level: int, column: int) -> Sequence[int]:
    """The same column and its two neighbours."""
    return _clip(width, column - 1, column + 1)


def stencil_1d_periodic(width: int, _level: int, column: int) -> Sequence[int]:
    """A stencil whose ends are neighbours."""
    return sorted({(column + offset) % width for offset in (-1, 0, 1)})


def dom(width: int, _level: int, column: int) -> Sequence[int]:
    """A sweep: the same column and the one before it."""
    return _clip(width, column - 1, column)


def tree(_width: int, _level: int, column: int) -> Sequence[int]:
    """A tree that grows from one column."""
    return (column // 2,)


def fft(width: int, level: int, column: int) -> Sequence[int]:
    """The columns at a distance that doubles with each level."""
    distance = 1 << ((level - 1) % max(1, (width - 1).bit_length()))
    return [c for c in (column - distance, column, column + distance) if 0 <= c < width]


def all_to_all(width: int, _level: int, _column: int) -> Sequence[int]:
    """All columns."""
    return range(width)


def nearest(width: int, _level: int, column: int) -> Sequence[int]:
    """The nearest columns."""
    return _clip(width, column - RADIX // 2, column + (RADIX - 1) // 2)


def spread(width: int, level: int, column: int) -> Sequence[int]:
    """Columns that are far apart."""
    moved = level % PERIOD
    offsets = (k * width // RADIX + (moved if k else 0) for k in range(RADIX))
    return sorted({(column + offset) % width for offset in offsets})


def random_nearest(width: int, level: int, column: int) -> Sequence[int]:
    """Some of the nearest columns, and the same."""
    drawn = random.Random(width * 1_000_003 + (level % PERIOD) * 1009 + column)
    near = [(other, drawn.random()) for other in nearest(width, level, column)]
    return [other for other, chance in near if other == column or chance < KEPT]


PATTERNS: Final[dict[str, Pattern]] = {
    found.__name__: found
    for found in (
        trivial, no_comm, stencil_1d, stencil_1d_periodic, dom, tree, fft, all_to_all, nearest,
        spread, random_nearest,
    )
}  # fmt: skip


def make_graph(pattern: Pattern, width: int, levels: int, seconds: float) -> Graph:
    """Return the graph of a pattern whose tasks compute for `seconds` each."""
    graph = Graph()
    above: dict[int, int] = {}
    for level in range(levels):
        here: dict[int, int] = {}
        for column in _columns(pattern, width, levels, level):
            wanted = pattern(width, level, column) if level else ()
            sources = tuple(source for source in wanted if source in above)
            places = tuple(above[source] for source in sources)
            here[column] = graph.add(work.step, (seconds, level, column, list(sources)), places)
        above = here
    graph.expected = len(above)
    if pattern is trivial:  # nothing but this holds its levels together
        above = dict(enumerate(range(len(graph.tasks))))
        graph.expected = len(graph.tasks)
    graph.add(work.count, (), tuple(above.values()))
    return graph


def _columns(pattern: Pattern, width: int, levels: int, level: int) -> range:
    """Return the columns that a level has: a sweep and a tree begin with one."""
    if pattern is dom:
        first = max(0, level + width - levels)
        return range(first, first + min(width, level + 1, levels - level))
    if pattern is tree:
        return range(min(width, 1 << min(level, 30)))
    return range(width)


def interpolate_metg(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the granularity at which the efficiency crosses one half, None if it does not.

    `points` are (granularity, efficiency). Between the last point above and the first below the
    line is straight, as in the paper.

    >>> interpolate_metg([(8.0, 0.75), (4.0, 0.5), (2.0, 0.25)])
    4.0
    """
    ordered = sorted(points, reverse=True)
    for (coarse, above), (fine, below) in pairwise(ordered):
        if above >= 0.5 > below:
            return fine + (0.5 - below) / (above - below) * (coarse - fine)
    return None


def measure_metg(backend: Backend, width: int, *, pattern: Pattern) -> float:
    """METG(50 %) in µs."""
    def run(seconds: float) -> tuple[float, float]:
        graph = make_graph(pattern, width, LEVELS, seconds)
        tasks = len(graph.tasks) - 1
        start = time.perf_counter()
        found = backend.get(graph)
        granularity = (time.perf_counter() - start) * backend.slots / tasks
        if found != graph.expected:
            raise ValueError(f"{found} tasks have reached the end and not {graph.expected}.")
        return granularity, seconds / granularity

    if not backend.exact:
        raise LeftOut("workers that do not compute have no METG")
    # As much work as an empty task costs is near the crossing; from there to the other side.
    points = [run(0.0)]
    work_s = points[0][0]
    for _ in range(TRIES_MAX):
        points.append(run(work_s))
        if points[-1][1] < 0.5 <= max(efficiency for _, efficiency in points):
            break
        if points[-1][1] >= 0.5 and len(points) > 2 and points[-2][1] < 0.5:
            break
        work_s *= 0.5 if points[-1][1] >= 0.5 else 2.0
    found = interpolate_metg(points)
    if found is None:
        raise LeftOut("the efficiency does not reach one half")
    return found * 1e6


def _metg_case(name: str, pattern: Pattern) -> Case:
    quick = name == "stencil_1d"
    return Case(
        f"metg-{name.replace('_', '-')}", f"METG(50 %) of {name}", "µs",
        partial(measure_metg, pattern=pattern),
        {"quick": (4,) if quick else (), "all": (4,)},
        "columns", frozenset({GRAPHS}), 5,
    )  # fmt: skip


CASES: Final = tuple(_metg_case(name, pattern) for name, pattern in PATTERNS.items())
