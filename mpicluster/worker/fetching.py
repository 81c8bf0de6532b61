"""Which value is fetched next, and from which rank?

A policy over the records: few requests at a time, small values together, one value from one
holder, and another holder when the first does not have it. What a rank is only about to make is
asked for at once, and sent when it is made.
"""

from mpicluster.config import Config
from mpicluster.ids import Key, NBytes, Rank
from mpicluster.messages import PROMISED, FetchValues
from mpicluster.worker.records import Fetch, Lane, LocalTask, WorkerState


def want_value(
    state: WorkerState, key: Key, nbytes: NBytes, holders: list[Rank], rank: Rank
) -> Fetch | None:
    """Return the fetch of a value that is needed here; None if nobody is known to have it.

    It starts with a neighbour, else with the holder that differs from rank to rank: many workers
    that need one value at the same time so spread over its replicas. A size of `PROMISED` says
    that the holder, which may be this rank, is about to make the value.
    """
    if state.lost_ranks:
        holders = [holder for holder in holders if holder not in state.lost_ranks]
    holders = [holder for holder in holders if holder != rank]
    makers = holders if nbytes == PROMISED else []
    fetch = state.fetches.get(key)
    if fetch is not None:
        fetch.makers = [other for other in fetch.makers if other not in holders] + makers
        fetch.holders += [holder for holder in holders if holder not in fetch.holders]
        return fetch
    if key in state.tasks:
        fetch = state.fetches[key] = Fetch(key, 0, holders, makers=list(makers), asked=rank)
        return fetch
    if not holders:
        return None
    turn = rank % len(holders)
    holders = holders[turn:] + holders[:turn]
    if state.neighbours:
        holders.sort(key=lambda holder: holder not in state.neighbours)
    fetch = state.fetches[key] = Fetch(key, max(nbytes, 0), holders, makers=list(makers))
    queue_fetch(state, fetch)
    return fetch


def queue_fetch(state: WorkerState, fetch: Fetch) -> bool:
    """Put a fetch into the queue of its next holder; return False if there is none."""
    if not fetch.holders:
        return False
    holder = fetch.holders.pop(0)
    lane = fetch.lane = Lane(holder, holder in fetch.makers)
    state.fetch_queues.setdefault(lane, {})[fetch.key] = fetch
    return True


def leave_queue(state: WorkerState, fetch: Fetch) -> None:
    """Take a fetch out of the queue that it waits in, if it does."""
    lane, fetch.lane = fetch.lane, None
    if lane is not None:
        queue = state.fetch_queues[lane]
        del queue[fetch.key]
        if not queue:
            del state.fetch_queues[lane]


def next_requests(state: WorkerState, config: Config) -> list[tuple[Rank, FetchValues]]:
    """Return the requests to send now."""
    requests: list[tuple[Rank, FetchValues]] = []
    if not state.fetch_queues:
        return requests
    busy = {lane for lane, _ in state.requests.values() if not lane.promised}
    for lane in list(state.fetch_queues):
        if not lane.promised and (lane in busy or len(busy) >= config.fetches_max):
            continue  # what gathers in the meantime travels together
        taken: dict[Key, Fetch] = {}
        nbytes = 0
        for key, fetch in state.fetch_queues[lane].items():
            if taken and not lane.promised and nbytes + fetch.nbytes > config.fetch_bytes_max:
                break
            taken[key] = fetch
            nbytes += fetch.nbytes
        for fetch in taken.values():
            leave_queue(state, fetch)
            fetch.asked = lane.rank
        if not lane.promised:
            busy.add(lane)
        number = state.next_request
        state.next_request += 1
        state.requests[number] = (lane, taken)
        requests.append((lane.rank, FetchValues(number, list(taken), state.home, lane.promised)))
    return requests


def answered(state: WorkerState, request: int, key: Key) -> Fetch | None:
    """Note that one value of a request has been answered; return its fetch if that still runs."""
    found = state.requests.get(request)
    if found is None:
        return None
    _, waiting = found
    fetch = waiting.pop(key, None)
    if not waiting:
        del state.requests[request]
    return fetch if fetch is not None and state.fetches.get(key) is fetch else None


def forget_waiter(state: WorkerState, task: LocalTask) -> None:
    """A task does not wait for inputs any more; drop fetches that have not begun for it alone."""
    for key in task.inputs:
        fetch = state.fetches.get(key)
        if fetch is None:
            continue
        fetch.waiters.pop(task.key, None)
        if not fetch.needed and fetch.asked < 0:
            leave_queue(state, fetch)
            del state.fetches[key]


def rank_lost(state: WorkerState, rank: Rank) -> list[Fetch]:
    """Expect nothing from a rank any more; return the fetches that were waiting for it."""
    state.lost_ranks[rank] = None
    failed: list[Fetch] = []
    for number, (lane, waiting) in list(state.requests.items()):
        if lane.rank == rank:
            del state.requests[number]
            failed += [fetch for key, fetch in waiting.items() if state.fetches.get(key) is fetch]
    for promised in (False, True):
        for fetch in list(state.fetch_queues.get(Lane(rank, promised), {}).values()):
            leave_queue(state, fetch)
            failed.append(fetch)
    for fetch in state.fetches.values():
        fetch.holders = [holder for holder in fetch.holders if holder != rank]
    return failed


def promise(state: WorkerState, rank: Rank, fetch: FetchValues) -> FetchValues:
    """Note which of these values tasks here are about to make; return what can be answered now."""
    tasks = state.tasks
    if not fetch.promised or not any(key in tasks for key in fetch.keys):
        return fetch
    now: list[Key] = []
    for key in fetch.keys:
        if key in tasks and key not in state.has:
            who = (rank, fetch.request, fetch.home)
            state.promised.setdefault(key, []).append(who)
        else:
            now.append(key)
    return FetchValues(fetch.request, now, fetch.home)
