"""What do the same ranks reach with mpi4py alone? It is the limit of everything above.

Runs in all ranks before they take their roles. Ranks that have no part in a measurement sleep: a
blocking call of MPI would keep their cores busy.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from mpicluster.bench.case import sizes_of
from mpicluster.bench.catalogue import case_of
from mpicluster.bench.data_plane import COPIES
from mpicluster.bench.measuring import Plan
from mpicluster.bench.rows import Row
from mpicluster.bench.work import make_array
from mpicluster.ids import CLIENT_RANK, FIRST_WORKER_RANK, SCHEDULER_RANK
from mpicluster.transport.mpi import initialize

#: Into memory that was written before, and into memory that the kernel must give first.
WARM: Final = "raw MPI"
FRESH: Final = "raw MPI, fresh memory"
#: A message about one task.
MESSAGE_BYTES: Final = 64
#: Messages that are under way at a time in `map`.
WINDOW: Final = 64
TAG: Final = 7
QUIET_S: Final = 0.0005

Report = Callable[[str, str, int, str, list[float], str], None]


def measure(plan: Plan, only: Sequence[str]) -> list[Row]:
    """Measure in all ranks of the world; rank 1 gets the rows, the others none."""
    MPI = initialize()  # noqa: N806  (the name of the module)
    if MPI.COMM_WORLD.Get_size() <= FIRST_WORKER_RANK:
        return []
    comm = MPI.COMM_WORLD.Dup()
    free = comm.allreduce(int(psutil.virtual_memory().available), MPI.MIN)
    rows: list[Row] = []

    def report(
        contender: str, case: str, size: int, unit: str, values: list[float], size_unit: str
    ) -> None:
        rows.append(Row(contender, case, size, unit, values, "", size_unit))

    parts: list[tuple[str, Callable[[Any, Plan, int, Report], None]]] = [
        ("latency", _latency), ("map", _map), ("fetch", _fetch), ("scatter", _scatter),
        ("gather", _gather), ("broadcast", _broadcast),
    ]  # fmt: skip
    for name, part in parts:
        if name in only or (not only and case_of(name).sizes.get(plan.level)):
            part(comm, plan, free, report)
            _wait_quietly(comm)
    gathered = comm.gather(rows, CLIENT_RANK)
    comm.Free()
    return [row for found in gathered for row in found] if gathered is not None else []


def _wait_quietly(comm: Any) -> None:
    """Wait for all ranks without using a core."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(QUIET_S)


def _latency(comm: Any, plan: Plan, _free: int, report: Report) -> None:
    """A message goes the way of a task: script, scheduler, worker, script."""
    way = [CLIENT_RANK, SCHEDULER_RANK, FIRST_WORKER_RANK]
    if comm.rank not in way:
        return
    position = way.index(comm.rank)
    before, after = way[position - 1], way[(position + 1) % len(way)]
    message, values = bytearray(MESSAGE_BYTES), []
    (rounds,) = sizes_of(case_of("latency"), plan.level)
    for _ in range(plan.repeats):
        start = time.perf_counter()
        for _ in range(rounds):
            if comm.rank == CLIENT_RANK:
                comm.Send(message, after, TAG)
                _receive(comm, message, before)
            else:
                _receive(comm, message, before)
                comm.Send(message, after, TAG)
        values.append((time.perf_counter() - start) / rounds * 1e6)
    if comm.rank == CLIENT_RANK:
        report(WARM, "latency", rounds, "µs", values, "tasks")


def _map(comm: Any, plan: Plan, _free: int, report: Report) -> None:
    """One message and its answer per task, between the script and one worker."""
    message = bytearray(MESSAGE_BYTES)
    for count in sizes_of(case_of("map"), plan.level):
        values = []
        if comm.rank == FIRST_WORKER_RANK:
            for _ in range(plan.repeats * count):
                _receive(comm, message, CLIENT_RANK)
                comm.Send(message, CLIENT_RANK, TAG)
        if comm.rank != CLIENT_RANK:
            continue
        for _ in range(plan.repeats):
            start = time.perf_counter()
            for number in range(count + WINDOW):
                if number < count:
                    comm.Send(message, FIRST_WORKER_RANK, TAG)
                if number >= WINDOW:
                    _receive(comm, message, FIRST_WORKER_RANK)
            values.append((time.perf_counter() - start) / count * 1e6)
        report(WARM, "map", count, "µs/task", values, "tasks")


def _receive(comm: Any, place: Any, source: int) -> None:
    """Receive; while nothing is there, leave the core to ranks that share it."""
    while not comm.Iprobe(source, TAG):
        os.sched_yield()
    comm.Recv(place, source, TAG)


def _sizes(case: str, plan: Plan, free: int, copies: int) -> list[int]:
    """Return the sizes of a case that fit into memory."""
    return [size for size in sizes_of(case_of(case), plan.level) if size * copies <= free]


def _send_large(
    comm: Any, source: int, target: int, plan: Plan, sizes: list[int]
) -> list[tuple[str, int, list[float]]]:
    """Return (contender, size, ms of each run) on `source`, nothing elsewhere.

    A run ends when the target has answered that it has all bytes.
    """
    if comm.rank not in (source, target):
        return []
    make_array(1)  # what numpy starts when it is imported may use all cores
    with _core_apart(int(comm.rank == target)):
        return _send_each(comm, source, target, plan, sizes)


@contextmanager
def _core_apart(number: int) -> Iterator[None]:
    """Keep this rank on the first or the second core (0 or 1).

    MPI spins in `Send`: on the same core the receiver could not run until the kernel interrupts the
    sender, some milliseconds later.
    """
    allowed = os.sched_getaffinity(0)
    cores = _cores(allowed)
    with suppress(OSError):
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, allowed)


def _cores(processors: Iterable[int]) -> list[int]:
    """Return one processor of each core; its others share the core's units (proc(5), sysfs)."""
    siblings: dict[str, int] = {}
    for processor in sorted(processors):
        path = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        found = str(processor)
        with suppress(OSError):
            found = path.read_text()
        siblings.setdefault(found, processor)
    return list(siblings.values())


def _send_each(
    comm: Any, source: int, target: int, plan: Plan, sizes: list[int]
) -> list[tuple[str, int, list[float]]]:
    """Do what `_send_large` says, on the two ranks."""
    found: list[tuple[str, int, list[float]]] = []
    answer = bytearray(1)
    for size in sizes:
        for contender in (WARM, FRESH):
            values = []
            array = make_array(size)
            for _ in range(plan.repeats + 1):
                if comm.rank == target:
                    while not comm.Iprobe(source, TAG):
                        os.sched_yield()
                    place = array if contender == WARM else _fresh(size)
                    comm.Recv(place, source, TAG)
                    comm.Send(answer, source, TAG)
                    del place
                else:
                    start = time.perf_counter()
                    comm.Send(array, target, TAG)
                    _receive(comm, answer, target)
                    values.append((time.perf_counter() - start) * 1e3)
            if comm.rank == source:
                found.append((contender, size, values[1:]))
    return found


def _fresh(nbytes: int) -> Any:
    """Return memory that nobody has written yet."""
    import numpy as np

    return np.empty(nbytes, np.uint8)


def _fetch(comm: Any, plan: Plan, free: int, report: Report) -> None:
    if comm.size <= FIRST_WORKER_RANK + 1:
        return
    sizes = _sizes("fetch", plan, free, COPIES)
    first = FIRST_WORKER_RANK
    for contender, size, values in _send_large(comm, first, first + 1, plan, sizes):
        report(contender, "fetch", size, "ms", values, "bytes")


def _scatter(comm: Any, plan: Plan, free: int, report: Report) -> None:
    sizes = _sizes("scatter", plan, free, COPIES)
    for contender, size, values in _send_large(comm, CLIENT_RANK, FIRST_WORKER_RANK, plan, sizes):
        report(contender, "scatter", size, "ms", values, "bytes")


def _gather(comm: Any, plan: Plan, free: int, report: Report) -> None:
    sizes = _sizes("gather", plan, free, COPIES)
    for contender, size, values in _send_large(comm, FIRST_WORKER_RANK, CLIENT_RANK, plan, sizes):
        report(contender, "gather", size, "ms", values, "bytes")


def _broadcast(comm: Any, plan: Plan, free: int, report: Report) -> None:
    """MPI's own broadcast from rank 1 to the workers."""
    part = comm.Split(comm.rank > SCHEDULER_RANK, comm.rank)
    if comm.rank > SCHEDULER_RANK:
        for size in _sizes("broadcast", plan, free, COPIES + 2 * part.size):
            array, values = make_array(size), []
            for _ in range(plan.repeats + 1):
                part.Barrier()
                place = array if part.rank == 0 else _fresh(size)
                start = time.perf_counter()
                part.Bcast(place, 0)
                part.Barrier()
                values.append((time.perf_counter() - start) * 1e3)
                del place
            if part.rank == 0:
                report(FRESH, "broadcast", size, "ms", values[1:], "bytes")
    part.Free()
