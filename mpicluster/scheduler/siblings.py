"""Which of the first tasks of a graph go to a worker together?

A policy, as in `placement.py`. Tasks that follow each other most often have the same dependent. One
by one they would all lie apart, and each dependent would have to fetch an input.
"""

from collections.abc import Iterator

from mpicluster.scheduler.records import (
    OPEN_GRAPH,
    PRIORITY_SHIFT,
    SchedulerState,
    TaskRecord,
    WorkerRecord,
)
from mpicluster.scheduler.room import room_for, take_idle


def has_siblings(state: SchedulerState, task: TaskRecord | None) -> bool:
    """Return whether the task behind this one is likely to be needed with it, and will go out as
    the only one ahead of a worker's slots, since tasks are long or nobody knows.
    """
    if task is None or task.function is None or not is_input(task):
        return False
    return task.function.duration_s >= state.config.prefetch_s


def is_input(task: TaskRecord) -> bool:
    """Return whether other tasks need a value. They may not have come yet, but what no client wants
    is there for them.
    """
    wanted_by = task.wanted_by
    return bool(task.dependents) or not wanted_by or wanted_by[0] == OPEN_GRAPH


def siblings_together(state: SchedulerState) -> Iterator[tuple[list[TaskRecord], WorkerRecord]]:
    """Yield tasks and the worker that they should go to: one for every free slot and one ahead for
    every worker, those that follow each other for the same.

    Not while another worker would get none for it, nor where the user has said what is more urgent.
    """
    ready, idle = state.ready, state.idle
    needed = sum(worker.free_slots() for worker in idle)
    while idle and (first := ready.first()) is not None:
        worker = take_idle(state)
        count = worker.free_slots()
        needed -= count
        if len(ready) - count > needed and is_input(first):
            count = room_for(worker, first, count + 1)
        last_as_urgent = ((first.priority >> PRIORITY_SHIFT) + 1 << PRIORITY_SHIFT) - 1
        yield ready.take_some(count, last_as_urgent), worker
        needed += max(0, worker.free_slots())
