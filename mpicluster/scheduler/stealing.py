"""Which waiting tasks are taken back from a worker that has fallen behind?

A policy without side effects: it names tasks, the core asks the worker for them. A task is given
to another worker only after the first one has answered that it has not started it, so no task
runs twice.
"""

from itertools import islice

from mpicluster.scheduler.records import SchedulerState, TaskRecord, WorkerRecord

#: At most this many tasks are asked back from one worker at a time.
STEAL_MAX = 1000


def choose_steals(state: SchedulerState) -> dict[WorkerRecord, list[TaskRecord]]:
    """Return the tasks that others could start sooner than the workers that have them."""
    chosen = stuck_tasks(state) if state.without_slots else {}
    if len(state.ready) or not state.idle:
        return chosen
    # The first line says nothing that `waits_too_long` does not say, but of 10 000 workers that are
    # not behind it tells that in 0.5 ms instead of 3.8.
    limit_s, since = state.config.steal_after_s, state.now - state.config.steal_after_s
    behind = [
        worker for worker in state.working
        if (worker.last_progress < since or worker.duration_sum_s > limit_s * worker.slots)
        and worker.slots
        and waiting_tasks(worker) > 0
        and waits_too_long(state, worker)
    ]  # fmt: skip
    if not behind:
        return chosen
    free_slots = sum(worker.free_slots() for worker in state.idle)
    behind.sort(key=lambda worker: (-worker.queued_s(), worker.rank))
    for worker in behind:
        if free_slots <= 0:
            break
        tasks = steal_from(state, worker, free_slots)
        if tasks:
            chosen[worker] = tasks
            free_slots -= len(tasks)
    return chosen


def stuck_tasks(state: SchedulerState) -> dict[WorkerRecord, list[TaskRecord]]:
    """Return what has been given to workers whose slots are all abandoned, as it turned out then:
    it is to wait with all others for the first free slot.
    """
    if len(state.without_slots) == len(state.workers):
        return {}
    stuck = {
        worker: [
            task for task in islice(worker.processing.values(), STEAL_MAX)
            if not task.stealing and not task.ahead
            and (task.group is None or len(task.group.workers) > 1)
        ]
        for worker in state.without_slots
    }  # fmt: skip
    return {worker: tasks for worker, tasks in stuck.items() if tasks}


def waiting_tasks(worker: WorkerRecord) -> int:
    """Return how many tasks have no slot. Those that wait for inputs being made need none yet: a
    worker that counted as behind for them lost the task that it was fetching inputs for, again and
    again.
    """
    return len(worker.processing) - worker.ahead - worker.stealing - worker.slots


def waits_too_long(state: SchedulerState, worker: WorkerRecord) -> bool:
    """Return whether the last task of a worker's queue would start sooner elsewhere.

    A worker that has finished nothing for a while is behind whatever was expected of it.
    """
    limit_s = state.config.steal_after_s
    return worker.queued_s() > limit_s or state.now - worker.last_progress > limit_s


def steal_from(
    state: SchedulerState, worker: WorkerRecord, free_slots: int
) -> list[TaskRecord]:
    """Return the last tasks of a worker's queue: half of what waits, as many as slots are free.

    Short tasks go in handfuls: one per free slot would be started at once and asked for again.
    """
    waiting = waiting_tasks(worker)
    mean_s = worker.duration_sum_s / max(len(worker.processing), 1)
    handful = max(1, int(state.config.steal_after_s / max(mean_s, 1e-6)))
    count = min(max(waiting // 2, 1), free_slots * handful, STEAL_MAX)
    tasks: list[TaskRecord] = []
    for task in reversed(worker.processing.values()):
        if len(tasks) == count:
            break
        if task.stealing or (task.group is not None and len(task.group.workers) < 2):
            continue
        if any(dependency.processing_on is not None for dependency in task.dependencies):
            continue  # it waits for inputs that are being made, and would elsewhere
        tasks.append(task)
    return tasks
