"""How does a cluster behave: at rest, with tasks that compute, with many results?

Processes are looked at on the host of the script only.
"""

import os
import time
from typing import Final

import psutil

from mpicluster.bench import work
from mpicluster.bench.backends import SCHEDULER, Backend
from mpicluster.bench.case import Case, LeftOut
from mpicluster.cluster.roles import read_promise

#: Work of each task in `busy`.
TASK_S: Final = 0.010
#: Tasks per slot in `busy`.
BUSY_TASKS: Final = 100


def ranks_of_this_host() -> dict[int, psutil.Process]:
    """Return {rank: process} of this job here; outside of a job this process alone, as rank 0."""
    promise = read_promise(os.environ)
    if promise is None or promise.size == 1:
        return {0: psutil.Process()}
    parent = psutil.Process().parent()
    found = {}
    for process in parent.children() if parent is not None else []:
        try:
            other = read_promise(process.environ())
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        if other is not None:
            found[other.rank] = process
    return found


def _processor_s(process: psutil.Process) -> float:
    """Return the processor time of a process and of all that it has started."""
    seconds = 0.0
    for member in [process, *process.children(recursive=True)]:
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
    return seconds


def measure_idle(backend: Backend, size: int) -> float:
    """% of a core that the busiest rank uses, with its slots, after `size` seconds of rest."""
    backend.settle()
    time.sleep(size)
    ranks = list(ranks_of_this_host().values())
    start = time.perf_counter()
    before = [_processor_s(process) for process in ranks]
    time.sleep(max(size, 1))
    after = [_processor_s(process) for process in ranks]
    seconds = time.perf_counter() - start
    return max(b - a for a, b in zip(before, after, strict=True)) / seconds * 100


def measure_busy(backend: Backend, size: int) -> float:
    """% of the slots' time that is the tasks' own work; `size` is the tasks per slot."""
    if not backend.exact:
        raise LeftOut("the workers do not compute")
    tasks = size * backend.slots
    start = time.perf_counter()
    backend.gather(backend.map(work.burn, [TASK_S] * tasks))
    seconds = time.perf_counter() - start
    return tasks * TASK_S / (seconds * backend.slots) * 100


def measure_scheduler_memory(backend: Backend, size: int) -> float:
    """MB by which rank 0 grows with `size` finished tasks whose futures the script holds."""
    rank_0 = ranks_of_this_host().get(0)
    if rank_0 is None or rank_0.pid == os.getpid():
        raise LeftOut("the scheduler has no process of its own on this host")
    before = rank_0.memory_info().rss
    futures = backend.map(work.identity, range(size))
    backend.gather(futures)
    return (rank_0.memory_info().rss - before) / 1e6


CASES: Final = (
    Case("idle", "processor use at rest, busiest rank", "%", measure_idle,
         {"tiny": (0,), "quick": (5,), "all": (5,)}, "seconds", runs_max=1),
    Case("busy", "share of work in pure Python tasks of 10 ms", "%", measure_busy,
         {"tiny": (2,), "quick": (BUSY_TASKS,), "all": (BUSY_TASKS,)}, "tasks per slot"),
)  # fmt: skip
#: Comes before all others: what they have freed would be used again, and nothing would grow.
MEMORY_CASES: Final = (
    Case("scheduler-memory", "growth of the scheduler", "MB", measure_scheduler_memory,
         {"tiny": (50,), "all": (100_000,)}, "tasks", frozenset({SCHEDULER}), 1),
)  # fmt: skip
