"""Which ready task goes to which worker?

A policy: it reads the records, takes tasks from queues, and calls `start_processing`; it changes
nothing else. All ready tasks wait at the scheduler; a worker gets what its slots can run and a
little ahead, more where tasks are short. A freed slot takes first the best task whose inputs are
on that worker, then the best of all. While others have room nothing is sent ahead that they could
take: it waits here for the first free slot. A task moves away from its inputs when waiting for
their worker would take longer than moving them.
"""

from itertools import islice

from mpicluster.scheduler.ahead import next_ahead
from mpicluster.scheduler.lifecycle import leave_queue, start_processing
from mpicluster.scheduler.records import (
    PRIORITY_SHIFT,
    OptionsGroup,
    ReadyQueue,
    SchedulerState,
    TaskRecord,
    WorkerRecord,
)
from mpicluster.scheduler.room import (
    DURATION_S_MIN,
    load,
    note_room,
    room,
    room_for,
    take_idle,
    take_roomy,
)
from mpicluster.scheduler.siblings import has_siblings, siblings_together

#: Holders looked at when the best worker for a task is sought: enough to find a good one.
HOLDERS_MAX = 8
#: Workers with waiting local tasks that are compared before a task is taken away from its inputs.
VICTIMS_MAX = 8
#: What a message to a worker, its encoding and the answer cost the scheduler, in seconds.
MESSAGE_S = 15e-6
#: Tasks with more inputs than this are not held back for others: they would have to fetch them.
INPUTS_MAX = 16
#: A worker with no more than this is as good a place for a result as any other.
LIGHT_BYTES = 1 << 20


def place(state: SchedulerState) -> dict[WorkerRecord, list[TaskRecord]]:
    """Assign ready tasks to workers with room; return what was assigned, in order."""
    assigned: dict[WorkerRecord, list[TaskRecord]] = {}
    if state.fresh:
        queue_fresh_tasks(state)
    for group in state.groups.values():
        if len(group.ready):
            place_restricted(state, group, assigned)
    touched, state.touched = state.touched, {}
    for worker in touched:
        if worker in state.with_local:
            fill_from_local(state, worker, assigned)
        note_room(state, worker)
    if len(state.ready):
        spread_over_idle(state, assigned)
        send_ahead(state, assigned)
    if state.idle and state.with_local:
        move_to_idle(state, assigned)
    if state.last_resorts:
        use_last_resorts(state, assigned)
    if state.config.promise_s and not len(state.ready) and not state.with_local:
        for task, worker in next_ahead({**touched, **dict.fromkeys(assigned)}, state.config):
            give(state, [task], worker, assigned)
            note_room(state, worker)
    return assigned


# --- queues ----------------------------------------------------------------------------------


def queue_fresh_tasks(state: SchedulerState) -> None:
    """Put each task that became ready into the queue that suits it."""
    for task in state.fresh.values():
        if task.group is not None:
            queue = task.group.ready
        elif not task.dependencies:
            queue = state.ready
        else:
            worker = best_holder(task)
            if worker is None:
                queue = state.ready
            else:
                queue = worker.local
                state.with_local[worker] = None
                state.touched[worker] = None
        task.queue = queue
        queue.add(task)
    state.fresh = {}


def best_holder(task: TaskRecord) -> WorkerRecord | None:
    """Return the worker that holds most bytes of a task's inputs, the least busy among equals."""
    dependencies = task.dependencies
    holders = dependencies[0].who_has
    if len(holders) == 1 and all(other.who_has is holders for other in dependencies):
        return None if holders[0].paused else holders[0]
    held: dict[WorkerRecord, int] = {}
    for dependency in dependencies:
        nbytes = dependency.nbytes + 1
        for worker in dependency.who_has[:HOLDERS_MAX]:
            held[worker] = held.get(worker, 0) + nbytes
    best, best_score = None, (0, 0.0)
    for worker, nbytes in held.items():
        if worker.paused:
            continue
        score = (nbytes, -load(worker))
        if best is None or score > best_score:
            best, best_score = worker, score
    return best


def requeue_local(state: SchedulerState, worker: WorkerRecord) -> None:
    """Find other queues for the tasks that wait for a worker which takes none now."""
    for task in worker.local.items():
        leave_queue(state, task)
        state.fresh[task.key] = task
    state.with_local.pop(worker, None)


def queue_anywhere(state: SchedulerState, task: TaskRecord) -> None:
    """Let a READY task go to the next free slot, wherever its inputs are.

    A task that was stolen from the worker that has its inputs would otherwise go back there.
    """
    if task.group is None:
        leave_queue(state, task)
        put_back(state.ready, task)


# --- assignment ------------------------------------------------------------------------------


def give(
    state: SchedulerState,
    tasks: list[TaskRecord],
    worker: WorkerRecord,
    assigned: dict[WorkerRecord, list[TaskRecord]],
) -> None:
    """Assign tasks that have been taken from their queues."""
    start_processing(state, tasks, worker)
    known = assigned.get(worker)
    if known is None:
        assigned[worker] = tasks
    else:
        known += tasks


def fill_from_local(
    state: SchedulerState,
    worker: WorkerRecord,
    assigned: dict[WorkerRecord, list[TaskRecord]],
) -> None:
    """Give a worker the tasks whose inputs it holds, unless others are more urgent."""
    local, ready = worker.local, state.ready
    while (first := local.first()) is not None:
        count = room(state, worker, first)
        if count > 0 and is_worth_moving(state, worker, first):
            count = min(count, worker.free_slots())
        if count <= 0:
            return
        urgent = ready.first_priority()
        # Only the user's priority outweighs locality, not the order of arrival.
        last = None if urgent is None else urgent + (1 << (PRIORITY_SHIFT - 1))
        if last is None or first.priority <= last:
            give(state, local.take_some(count, last), worker, assigned)
        else:
            give(state, ready.take_some(1), worker, assigned)
    state.with_local.pop(worker, None)


def is_worth_moving(state: SchedulerState, worker: WorkerRecord, task: TaskRecord) -> bool:
    """Return whether others have room for a local task and fetch its inputs faster than it runs.

    It waits at the scheduler then, until a slot is free here or elsewhere: where a few tasks follow
    from what one worker holds, it would get all of them and the others none.
    """
    config, function = state.config, task.function
    if function is None:
        return False
    # Twice: what waits at the scheduler has its own way to the worker too.
    spare_s = function.duration_s - 2 * config.fetch_latency_s
    if spare_s <= 0 or len(task.dependencies) > INPUTS_MAX:
        return False
    if len(state.roomy) == (worker in state.roomy):
        return False
    nbytes = sum(dependency.nbytes for dependency in task.dependencies)
    return nbytes < spare_s * config.bandwidth_bytes_per_s


def spread_over_idle(
    state: SchedulerState, assigned: dict[WorkerRecord, list[TaskRecord]]
) -> None:
    """Give every free slot one task, in rounds over the workers.

    A single task goes to the worker that has become idle last: its rank is awake, others may
    sleep, and what it is told to free travels in the same bundle. When it holds more than others
    the longest idle begins, as it does where there are more tasks.
    """
    ready, idle = state.ready, state.idle
    if len(ready) >= 2 * len(idle) and has_siblings(state, ready.first()):
        for siblings, worker in siblings_together(state):
            give(state, siblings, worker, assigned)
            note_room(state, worker)
        return
    alone = len(ready) == 1
    while idle and (tasks := ready.take_some(1)):
        worker = take_idle(state, last=alone and is_light(next(reversed(idle))))
        give(state, tasks, worker, assigned)
        note_room(state, worker)


def is_light(worker: WorkerRecord) -> bool:
    """Return whether the values that a worker holds are not worth a thought."""
    return worker.nbytes <= LIGHT_BYTES


def send_ahead(state: SchedulerState, assigned: dict[WorkerRecord, list[TaskRecord]]) -> None:
    """Share the other tasks among the workers with room, evenly while they are few.

    Beyond one ahead of its slots a worker gets no more than would stay here for each, so that all
    end together (guided self-scheduling, Polychronopoulos and Kuck 1987), but not so few that the
    messages take longer than the tasks.
    """
    ready, roomy = state.ready, state.roomy
    fair = len(ready) // max(len(state.workers), 1)
    while roomy and (first := ready.first()) is not None:
        handful = worth_a_message(len(ready), first)
        share = max(handful, len(ready) // len(roomy))
        worker = take_roomy(state)
        has = len(worker.processing) - worker.ahead
        most = max(fair, worker.slots + 1, handful) - has
        if most <= 0:
            continue  # it is considered again when it has finished something
        count = room_for(worker, first, max(1, min(room(state, worker, first), share, most)))
        give(state, ready.take_some(count), worker, assigned)
        if count < most:
            note_room(state, worker)


def worth_a_message(count: int, task: TaskRecord) -> int:
    """Return how many of `count` tasks like this one a message should have at least.

    With k in each, `count / k` messages leave one after the other, and the last worker may end as
    much later as k tasks take: the sum is least at the square root of count * MESSAGE_S / duration.
    """
    if task.function is None:
        return 1
    duration_s = max(task.function.duration_s, DURATION_S_MIN)
    return max(1, int((count * MESSAGE_S / duration_s) ** 0.5))


def put_back(queue: ReadyQueue, task: TaskRecord) -> None:
    """Return a task that was taken but not given."""
    task.queue = queue
    queue.add(task)


def move_to_idle(state: SchedulerState, assigned: dict[WorkerRecord, list[TaskRecord]]) -> None:
    """Let idle workers take tasks away from their inputs where waiting would take longer."""
    for worker in list(islice(state.idle, VICTIMS_MAX * 4)):
        victim = longest_local_queue(state)
        if victim is None:
            return
        task = victim.local.take()
        if task is None:
            state.with_local.pop(victim, None)
            continue
        if victim is not worker and moving_s(state, task, worker) >= waiting_s(victim, task):
            put_back(victim.local, task)
            return
        give(state, [task], worker, assigned)
        note_room(state, worker)


def longest_local_queue(state: SchedulerState) -> WorkerRecord | None:
    """Return the worker with the longest queue among the first few."""
    longest, length = None, 0
    for worker in list(islice(state.with_local, VICTIMS_MAX)):
        if not len(worker.local):
            del state.with_local[worker]
        elif len(worker.local) > length:
            longest, length = worker, len(worker.local)
    return longest


def moving_s(state: SchedulerState, task: TaskRecord, worker: WorkerRecord) -> float:
    """Return how long it takes to bring a task's inputs to a worker, in seconds."""
    missing, nbytes = 0, 0
    for dependency in task.dependencies:
        if dependency.key not in worker.has_what:
            missing += 1
            nbytes += dependency.nbytes
    if not missing:
        return 0.0
    return state.config.fetch_latency_s + nbytes / state.config.bandwidth_bytes_per_s


def waiting_s(worker: WorkerRecord, task: TaskRecord) -> float:
    """Return how long a task would wait for the worker that holds its inputs, in seconds."""
    function = task.function
    mean_s = function.duration_s if function is not None else 0.0
    return worker.queued_s() + mean_s * (len(worker.local) + 1) / max(worker.slots, 1)


def use_last_resorts(
    state: SchedulerState, assigned: dict[WorkerRecord, list[TaskRecord]]
) -> None:
    """Let paused workers that run nothing take one task each of those that nobody else can.

    Their memory is full and they cannot free any: the tasks themselves may, by letting go of their
    inputs. If not, an error is better than to wait for ever.
    """
    for group in state.groups.values():
        workers = group.workers.values()
        if len(group.ready) and all(one.paused or not has_resources(one, group) for one in workers):
            for worker in [one for one in workers if one in state.last_resorts]:
                if (task := group.ready.take()) is None:
                    break
                if has_resources(worker, group):
                    give(state, [task], worker, assigned)
                    note_room(state, worker)
                else:
                    put_back(group.ready, task)
    if len(state.paused) < len(state.workers):
        return
    while state.last_resorts and (tasks := state.ready.take_some(1)):
        worker = next(iter(state.last_resorts))
        give(state, tasks, worker, assigned)
        note_room(state, worker)


def place_restricted(
    state: SchedulerState,
    group: OptionsGroup,
    assigned: dict[WorkerRecord, list[TaskRecord]],
) -> None:
    """Give tasks with restrictions to workers that meet them and have the resources free."""
    while len(group.ready):
        task = group.ready.take()
        if task is None:
            return
        worker = best_permitted(state, group, task)
        if worker is None:
            put_back(group.ready, task)
            return
        give(state, [task], worker, assigned)
        note_room(state, worker)


def best_permitted(
    state: SchedulerState, group: OptionsGroup, task: TaskRecord
) -> WorkerRecord | None:
    """Return the permitted worker with room that could start the task first.

    One that is preferred may be later by the time after which a task is taken away from it again.
    """
    options = group.options
    best: WorkerRecord | None = None
    best_cost: tuple[float, bool, float] = (0.0, False, 0.0)
    for worker in group.workers.values():
        if room(state, worker) <= 0:
            continue
        if not has_resources(worker, group):
            continue
        preferred = worker.rank in options.workers
        if options.allow_other_workers and not preferred and worker.free_slots() <= 0:
            continue
        start_s = worker.queued_s() + moving_s(state, task, worker)
        if not preferred:
            start_s += state.config.steal_after_s
        cost = (start_s, not preferred, load(worker))
        if best is None or cost < best_cost:
            best, best_cost = worker, cost
    return best


def has_resources(worker: WorkerRecord, group: OptionsGroup) -> bool:
    """Return whether a worker has free what each task of a group needs."""
    free = worker.resources_free
    return all(free.get(name, 0.0) >= amount for name, amount in group.options.resources)
