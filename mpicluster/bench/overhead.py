"""What does a task cost that does nothing?"""

import time
from typing import Final

from mpicluster.bench import graphs, patterns, work
from mpicluster.bench.backends import FIRST, GRAPHS, Backend
from mpicluster.bench.case import Case, LeftOut
from mpicluster.bench.graphs import Graph

#: Elements of one `map` per slot, as in `python -m mpi4py.bench futures`.
TASKS_PER_SLOT: Final = 50
STENCIL_WIDTH: Final = 4
SMALL_BYTES: Final = 1000


def check(backend: Backend, found: object, expected: object) -> None:
    """Raise unless the work was done: a fast wrong answer is no figure."""
    if backend.exact and found != expected:
        raise ValueError(f"The result is {found!r}, but it must be {expected!r}.")


def measure_map(backend: Backend, size: int) -> float:
    """µs per task, from `map` to the last result in the script's hands."""
    start = time.perf_counter()
    results = backend.gather(backend.map(work.identity, range(size)))
    seconds = time.perf_counter() - start
    check(backend, (len(results), results[-1]), (size, size - 1))
    return seconds / size * 1e6


def measure_first(backend: Backend, size: int) -> float:
    """ms from `map` until its first task has run.

    The tasks tell the time at which they ran: `map` has not returned yet then. The clocks of the
    hosts must agree.
    """
    if not backend.exact:
        raise LeftOut("the workers do not compute")
    start = time.time()
    results = backend.gather(backend.map(work.now, range(size)))
    return (float(min(results)) - start) * 1e3


def measure_first_seen(backend: Backend, size: int) -> float:
    """ms from `map` until the script sees that a task is done, after `map` has returned."""
    start = time.perf_counter()
    futures = backend.map(work.identity, range(size))
    backend.wait_for_first(futures)
    seconds = time.perf_counter() - start
    backend.gather(futures)
    return seconds * 1e3


def measure_latency(backend: Backend, size: int) -> float:
    """µs from `submit` to its result, one task at a time."""
    start = time.perf_counter()
    for number in range(size):
        check(backend, backend.result(backend.submit(work.identity, number)), number)
    return (time.perf_counter() - start) / size * 1e6


def measure_small_results(backend: Backend, size: int) -> float:
    """µs per result of 1 kB."""
    start = time.perf_counter()
    results = backend.gather(backend.map(work.make_bytes, [SMALL_BYTES] * size))
    seconds = time.perf_counter() - start
    check(backend, sum(map(len, results)) if backend.exact else 0, SMALL_BYTES * size)
    return seconds / size * 1e6


def measure_payload(backend: Backend, size: int) -> float:
    """µs per task that takes and returns an array of `size` bytes."""
    if not backend.exact:
        raise LeftOut("the workers do not compute")
    tasks = TASKS_PER_SLOT * backend.slots
    arrays = [work.make_array(size) for _ in range(tasks)]
    start = time.perf_counter()
    results = backend.gather(backend.map(work.identity, arrays))
    seconds = time.perf_counter() - start
    check(backend, sum(len(result) for result in results), size * tasks)
    return seconds / tasks * 1e6


def _seconds_of(backend: Backend, graph: Graph) -> float:
    start = time.perf_counter()
    found = backend.get(graph)
    seconds = time.perf_counter() - start
    check(backend, found, graph.expected)
    return seconds


def measure_merge(backend: Backend, size: int) -> float:
    """µs per task."""
    graph = graphs.merge(size)
    return _seconds_of(backend, graph) / len(graph.tasks) * 1e6


def measure_tree(backend: Backend, size: int) -> float:
    """µs per task."""
    graph = graphs.tree(size)
    return _seconds_of(backend, graph) / len(graph.tasks) * 1e6


def measure_stencil(backend: Backend, size: int) -> float:
    """µs per step of a stencil: each step waits for the one before."""
    graph = patterns.make_graph(patterns.PATTERNS["stencil_1d"], STENCIL_WIDTH, size, 0.0)
    return _seconds_of(backend, graph) / size * 1e6


_GRAPHS = frozenset({GRAPHS})
CASES: Final = (
    Case("map", "empty map, submit to all results gathered", "µs/task", measure_map,
         {"tiny": (50,), "quick": (1000, 20_000), "all": (1000, 10_000, 20_000, 100_000)}),
    Case("latency", "submit to result, one at a time", "µs", measure_latency,
         {"tiny": (5,), "quick": (1000,), "all": (1000,)}),
    Case("stencil", "graph: stencil 4 wide, per step", "µs/step", measure_stencil,
         {"tiny": (5,), "quick": (300,), "all": (300,)}, "steps", _GRAPHS),
)  # fmt: skip
#: Long ones where a task costs a millisecond, so that they come after what others are asked for.
GRAPH_CASES: Final = (
    Case("merge", "graph: many tasks, one that takes all", "µs/task", measure_merge,
         {"tiny": (20,), "quick": (10_000,), "all": (10_000, 100_000)}, needs=_GRAPHS),
    Case("tree", "graph: pairwise sum", "µs/task", measure_tree,
         {"tiny": (16,), "quick": (1 << 15,), "all": (1 << 15,)}, "numbers", _GRAPHS),
)  # fmt: skip
MANY_CASES: Final = (
    Case("first", "map: until the first task has run", "ms", measure_first,
         {"tiny": (50,), "quick": (100_000,), "all": (100_000,)}),
    Case("first-seen", "map: until the script sees the first result", "ms", measure_first_seen,
         {"all": (100_000,)}, needs=frozenset({FIRST})),
    Case("small-results", "many results of 1 kB", "µs/task", measure_small_results,
         {"tiny": (20,), "all": (10_000, 100_000)}),
    Case("payload", "map of arrays there and back, 50 per slot", "µs/task", measure_payload,
         {"tiny": (1000,), "all": (1, 1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20)}, "bytes"),
)  # fmt: skip
