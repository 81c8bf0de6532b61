"""Do the worker's records agree with each other?

Invariants as code, for tests; reads only. A broken one raises `InvariantError`.
"""

from mpicluster.errors import InvariantError
from mpicluster.worker.records import LocalState, LocalTask, WorkerState


def check_state(state: WorkerState) -> None:
    """Raise `InvariantError` if anything is inconsistent."""
    check_tasks(state)
    check_slots(state)
    check_fetches(state)


def expect(holds: bool, subject: object, text: str) -> None:
    """Raise an error that says what is broken, unless it holds."""
    if not holds:
        raise InvariantError(f"{subject!r}: {text}")


def check_tasks(state: WorkerState) -> None:
    """Check each task against the queue, the slots, the values and the fetches."""
    for key, task in state.tasks.items():
        expect(task.key == key, task, "filed under another key")
        ready, executing = task.state is LocalState.READY, task.state is LocalState.EXECUTING
        expect((task in state.ready) == ready, task, "in the queue of ready tasks or not")
        expect((state.running.get(task.ticket) is task) == executing, task, "with a slot or not")
        if task.state is LocalState.WAITING:
            check_waiting(state, task)
        else:
            expect(ready or executing, task, "over, but still known")
        if ready:
            for needed in task.inputs:
                expect(needed in state.has, task, f"ready, but the input {needed} is not here")
    for task in state.ready.items():
        expect(state.tasks.get(task.key) is task, task, "ready, but not known")


def check_waiting(state: WorkerState, task: LocalTask) -> None:
    """Check that a waiting task waits for fetches of just what is not here."""
    missing = [key for key in task.inputs if key not in state.has]
    expect(task.missing == len(missing) > 0, task, f"{task.missing=}, but not here: {missing}")
    for key in missing:
        fetch = state.fetches.get(key)
        waits = fetch is not None and fetch.waiters.get(task.key) is task
        expect(waits, task, f"nobody fetches {key} for it")


def check_slots(state: WorkerState) -> None:
    """Check what the slots have."""
    held: dict[int, LocalTask] = {}
    for slot in state.slots:
        expect(slot.started or not slot.tasks, slot, "has tasks before it has started")
        held.update(slot.tasks)
        for ticket, task in slot.tasks.items():
            expect(task.ticket == ticket and task.slot == slot.index, task, "with another slot")
    expect(held == state.running, held, f"with slots, but running are {state.running}")
    abandoned = sum(1 for task in held.values() if task.state is LocalState.ABANDONED)
    expect(abandoned == state.abandoned, held, f"counted as abandoned: {state.abandoned}")
    for task in state.running.values():
        alive = state.tasks.get(task.key) is task
        expected = LocalState.EXECUTING if alive else LocalState.ABANDONED
        expect(task.state is expected, task, f"with a slot, known: {alive}")


def check_fetches(state: WorkerState) -> None:
    """Check that each fetch is needed, and waits in one queue or in one request."""
    under_way = {
        key: lane.rank
        for lane, waiting in state.requests.values()
        for key, fetch in waiting.items()
        if state.fetches.get(key) is fetch
    }
    queued = {key: lane for lane, queue in state.fetch_queues.items() for key in queue}
    for key, fetch in state.fetches.items():
        expect(key not in state.has, fetch, "the value is here")
        expect(fetch.lane == queued.get(key), fetch, "not in the queue that it says")
        made_here = fetch.asked >= 0 and key not in under_way
        if made_here:
            expect(key in state.tasks, fetch, "no task here makes it")
        else:
            expect(fetch.asked == under_way.get(key, -1), fetch, "not with the rank that it says")
        places = (key in queued) + (key in under_way) + made_here
        expect(places == 1, fetch, "nobody will ask for it, or more than one")
        expect(fetch.needed or fetch.asked >= 0, fetch, "nobody needs it")
        for task in fetch.waiters.values():
            expect(task.state is LocalState.WAITING, task, f"waits for {key}")
    expect(queued.keys() <= state.fetches.keys(), queued, "queued, but not known")
    for lane, queue in state.fetch_queues.items():
        expect(bool(queue), lane, "an empty queue is left")
    for key in state.promised:
        expect(key in state.tasks and key not in state.has, key, "promised, but not being made")
    for number, (_, waiting) in state.requests.items():
        expect(bool(waiting), number, "a request for nothing is left")
