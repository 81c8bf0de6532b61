"""How much more should a worker have to do?

As much as its slots can run and a little ahead, more where tasks are short. The workers that have a
free slot (`idle`) and those that should have more (`roomy`) are kept in order of their coming.
"""

from mpicluster.scheduler.records import SchedulerState, TaskRecord, WorkerRecord

#: An average task shorter than this is taken as this long: messages cost as much.
DURATION_S_MIN = 2e-6
#: A worker gets more when half of what it should have ahead is missing, or this many tasks: one
#: message for several long ones instead of one for each. Many short ones end together anyway.
REFILL_TASKS = 8
#: Share of a worker's memory that results made ahead may fill.
AHEAD_MEMORY_SHARE = 0.05


def room(state: SchedulerState, worker: WorkerRecord, next_task: TaskRecord | None = None) -> int:
    """Return how many more tasks the worker should have, at least one ahead of its slots.

    What those that it has are expected to take decides, and `next_task` as their fellow.
    """
    if worker.paused or not worker.slots:
        return 0
    config, slots, total = state.config, worker.slots, len(worker.processing)
    count = total - worker.ahead
    if next_task is not None and next_task.function is not None:
        mean_s = (worker.duration_sum_s + next_task.function.duration_s) / (total + 1)
    elif count <= slots:
        return slots - count + 1
    else:
        mean_s = worker.duration_sum_s / total
    mean_s = max(mean_s, DURATION_S_MIN)
    ahead = min(int(config.prefetch_s * slots / mean_s), config.prefetch_tasks_max * slots)
    ahead = max(ahead, 1)
    missing = slots + ahead - count
    return missing if 2 * missing >= min(ahead, 2 * REFILL_TASKS) else 0


def room_for(worker: WorkerRecord, task: TaskRecord, count: int) -> int:
    """Return `count`, or less where results as large as this task's would fill the memory."""
    function = task.function
    if function is None or not function.nbytes_mean or not worker.memory_limit:
        return count
    fitting = int(worker.memory_limit * AHEAD_MEMORY_SHARE / function.nbytes_mean)
    return min(count, max(1, worker.free_slots(), fitting))


def load(worker: WorkerRecord) -> float:
    """Return how many tasks wait for or run on each of a worker's slots."""
    return (len(worker.processing) + len(worker.local)) / max(worker.slots, 1)


def note_room(state: SchedulerState, worker: WorkerRecord) -> None:
    """Keep the worker's place among the idle, the roomy ones and the last resorts true."""
    if worker.last_resort and worker.runs_nothing():
        state.last_resorts[worker] = None
    elif state.last_resorts:
        state.last_resorts.pop(worker, None)
    count, slots, takes = len(worker.processing) - worker.ahead, worker.slots, not worker.paused
    idle = takes and count - worker.stealing < slots
    if idle != worker.is_idle:
        worker.is_idle = idle
        if idle:
            state.idle[worker] = None
        else:
            del state.idle[worker]
    roomy = takes and slots > 0 and (count <= slots or room(state, worker) > 0)
    if roomy != worker.is_roomy:
        worker.is_roomy = roomy
        if roomy:
            state.roomy[worker] = None
        else:
            del state.roomy[worker]


def take_idle(state: SchedulerState, last: bool = False) -> WorkerRecord:
    """Return the worker that has been idle longest, or that which became idle last; `note_room` is
    to follow.
    """
    worker, _ = state.idle.popitem(last=last)
    worker.is_idle = False
    return worker


def take_roomy(state: SchedulerState) -> WorkerRecord:
    """Return the worker that has been roomy longest, as `take_idle` does."""
    worker, _ = state.roomy.popitem(last=False)
    worker.is_roomy = False
    return worker
