"""How does a task change its state, and what follows from each change?

All changes go through `move`, which checks the table. The other functions here are named for
what happens to a task and keep the records consistent: who_has with has_what, waiting_on with
dependents, processing with processing_on. They note what workers and clients must be told in the
state's outboxes. Where a task runs is not decided here.
"""

from collections.abc import Iterable
from typing import Final

from mpicluster.errors import InvariantError
from mpicluster.ids import ClientId, NBytes
from mpicluster.messages import ErrorColumns
from mpicluster.scheduler.reasons import lost_value_error
from mpicluster.scheduler.records import (
    FIRE_AND_FORGET,
    SchedulerState,
    TaskRecord,
    TaskState,
    WorkerRecord,
)

RELEASED, WAITING, READY = TaskState.RELEASED, TaskState.WAITING, TaskState.READY
PROCESSING, MEMORY = TaskState.PROCESSING, TaskState.MEMORY
ERRED, FORGOTTEN = TaskState.ERRED, TaskState.FORGOTTEN

#: The allowed changes; docs/states.md is drawn from this table.
CHANGES: Final[dict[TaskState, tuple[TaskState, ...]]] = {
    RELEASED: (WAITING, READY, ERRED, FORGOTTEN),
    WAITING: (READY, PROCESSING, MEMORY, ERRED, RELEASED, FORGOTTEN),
    READY: (WAITING, PROCESSING, MEMORY, ERRED, RELEASED, FORGOTTEN),
    PROCESSING: (WAITING, READY, MEMORY, ERRED, RELEASED, FORGOTTEN),
    MEMORY: (RELEASED, FORGOTTEN),
    ERRED: (FORGOTTEN,),
    FORGOTTEN: (),
}
_ALLOWED: Final = tuple(tuple(new in CHANGES[old] for new in TaskState) for old in TaskState)


def move(state: SchedulerState, task: TaskRecord, new: TaskState, cause: str) -> None:
    """Give a task a new state: the only place that does."""
    old = task.state
    if not _ALLOWED[old][new]:
        raise InvariantError(f"{task!r} cannot become {new.name.lower()} because of {cause!r}.")
    task.state = new
    state.history.append((state.now, cause, task.key, old, new))


# --- becoming ready --------------------------------------------------------------------------


def start_waiting(state: SchedulerState, task: TaskRecord, cause: str) -> None:
    """A task whose value is nowhere: wait for its inputs, or be ready.

    Released inputs are computed again, and theirs, without recursion.
    """
    todo = wait_for_inputs(state, task, cause)
    while todo:
        task = todo.pop()
        # It may have been reached twice, or be of no use since what needed it has erred.
        if task.state is RELEASED and is_needed(task):
            todo += wait_for_inputs(state, task, cause)


def wait_for_inputs(state: SchedulerState, task: TaskRecord, cause: str) -> list[TaskRecord]:
    """Let one task wait, be ready or err; return the inputs that are to be computed again."""
    missing = 0
    released: list[TaskRecord] = []
    error: ErrorColumns | None = None
    for dependency in task.dependencies:
        if dependency.dependents is None:
            dependency.dependents = {}
        dependency.dependents[task.key] = task
        if dependency.state is not MEMORY:
            missing += 1
            if dependency.state is ERRED:
                error = dependency.error
            elif dependency.processing_on is not None:
                state.touched[dependency.processing_on] = None  # the task may go there already
            elif dependency.state is RELEASED:
                released.append(dependency)
                if dependency.function is None:
                    error = lost_value_error(dependency)
    task.waiting_on = missing
    if not missing and task.function is not None:
        become_ready(state, task, cause)
        return released
    move(state, task, WAITING, cause)
    if error is not None:
        become_erred(state, task, error, cause)
        return []
    return released


def become_ready(state: SchedulerState, task: TaskRecord, cause: str) -> None:
    """All inputs are in memory; placement will find a queue for it, unless any worker will do."""
    move(state, task, READY, cause)
    if task.dependencies or task.group is not None:
        state.fresh[task.key] = task
    else:
        task.queue = state.ready
        state.ready.add(task)


def leave_queue(state: SchedulerState, task: TaskRecord) -> None:
    """Take a READY task out of the queue that it waits in."""
    if task.queue is not None:
        task.queue.remove(task)
        task.queue = None
    else:
        state.fresh.pop(task.key, None)


# --- processing ------------------------------------------------------------------------------


def start_processing(
    state: SchedulerState, tasks: list[TaskRecord], worker: WorkerRecord
) -> None:
    """Assign tasks that have been taken from their queues, or wait for inputs being made."""
    processing = worker.processing
    if not processing:
        worker.last_progress = state.now
        state.working[worker] = None
    for task in tasks:
        move(state, task, PROCESSING, "placed")
        task.queue = None
        task.attempt += 1
        task.processing_on = worker
        processing[task.key] = task
        if task.waiting_on:
            task.ahead = True
            worker.ahead += 1
        if task.function is not None:
            expected_s = task.expected_s = task.function.duration_s
            worker.duration_sum_s += expected_s
        if task.group is not None:
            for name, amount in task.group.options.resources:
                worker.resources_free[name] -= amount


def stop_processing(state: SchedulerState, task: TaskRecord) -> WorkerRecord:
    """Take a task off its worker's list, whatever it becomes next."""
    worker = task.processing_on
    if worker is None:
        raise InvariantError(f"{task!r} is on no worker.")
    processing = worker.processing
    del processing[task.key]
    if processing:
        worker.duration_sum_s -= task.expected_s
    else:
        worker.duration_sum_s = 0.0
        del state.working[worker]
    if task.stealing:
        task.stealing = False
        worker.stealing -= 1
    if task.ahead:
        task.ahead = False
        worker.ahead -= 1
    if task.group is not None:
        for name, amount in task.group.options.resources:
            worker.resources_free[name] += amount
    task.processing_on = None
    state.touched[worker] = None
    return worker


def catch_up(state: SchedulerState, task: TaskRecord) -> None:
    """One more input is there of a task that went out before its inputs; it may run after the last.
    """
    worker = task.processing_on
    task.waiting_on -= 1
    if worker is not None and not task.waiting_on:
        task.ahead = False
        worker.ahead -= 1
        state.touched[worker] = None


def run_again(state: SchedulerState, task: TaskRecord, cause: str) -> None:
    """An attempt was given up: wait for the next assignment."""
    stop_processing(state, task)
    start_waiting(state, task, cause)


def leave_place(state: SchedulerState, task: TaskRecord) -> None:
    """Take a task off its queue, or off its worker, which is told to give the attempt up."""
    if task.state is READY:
        leave_queue(state, task)
    elif task.processing_on is not None:
        worker = stop_processing(state, task)
        state.to_cancel.setdefault(worker, []).append((task.key, task.attempt))


# --- memory ----------------------------------------------------------------------------------


def put_in_memory(
    state: SchedulerState, task: TaskRecord, worker: WorkerRecord, nbytes: NBytes, cause: str
) -> None:
    """The first copy of a value is there: wake the tasks that wait for it, tell the clients."""
    move(state, task, MEMORY, cause)
    task.nbytes = nbytes
    task.who_has = worker.alone
    worker.has_what[task.key] = task
    worker.nbytes += nbytes
    waiting = task.dependents
    if waiting:
        for dependent in waiting.values():
            if dependent.state is WAITING:
                missing = dependent.waiting_on = dependent.waiting_on - 1
                if not missing:
                    become_ready(state, dependent, cause)
            elif dependent.ahead:
                catch_up(state, dependent)
    for dependency in task.dependencies:
        others = dependency.dependents
        if others:
            others.pop(task.key, None)
            if not others and not dependency.wanted_by:
                release(state, dependency, cause)
    if not state.keeps_lineage:
        task.dependencies, task.payload = (), b""
    if task.wanted_by:
        tell_clients(state, task, cause)
    elif not waiting:
        release(state, task, cause)


def tell_clients(state: SchedulerState, task: TaskRecord, cause: str) -> None:
    """Those who want a value hear that it is in memory, unless its worker has sent it to them."""
    pushed_to = task.pushed_to if task.nbytes <= state.config.push_bytes_max else 0
    for client in task.wanted_by:
        if client < 0 or client == pushed_to:
            continue
        news = state.finished_for.get(client)
        if news is None:
            state.finished_for[client] = [task]
        else:
            news.append(task)
    if FIRE_AND_FORGET in task.wanted_by:
        drop_interest(state, task, FIRE_AND_FORGET, cause)


def accept_copy(
    state: SchedulerState, task: TaskRecord, worker: WorkerRecord, nbytes: NBytes
) -> None:
    """A copy of a value that was about to be computed again has come up: take that."""
    leave_place(state, task)
    task.pushed_to = 0  # by the attempt that is given up
    put_in_memory(state, task, worker, nbytes, "copy found")


def add_replica(task: TaskRecord, worker: WorkerRecord) -> None:
    """One more worker holds a value that is in memory."""
    if task.key not in worker.has_what:
        task.who_has = (*task.who_has, worker)
        worker.has_what[task.key] = task
        worker.nbytes += task.nbytes


def drop_replica(
    state: SchedulerState, task: TaskRecord, worker: WorkerRecord, cause: str
) -> None:
    """A worker does not hold a value any more; the last copy may have to be made again."""
    if worker.has_what.pop(task.key, None) is None:
        return
    worker.nbytes -= task.nbytes
    task.who_has = tuple(holder for holder in task.who_has if holder is not worker)
    if task.who_has:
        if task.pushed_to and task.nbytes <= state.config.push_bytes_max:
            # The worker may have been lost before the value that it pushed had left.
            task.pushed_to = 0
            tell_clients(state, task, cause)
    elif task.state is MEMORY:
        lose_value(state, task, cause)


def lose_value(state: SchedulerState, task: TaskRecord, cause: str) -> None:
    """No worker has the value any more: make the tasks that need it wait, compute it again."""
    move(state, task, RELEASED, cause)
    for dependent in list((task.dependents or {}).values()):
        if dependent.state is READY:
            leave_queue(state, dependent)
            move(state, dependent, WAITING, cause)
            dependent.waiting_on = 1
        elif dependent.state is WAITING or dependent.ahead:
            dependent.waiting_on += 1
    if not is_needed(task):
        release(state, task, cause)
    elif task.function is None or not state.keeps_lineage:
        become_erred(state, task, lost_value_error(task), cause)
    else:
        start_waiting(state, task, cause)


# --- errors ----------------------------------------------------------------------------------


def become_erred(
    state: SchedulerState, task: TaskRecord, error: ErrorColumns, cause: str
) -> None:
    """A task has no value, and so have all tasks that depend on it."""
    todo = [task]
    while todo:
        task = todo.pop()
        if task.state in (ERRED, MEMORY, FORGOTTEN):
            continue
        leave_place(state, task)
        move(state, task, ERRED, cause)
        task.error = error
        if task.function is not None:
            task.function.erred += 1
        for client in task.wanted_by:
            if client > 0:
                state.erred_for.setdefault(client, []).append(task)
        todo.extend((task.dependents or {}).values())
        let_inputs_go(state, task, cause)
        for dependency in drop_lineage(state, task):
            release(state, dependency, cause)
        if FIRE_AND_FORGET in task.wanted_by:
            drop_interest(state, task, FIRE_AND_FORGET, cause)
        else:
            release_if_unneeded(state, task, cause)


def let_inputs_go(state: SchedulerState, task: TaskRecord, cause: str) -> None:
    """A task does not need its inputs any more."""
    for dependency in task.dependencies:
        if dependency.dependents is not None:
            dependency.dependents.pop(task.key, None)
        release_if_unneeded(state, dependency, cause)


# --- interest, release -----------------------------------------------------------------------


def is_needed(task: TaskRecord) -> bool:
    """Return whether a client wants the value or an unfinished task needs it."""
    return bool(task.wanted_by or task.dependents)


def add_interest(
    state: SchedulerState, task: TaskRecord, client: ClientId, alone: tuple[ClientId, ...]
) -> None:
    """A client holds a future of the task from now on; a released value is computed again."""
    if client in task.wanted_by:
        return
    task.wanted_by = (*task.wanted_by, client) if task.wanted_by else alone
    if task.state is MEMORY:
        state.finished_for.setdefault(client, []).append(task)
    elif task.state is ERRED:
        state.erred_for.setdefault(client, []).append(task)
    elif task.state is RELEASED and task.function is None:
        become_erred(state, task, lost_value_error(task), "wanted")
    elif task.state is RELEASED:
        start_waiting(state, task, "wanted")


def drop_interest(
    state: SchedulerState, task: TaskRecord, client: ClientId, cause: str
) -> None:
    """A client does not want the value any more."""
    wanted_by = task.wanted_by
    if client == task.pushed_to:
        task.pushed_to = 0  # it throws away what comes now, even if it wants the value again
    if len(wanted_by) == 1 and wanted_by[0] == client:
        task.wanted_by = ()
    elif client in wanted_by:
        task.wanted_by = tuple(other for other in wanted_by if other != client)
    release_if_unneeded(state, task, cause)


def release_if_unneeded(state: SchedulerState, task: TaskRecord, cause: str) -> None:
    """Release the task unless somebody needs it."""
    if not task.wanted_by and not task.dependents:
        release(state, task, cause)


def release(state: SchedulerState, task: TaskRecord, cause: str) -> None:
    """Nobody needs the value: drop it everywhere, and what was needed for it only.

    The record goes too, unless known tasks were made from it and lineage matters: then their
    values may have to be computed again. An error is remembered so long, but not computed again.
    """
    todo = [task]
    while todo:
        task = todo.pop()
        if task.wanted_by or task.dependents or task.state is FORGOTTEN:
            continue
        if task.state is MEMORY:
            free_copies(state, task)
        elif task.state is not ERRED:
            leave_place(state, task)
            for dependency in task.dependencies:
                others = dependency.dependents
                if others is not None and others.pop(task.key, None) is not None and not others:
                    todo.append(dependency)
        if not task.lineage:
            move(state, task, FORGOTTEN, cause)
            del state.tasks[task.key]
            if task.dependencies:
                todo += drop_lineage(state, task)
        elif task.state not in (RELEASED, ERRED):
            move(state, task, RELEASED, cause)


def free_copies(state: SchedulerState, task: TaskRecord) -> None:
    """Have all workers drop a value."""
    key, nbytes = task.key, task.nbytes
    for worker in task.who_has:
        del worker.has_what[key]
        worker.nbytes -= nbytes
        freed = state.to_free.get(worker)
        if freed is None:
            state.to_free[worker] = [key]
        else:
            freed.append(key)
    task.who_has = ()


def drop_lineage(state: SchedulerState, task: TaskRecord) -> list[TaskRecord]:
    """Forget what a task is made from; return what no known task is made from any more."""
    dependencies, task.dependencies = task.dependencies, ()
    task.payload = b""
    if not state.keeps_lineage:
        return []
    for dependency in dependencies:
        dependency.lineage -= 1
    return [dependency for dependency in dependencies if not dependency.lineage]


def release_all(state: SchedulerState, tasks: Iterable[TaskRecord], cause: str) -> None:
    """Release those of the tasks that nobody needs."""
    for task in tasks:
        release_if_unneeded(state, task, cause)
