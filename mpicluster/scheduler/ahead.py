"""Which tasks go to a worker before their inputs are made?

A policy, as in `placement.py`. Where few tasks follow each other and all are short, the way of each
result to the scheduler and of the next task back takes longer than the tasks. There a task goes out
as soon as all of its inputs are made or given to workers, to that of these, or of the idle ones,
which could begin it first. Workers send each other the results that they have promised, and the
scheduler only hears of it. Whatever becomes of an input, the worker reports the task as one whose
inputs are missing.
"""

import math
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from mpicluster.config import Config
from mpicluster.scheduler.records import SchedulerState, TaskRecord, TaskState, WorkerRecord

#: A worker has at most so many tasks per slot before anything goes to it in this way.
TASKS_PER_SLOT_MAX: Final = 8
#: Tasks of a worker (the last ones), dependents of a task, and inputs that are looked at: what has
#: more does not hang on the way of a single result.
LOOKED_AT_MAX: Final = 16
#: Idle workers that are looked at beside those which have or make the inputs.
IDLE_MAX: Final = 4


def next_ahead(
    state: SchedulerState, begin: Iterable[WorkerRecord]
) -> Iterable[tuple[TaskRecord, WorkerRecord]]:
    """Yield tasks and the workers that they should go to.

    Looked at is what follows the last tasks of the workers to `begin` with, unless they have
    enough, and what follows the tasks that have been yielded. Inputs that are expected to take
    longer than `promise_s` are waited for: then the way through the scheduler hardly counts, and it
    can still choose the place when they are made.
    """
    promise_s = state.config.promise_s
    todo: deque[TaskRecord] = deque()
    for worker in begin:
        if not is_full(worker):
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
            place, start_s = first_place(state, dependent)
            if place is not None and not place.paused and not is_full(place):
                function = dependent.function
                expected_s = function.duration_s if function is not None else 0.0
                place.ahead_until = state.now + start_s + expected_s / place.slots
                if place in state.idle:
                    state.idle.move_to_end(place)  # so that others are looked at next
                yield dependent, place
                todo.append(dependent)


def is_full(worker: WorkerRecord) -> bool:
    """Return whether a worker has enough tasks for now."""
    return len(worker.processing) >= TASKS_PER_SLOT_MAX * worker.slots


def end_s(state: SchedulerState, worker: WorkerRecord) -> float:
    """Return in how many seconds a worker is expected to have done what it has been given.

    What waits there for inputs from others lets its slots rest meanwhile.
    """
    queue_s = worker.duration_sum_s / worker.slots
    return max(queue_s, worker.ahead_until - state.now) if worker.ahead else queue_s


def made_s(state: SchedulerState, task: TaskRecord, worker: WorkerRecord) -> float:
    """Return in how many seconds a task that a worker has been given is expected to be done."""
    later_s = 0.0
    for other in islice(reversed(worker.processing.values()), LOOKED_AT_MAX):
        if other is task:
            break
        later_s += other.expected_s
    return max(0.0, end_s(state, worker) - later_s / worker.slots)


#: Of each worker that has or makes inputs of a task: bytes, and in how many seconds all are there.
Inputs = dict[WorkerRecord, tuple[float, float]]


def inputs_under_way(state: SchedulerState, task: TaskRecord) -> Inputs | None:
    """Return where a task's inputs are or will be; None: not all are under way, or not soon."""
    promise_s = state.config.promise_s
    inputs: Inputs = {}
    for dependency in task.dependencies:
        worker = dependency.processing_on
        if worker is not None:
            if dependency.expected_s > promise_s:
                return None
            function = dependency.function
            nbytes: float = function.nbytes_mean if function is not None else 0
            ready_s = made_s(state, dependency, worker)
        elif dependency.who_has:
            worker, nbytes, ready_s = dependency.who_has[0], dependency.nbytes, 0.0
        else:
            return None
        bytes_before, ready_before_s = inputs.get(worker, (0.0, 0.0))
        inputs[worker] = bytes_before + nbytes, max(ready_s, ready_before_s)
    return inputs


def first_place(
    state: SchedulerState, task: TaskRecord
) -> tuple[WorkerRecord | None, float]:
    """Return the worker that could begin a task first, and in how many seconds; None: it cannot be
    told yet.
    """
    inputs = inputs_under_way(state, task)
    if inputs is None:
        return None, 0.0
    best: WorkerRecord | None = None
    best_s = math.inf
    total = sum(nbytes for nbytes, _ in inputs.values())
    for worker, (nbytes, _) in inputs.items():
        start_s = end_s(state, worker)
        if len(inputs) > 1:
            ready_s = max(found[1] for other, found in inputs.items() if other is not worker)
            start_s = max(start_s, ready_s + fetch_s(state.config, total - nbytes))
        if start_s < best_s:
            best, best_s = worker, start_s
    # Twice: what is made elsewhere mostly has its way back.
    elsewhere_s = max(found[1] for found in inputs.values()) + 2 * fetch_s(state.config, total)
    if elsewhere_s < best_s:
        for worker in islice(state.idle, IDLE_MAX):
            start_s = max(end_s(state, worker), elsewhere_s)
            if start_s < best_s and worker not in inputs and not is_full(worker):
                best, best_s = worker, start_s
    return best, best_s


def fetch_s(config: Config, nbytes: float) -> float:
    """Return how long it takes to fetch so many bytes, in seconds."""
    return config.fetch_latency_s + nbytes / config.bandwidth_bytes_per_s
