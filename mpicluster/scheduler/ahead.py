"""Which tasks go to a worker before their inputs are made?

A policy, as in `placement.py`. Where few tasks follow each other and all are short, the way of each
result to the scheduler and of the next task back takes longer than the tasks. There a task goes out
as soon as all of its inputs are made or given to workers, to that of these which could begin it
first. Workers send each other the results that they have promised, and the scheduler only hears of
it. Whatever becomes of an input, the worker reports the task as one whose inputs are missing.
"""

import math
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from mpicluster.config import Config
from mpicluster.scheduler.records import TaskRecord, TaskState, WorkerRecord

#: A worker has at most so many tasks per slot before anything goes to it in this way.
TASKS_PER_SLOT_MAX: Final = 8
#: Tasks of a worker (the last ones), dependents of a task, and inputs that are looked at: what has
#: more does not hang on the way of a single result.
LOOKED_AT_MAX: Final = 16


def next_ahead(
    begin: Iterable[WorkerRecord], config: Config
) -> Iterable[tuple[TaskRecord, WorkerRecord]]:
    """Yield tasks and the workers that they should go to.

    Looked at is what follows the last tasks of the workers to `begin` with, unless they have
    enough, and what follows the tasks that have been yielded. Inputs that are expected to take
    longer than `promise_s` are waited for: then the way through the scheduler hardly counts, and it
    can still choose the place when they are made.
    """
    promise_s = config.promise_s
    todo: deque[TaskRecord] = deque()
    for worker in begin:
        if worker.processing and not is_full(worker):
            todo.extend(islice(reversed(worker.processing.values()), LOOKED_AT_MAX))
    while todo:
        task = todo.popleft()
        if not task.dependents or task.expected_s > promise_s:
            continue
        for dependent in list(islice(task.dependents.values(), LOOKED_AT_MAX)):
            if (
                dependent.state is not TaskState.WAITING or dependent.group is not None
                or len(dependent.dependencies) > LOOKED_AT_MAX
            ):
                continue
            place = place_of_inputs(dependent, config)
            if place is not None and not place.paused and not is_full(place):
                yield dependent, place
                todo.append(dependent)


def is_full(worker: WorkerRecord) -> bool:
    """Return whether a worker has enough tasks for now."""
    return len(worker.processing) >= TASKS_PER_SLOT_MAX * worker.slots


def place_of_inputs(task: TaskRecord, config: Config) -> WorkerRecord | None:
    """Return that of the workers that have or make a task's inputs which could begin it first;
    None: one of them is not under way.
    """
    promise_s = config.promise_s
    held: dict[WorkerRecord, list[int]] = {}
    total = 0
    for dependency in task.dependencies:
        worker = dependency.processing_on
        if worker is not None:
            if dependency.expected_s > promise_s:
                return None
            function = dependency.function
            nbytes = function.nbytes_mean if function is not None else 0
        elif dependency.who_has:
            worker, nbytes = dependency.who_has[0], dependency.nbytes
        else:
            return None
        total += nbytes
        found = held.setdefault(worker, [0, 0])
        found[0] += 1
        found[1] += nbytes
    best, best_s = None, math.inf
    for worker, (count, nbytes) in held.items():
        start_s = worker.duration_sum_s / worker.slots if worker.slots else math.inf
        if count < len(task.dependencies):
            missing = total - nbytes
            start_s += config.fetch_latency_s + missing / config.bandwidth_bytes_per_s
        if start_s < best_s:
            best, best_s = worker, start_s
    return best
