"""Which value is fetched next, and from which rank?

A policy over the records: few requests at a time, small values together, one value from one
holder, and another holder when the first does not have it.
"""

from mpicluster.config import Config
from mpicluster.ids import Key, NBytes, Rank
from mpicluster.messages import FetchValues
from mpicluster.worker.records import Fetch, LocalTask, WorkerState


def want_value(
    state: WorkerState, key: Key, nbytes: NBytes, holders: list[Rank], rank: Rank
) -> Fetch | None:
    """Return the fetch of a value that is needed here; None if nobody is known to have it.

    It starts with a neighbour, else with the holder that differs from rank to rank: many workers
    that need one value at the same time so spread over its replicas.
    """
    if state.lost_ranks:
        holders = [holder for holder in holders if holder not in state.lost_ranks]
    fetch = state.fetches.get(key)
    if fetch is not None:
        fetch.holders += [holder for holder in holders if holder not in fetch.holders]
        return fetch
    if not holders:
        return None
    turn = rank % len(holders)
    holders = holders[turn:] + holders[:turn]
    if state.neighbours:
        holders.sort(key=lambda holder: holder not in state.neighbours)
    fetch = state.fetches[key] = Fetch(key, nbytes, holders)
    queue_fetch(state, fetch)
    return fetch


def queue_fetch(state: WorkerState, fetch: Fetch) -> bool:
    """Put a fetch into the queue of its next holder; return False if there is none."""
    if not fetch.holders:
        return False
    holder = fetch.holders.pop(0)
    state.fetch_queues.setdefault(holder, {})[fetch.key] = fetch
    fetch.queued_at = holder
    return True


def leave_queue(state: WorkerState, fetch: Fetch) -> None:
    """Take a fetch out of the queue that it waits in, if it does."""
    queue = state.fetch_queues.get(fetch.queued_at)
    if queue is not None:
        queue.pop(fetch.key, None)
        if not queue:
            del state.fetch_queues[fetch.queued_at]
    fetch.queued_at = -1


def next_requests(state: WorkerState, config: Config) -> list[tuple[Rank, FetchValues]]:
    """Return the requests to send now."""
    requests: list[tuple[Rank, FetchValues]] = []
    busy = {rank for rank, _ in state.requests.values()}
    for rank in list(state.fetch_queues):
        if len(state.requests) >= config.fetches_max:
            break
        if rank in busy:
            continue  # what gathers in the meantime travels together
        taken: dict[Key, Fetch] = {}
        nbytes = 0
        for key, fetch in state.fetch_queues[rank].items():
            if taken and nbytes + fetch.nbytes > config.fetch_bytes_max:
                break
            taken[key] = fetch
            nbytes += fetch.nbytes
        for fetch in taken.values():
            leave_queue(state, fetch)
            fetch.asked = rank
        number = state.next_request
        state.next_request += 1
        state.requests[number] = (rank, taken)
        requests.append((rank, FetchValues(number, list(taken), state.home)))
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
    for number, (peer, waiting) in list(state.requests.items()):
        if peer == rank:
            del state.requests[number]
            failed += [fetch for key, fetch in waiting.items() if state.fetches.get(key) is fetch]
    for fetch in list(state.fetch_queues.get(rank, {}).values()):
        leave_queue(state, fetch)
        failed.append(fetch)
    for fetch in state.fetches.values():
        fetch.holders = [holder for holder in fetch.holders if holder != rank]
    return failed
