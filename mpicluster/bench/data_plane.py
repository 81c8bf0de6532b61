"""How fast do values move?

Every figure is the time until a task or the script has the value in its hands, so a small value
costs what a task costs. Values are new in each run; their memory has been used by those of the run
before, as in a script that runs for a while.
"""

import time
from typing import Final

import psutil

from mpicluster.bench import work
from mpicluster.bench.backends import PLACES, VALUES, Backend
from mpicluster.bench.case import Case, LeftOut

#: Copies of a value that may be there at the same time on one host: at the script, at the worker
#: that made it, at the one that takes it, on the wire, and in segments kept for the next.
COPIES: Final = 5
#: Values that tasks take one after the other, if they have no more bytes than this together.
IN_TURN: Final = 8
IN_TURN_BYTES: Final = 1_000_000_000
#: Sizes in bytes.
SIZES: Final = (
    1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 200_000_000, 1_000_000_000,
    2_000_000_000,
)  # fmt: skip


def need_memory(nbytes: int, copies: int = COPIES) -> None:
    """Raise `LeftOut` where the host has not enough free memory for the copies of a value."""
    free = int(psutil.virtual_memory().available)
    if nbytes * copies > free:
        raise LeftOut(f"needs {nbytes * copies / 1e9:.0f} GB of memory, {free / 1e9:.0f} are free")


def _check(found: object) -> None:
    if found != 1:
        raise ValueError(f"The first byte of an array of ones arrived as {found!r}.")


def _two_places(backend: Backend) -> tuple[object, object]:
    found = backend.places()
    if len(found) < 2:
        raise LeftOut("needs two workers")
    return found[0], found[1]


def _consume(backend: Backend, size: int, source: object, target: object) -> float:
    """ms from `submit` of a task on `target` to its result; its input lies on `source`.

    The mean of a few, one after the other: a single one would mostly measure how long processes
    that have been at rest need to get their code back into the caches.
    """
    count = max(1, min(IN_TURN, IN_TURN_BYTES // size))
    need_memory(size, COPIES + 2 * (count - 1))
    values = [backend.submit(work.make_array, size, place=source) for _ in range(count)]
    for value in values:
        backend.wait(value)
    start = time.perf_counter()
    for value in values:
        _check(backend.result(backend.submit(work.first_byte, value, place=target)))
    return (time.perf_counter() - start) * 1e3 / count


def measure_fetch(backend: Backend, size: int) -> float:
    """ms until a task has an input that another worker holds."""
    source, target = _two_places(backend)
    return _consume(backend, size, source, target)


def measure_neighbour(backend: Backend, size: int) -> float:
    """ms until a task has an input that its own worker holds."""
    source = backend.places()[0]
    return _consume(backend, size, source, source)


def measure_scatter(backend: Backend, size: int) -> float:
    """ms until a task has a value that the script has scattered."""
    need_memory(size)
    array = work.make_array(size)
    place = backend.places()[0] if PLACES in backend.abilities else None
    start = time.perf_counter()
    value = backend.scatter(array, place)
    found = backend.result(backend.submit(work.first_byte, value, place=place))
    seconds = time.perf_counter() - start
    _check(found)
    return seconds * 1e3


def measure_gather(backend: Backend, size: int) -> float:
    """ms until the script has a value that a worker holds."""
    need_memory(size)
    place = backend.places()[0] if PLACES in backend.abilities else None
    value = backend.submit(work.make_array, size, place=place)
    backend.wait(value)
    start = time.perf_counter()
    found = backend.result(value)
    seconds = time.perf_counter() - start
    _check(int(found[0]))
    return seconds * 1e3


def measure_broadcast(backend: Backend, size: int) -> float:
    """ms until all workers hold a value of the script."""
    places = backend.places()
    need_memory(size, COPIES + 2 * len(places))
    array = work.make_array(size)
    start = time.perf_counter()
    value = backend.scatter(array, everywhere=True)
    found = [
        backend.result(future)
        for future in [backend.submit(work.first_byte, value, place=place) for place in places]
    ]
    seconds = time.perf_counter() - start
    _check(found[0])
    return seconds * 1e3


_VALUES, _PLACES = frozenset({VALUES}), frozenset({VALUES, PLACES})
_QUICK = (1_000_000, 200_000_000)
CASES: Final = (
    Case("fetch", "from worker to worker", "ms", measure_fetch,
         {"tiny": (1000,), "quick": _QUICK, "all": SIZES}, "bytes", _PLACES,
         first_counts=False),
    Case("neighbour", "input on the task's own worker", "ms", measure_neighbour,
         {"tiny": (1000,), "quick": (200_000_000,), "all": SIZES}, "bytes", _PLACES,
         first_counts=False),
    Case("scatter", "scatter to one worker", "ms", measure_scatter,
         {"tiny": (1000,), "quick": (200_000_000,), "all": SIZES}, "bytes", _VALUES,
         first_counts=False),
    Case("gather", "gather from one worker", "ms", measure_gather,
         {"tiny": (1000,), "quick": (200_000_000,), "all": SIZES}, "bytes", _VALUES,
         first_counts=False),
    Case("broadcast", "broadcast to all workers", "ms", measure_broadcast,
         {"tiny": (1000,), "quick": (200_000_000,), "all": SIZES}, "bytes", _PLACES,
         first_counts=False),
)  # fmt: skip
