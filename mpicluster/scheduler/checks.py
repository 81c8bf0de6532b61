"""Do the scheduler's records agree with each other?

Invariants as code, for tests and for looking into a cluster that behaves oddly: everything that is
kept for speed equals a recount. Reads only; a broken one raises `InvariantError` with the story
of the key.
"""

from collections import Counter
from math import isclose

from mpicluster.errors import InvariantError
from mpicluster.ids import Key
from mpicluster.scheduler.records import (
    FIRE_AND_FORGET,
    OPEN_GRAPH,
    SHARED_BY_NAME,
    ReadyQueue,
    SchedulerState,
    TaskRecord,
    TaskState,
    WorkerRecord,
)
from mpicluster.scheduler.room import room

#: Expected seconds are added and taken off again and again, which leaves rounding errors.
SECONDS_TOLERANCE = 1e-6
#: The states in which a task needs its inputs.
UNFINISHED = (TaskState.WAITING, TaskState.READY, TaskState.PROCESSING)


def check_state(state: SchedulerState, decided: bool = True) -> None:
    """Raise `InvariantError` if anything is inconsistent.

    With `decided` also what holds only after a decision, before the next message.
    """
    for task in state.tasks.values():
        check_task(state, task)
    for worker in state.workers.values():
        check_worker(state, worker, decided)
    check_lineage(state)
    check_clients(state)
    check_queues(state, decided)


def story(state: SchedulerState, key: Key) -> str:
    """Return the last state changes of a key, one a line."""
    lines = [
        f"  {now:.6f} {old.name.lower()} -> {new.name.lower()}: {cause}"
        for now, cause, changed, old, new in state.history
        if changed == key
    ]
    return "\n".join(lines) or "  (no change is remembered)"


def demand(holds: bool, state: SchedulerState, key: Key, text: str) -> None:
    """Raise an error that says what is broken, unless it holds."""
    if not holds:
        task = state.tasks.get(key)
        raise InvariantError(f"Key {key} ({task!r}): {text}\n{story(state, key)}")


# --- tasks -----------------------------------------------------------------------------------


def check_task(state: SchedulerState, task: TaskRecord) -> None:
    """Check one task against its inputs, its dependents, its worker and its clients."""
    key = task.key
    demand(state.tasks.get(key) is task, state, key, "filed under another key")
    demand(task.state is not TaskState.FORGOTTEN, state, key, "forgotten but still known")
    demand(
        bool(task.who_has) == (task.state is TaskState.MEMORY),
        state, key, f"held by {task.who_has}",
    )  # fmt: skip
    demand(
        (task.processing_on is not None) == (task.state is TaskState.PROCESSING),
        state, key, f"on {task.processing_on}",
    )  # fmt: skip
    demand(not task.stealing or task.processing_on is not None, state, key, "stolen from nobody")
    demand(not task.ahead or task.processing_on is not None, state, key, "ahead, but nowhere")
    demand((task.error is None) or task.state is TaskState.ERRED, state, key, "an error is left")
    for worker in task.who_has:
        demand(worker.has_what.get(key) is task, state, key, f"{worker} does not list it")
        demand(worker.rank in state.workers, state, key, f"held by lost {worker}")
    demand(len(set(task.who_has)) == len(task.who_has), state, key, "a holder is named twice")
    if task.processing_on is not None:
        worker = task.processing_on
        demand(worker.processing.get(key) is task, state, key, f"{worker} does not process it")
    check_links(state, task)


def check_links(state: SchedulerState, task: TaskRecord) -> None:
    """Check a task's dependencies, dependents and reasons to exist."""
    key, unfinished = task.key, task.state in UNFINISHED
    missing = 0
    for dependency in task.dependencies:
        demand(
            state.tasks.get(dependency.key) is dependency,
            state, key, f"needs forgotten {dependency}",
        )  # fmt: skip
        missing += dependency.state is not TaskState.MEMORY
        listed = (dependency.dependents or {}).get(key) is task
        demand(listed == unfinished, state, key, f"{dependency} lists it: {listed}")
    if task.state is TaskState.WAITING or task.ahead:
        demand(task.waiting_on == missing, state, key, f"{task.waiting_on=} but {missing=}")
        demand(missing > 0 or task.function is None, state, key, "waits for nothing")
    elif task.state is TaskState.READY:
        demand(missing == 0, state, key, f"ready without {missing} inputs")
    for other in (task.dependents or {}).values():
        demand(state.tasks.get(other.key) is other, state, key, f"needed by forgotten {other}")
        demand(task in other.dependencies, state, key, f"{other} does not need it")
    needed = bool(task.wanted_by or task.dependents)
    if task.state is TaskState.RELEASED:
        demand(not needed, state, key, "needed, but not computed")
    if task.state in (TaskState.MEMORY, TaskState.ERRED, TaskState.RELEASED):
        remembered = task.lineage > 0 and task.state is not TaskState.MEMORY
        demand(needed or remembered, state, key, "kept though nobody needs it")
    for client in task.wanted_by:
        if client not in (FIRE_AND_FORGET, OPEN_GRAPH, SHARED_BY_NAME):
            record = state.clients.get(client)
            listed = record is not None and record.wants.get(key) is task
            demand(listed, state, key, f"wanted by {client}, which does not know")


def check_lineage(state: SchedulerState) -> None:
    """Check how many known tasks have each task among their dependencies."""
    if not state.keeps_lineage:
        return
    counts = Counter(d.key for task in state.tasks.values() for d in task.dependencies)
    for key, task in state.tasks.items():
        demand(task.lineage == counts[key], state, key, f"{task.lineage=}, {counts[key]} counted")


# --- workers ---------------------------------------------------------------------------------


def check_worker(state: SchedulerState, worker: WorkerRecord, decided: bool) -> None:
    """Check what a worker holds and does, and the sums over it."""
    for key, task in worker.has_what.items():
        demand(worker in task.who_has, state, key, f"{worker} lists it, but it does not hold it")
    for key, task in worker.processing.items():
        demand(task.processing_on is worker, state, key, f"{worker} lists it as processing")
    nbytes = sum(task.nbytes for task in worker.has_what.values())
    expect(worker.nbytes == nbytes, worker, f"nbytes {worker.nbytes}, counted {nbytes}")
    stealing = sum(task.stealing for task in worker.processing.values())
    expect(worker.stealing == stealing, worker, f"stealing {worker.stealing}, counted {stealing}")
    ahead = sum(task.ahead for task in worker.processing.values())
    expect(worker.ahead == ahead, worker, f"ahead {worker.ahead}, counted {ahead}")
    seconds = sum(task.expected_s for task in worker.processing.values())
    close = isclose(worker.duration_sum_s, seconds, abs_tol=SECONDS_TOLERANCE, rel_tol=1e-6)
    expect(close, worker, f"duration_sum_s {worker.duration_sum_s}, counted {seconds}")
    works = worker in state.working
    expect(works == bool(worker.processing), worker, f"working is {works}")
    free = dict(worker.resources)
    for task in worker.processing.values():
        if task.group is not None:
            for name, amount in task.group.options.resources:
                free[name] -= amount
    for name, amount in free.items():
        expect(
            isclose(worker.resources_free[name], amount, abs_tol=1e-9), worker,
            f"{name}: {worker.resources_free[name]} free, counted {amount}",
        )  # fmt: skip
        expect(amount >= -1e-9, worker, f"more {name} taken than there is")
    if decided:
        takes = not worker.paused
        idle = takes and worker.free_slots() > 0
        expect((worker in state.idle) == idle == worker.is_idle, worker, f"idle is {not idle}")
        roomy = takes and room(state, worker) > 0
        # One that got all that is fair comes back when it has finished something.
        served = len(worker.processing) - worker.ahead > worker.slots
        known = worker in state.roomy
        expect(known == roomy or (roomy and served), worker, f"roomy is {not roomy}")
        expect(known == worker.is_roomy, worker, f"it says that roomy is {not known}")


def expect(holds: bool, worker: WorkerRecord, text: str) -> None:
    """Raise an error about a worker, unless it holds."""
    if not holds:
        raise InvariantError(f"{worker!r}: {text}")


# --- clients and queues ----------------------------------------------------------------------


def check_clients(state: SchedulerState) -> None:
    """Check that what clients want is known to be wanted."""
    for client, record in state.clients.items():
        for key, task in record.wants.items():
            known = state.tasks.get(key) is task and client in task.wanted_by
            demand(known, state, key, f"client {client} wants it, but it does not know")


def check_queues(state: SchedulerState, decided: bool) -> None:
    """Check that each READY task, and no other, is in exactly one queue or in `fresh`."""
    places: Counter[Key] = Counter(list(state.fresh))
    queues: list[ReadyQueue] = [state.ready]
    queues += [group.ready for group in state.groups.values()]
    queues += [worker.local for worker in state.workers.values()]
    for queue in queues:
        for task in queue.items():
            places[task.key] += 1
            demand(task.queue is queue, state, task.key, "in another queue than it says")
    for key, count in places.items():
        task_ready = key in state.tasks and state.tasks[key].state is TaskState.READY
        demand(task_ready and count == 1, state, key, f"in {count} queues")
    for key, task in state.tasks.items():
        demand(task.state is not TaskState.READY or key in places, state, key, "in no queue")
    for worker in state.workers.values():
        if len(worker.local):
            expect(worker in state.with_local, worker, "its local queue is not known")
            expect(not worker.paused, worker, "tasks wait for it though it is paused")
        expect(worker.paused == (worker in state.paused), worker, "paused, or not, unknown")
        last = worker in state.last_resorts
        wanted = worker.last_resort and worker.runs_nothing()
        expect(last == wanted or not decided, worker, f"a last resort is {last}")
    for worker in state.working:
        expect(worker.rank in state.workers, worker, "works, but is not there any more")
    if decided:
        expect_empty(state)


def expect_empty(state: SchedulerState) -> None:
    """Check that a decision has emptied what it empties."""
    for name in (
        "measured", "fresh", "touched", "to_free", "to_cancel", "finished_for", "erred_for",
    ):  # fmt: skip
        left = getattr(state, name)
        if left:
            raise InvariantError(f"SchedulerState.{name} is not empty after a decision: {left}")
    nobody_else = state.last_resorts and len(state.paused) == len(state.workers)
    if len(state.ready) and (state.idle or state.roomy or nobody_else):
        raise InvariantError(f"{len(state.ready)} tasks wait though workers have room for them.")
