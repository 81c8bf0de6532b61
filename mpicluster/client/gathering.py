"""How do values get from the workers to the client, and from the client to the workers?

Straight, never through the scheduler. Small values travel together, each large one on its own; a
few requests per worker are under way at a time, so that no rank is flooded.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from mpicluster import messages as m
from mpicluster.client.loop import Arrived, ClientLoop
from mpicluster.client.records import FutureRecord
from mpicluster.errors import LostValueError
from mpicluster.ids import Key, Rank
from mpicluster.serialization.frames import Frames, from_frames, loads

#: Keys in one request at most.
KEYS_MAX = 5000
#: Requests under way to one worker.
REQUESTS_MAX = 2
#: How long a value may be looked for before it counts as lost, in seconds.
SEARCH_S = 60.0


def fetch_values(loop: ClientLoop, records: Sequence[FutureRecord]) -> dict[Key, Any]:
    """Return the values of finished records."""
    values: dict[Key, Any] = {}
    wanted: dict[Key, FutureRecord] = {}
    for record in records:
        if record.value is not None:
            if record.key not in values:
                values[record.key] = loads(record.value)
        else:
            wanted[record.key] = record
    if wanted:
        values.update(_fetch_from_workers(loop, wanted))
    return values


def _fetch_from_workers(loop: ClientLoop, wanted: dict[Key, FutureRecord]) -> dict[Key, Any]:
    missing = [record.key for record in wanted.values() if record.rank < 0]
    places = {record.key: record.rank for record in wanted.values() if record.rank >= 0}
    places |= _ask_where(loop, missing)
    values: dict[Key, Any] = {}
    while places:
        arrived = _request(loop, places, wanted)
        lost = [key for key, value in arrived.items() if value is None]
        for key, value in arrived.items():
            if value is not None:
                values[key] = _load(value)
        places = _ask_where(loop, lost)
    return values


def _request(
    loop: ClientLoop, places: dict[Key, Rank], wanted: dict[Key, FutureRecord]
) -> dict[Key, Arrived | None]:
    """Fetch from the places named, a few requests per worker at a time."""
    queues: dict[Rank, deque[list[Key]]] = {}
    for rank, keys in _by_rank(places).items():
        sizes = [wanted[key].nbytes for key in keys]
        queues[rank] = deque(split_evenly(keys, sizes, loop.config.fetch_bytes_max))
    arrived: dict[Key, Arrived | None] = {}
    waiting: dict[int, tuple[Rank, list[Key]]] = {}
    try:
        while queues or waiting:
            with loop.lock:
                _send_requests(loop, queues, waiting)
            _await_one(loop, waiting)
            for request in _complete(loop, waiting):
                _, keys = waiting.pop(request)
                # What a lost worker has not sent is looked for elsewhere.
                arrived |= dict.fromkeys(keys) | loop.fetches.pop(request)
    finally:
        for request in waiting:  # after an interrupt: what comes yet is dropped
            loop.fetches.pop(request, None)
    return arrived


def _send_requests(
    loop: ClientLoop,
    queues: dict[Rank, deque[list[Key]]],
    waiting: dict[int, tuple[Rank, list[Key]]],
) -> None:
    """Ask workers that have less to answer than they may, and note it in `waiting`."""
    for rank in list(queues):
        under_way = sum(1 for other, _ in waiting.values() if other == rank)
        while queues[rank] and under_way < REQUESTS_MAX:
            keys = queues[rank].popleft()
            request = loop.core.next_number()
            loop.fetches[request] = {}
            loop.core.to_worker(rank, m.FetchValues(request, keys, loop.home))
            waiting[request] = (rank, keys)
            under_way += 1
        if not queues[rank]:
            del queues[rank]


def _complete(loop: ClientLoop, waiting: dict[int, tuple[Rank, list[Key]]]) -> list[int]:
    """Return the requests that are answered, or whose worker is lost."""
    complete = []
    for request, (rank, keys) in waiting.items():
        found = loop.fetches[request]
        if len(found) == len(keys) or rank in loop.core.lost_workers:
            complete.append(request)
    return complete


def _await_one(loop: ClientLoop, waiting: dict[int, tuple[Rank, list[Key]]]) -> None:
    loop.wait_until(lambda: bool(_complete(loop, waiting)))


def _ask_where(loop: ClientLoop, keys: list[Key]) -> dict[Key, Rank]:
    """Ask the scheduler where values are; wait while they are being computed again."""
    places: dict[Key, Rank] = {}
    while keys:
        with loop.lock:
            request = loop.core.ask("who_has", keys)
        loop.wait_until(lambda request=request: request in loop.core.answers, SEARCH_S)  # type: ignore[misc]
        found = loop.core.answers.pop(request, {})
        places |= {key: ranks[0] for key, ranks in found.items() if ranks}
        keys = [key for key in keys if key not in places]
        for key in keys:
            record = loop.core.records.get(key)
            if key not in found or record is None or record.error is not None:
                raise LostValueError(
                    "A value is no longer on any worker. It was released or its worker was lost; "
                    "submit its task again."
                )
        if keys:
            loop.wait_until(lambda: False, 0.05)
    return places


def _by_rank(places: dict[Key, Rank]) -> dict[Rank, list[Key]]:
    found: dict[Rank, list[Key]] = {}
    for key, rank in places.items():
        found.setdefault(rank, []).append(key)
    return found


def _load(value: Arrived) -> Any:
    return loads(value) if isinstance(value, bytes) else from_frames(value)


def split_evenly(items: list[Any], sizes: list[int], bytes_max: int) -> list[list[Any]]:
    """Cut a list into runs of at most `bytes_max` bytes and `KEYS_MAX` items, at least one each.

    >>> split_evenly(["a", "b", "c"], [5, 5, 5], 10)
    [['a', 'b'], ['c']]
    """
    runs: list[list[Any]] = []
    run: list[Any] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if run and (total + size > bytes_max or len(run) >= KEYS_MAX):
            runs.append(run)
            run, total = [], 0
        run.append(item)
        total += size
    if run:
        runs.append(run)
    return runs


def put_values(
    loop: ClientLoop, values: list[tuple[FutureRecord, bytes | Frames]], ranks: Sequence[Rank]
) -> None:
    """Send scattered values to workers, one after the other in turn; return when they are there."""
    records = [record for record, _ in values]
    with loop.lock:
        turns = [ranks[number % len(ranks)] for number in range(len(records))]
        loop.core.to_scheduler(m.DeclareValues([record.key for record in records], turns))
        small: dict[Rank, m.PutValues] = {}
        for rank, (record, frames) in zip(turns, values, strict=True):
            if isinstance(frames, bytes):
                message = small.setdefault(rank, m.PutValues([], []))
                message.keys.append(record.key)
                message.values.append(frames)
            else:
                views = [memoryview(frame).cast("B") for frame in frames]
                sizes = [len(view) for view in views]
                loop.core.to_worker(rank, m.PutLargeValue(record.key, sizes, sizes, views))
        for rank, message in small.items():
            loop.core.to_worker(rank, message)
    loop.wait_until(lambda: all(record.done for record in records))
