"""How does a script wait for many futures?

`wait`, `as_completed` and `futures_of`, with the meaning they have in `distributed`; and
`fire_and_forget`, for those that it does not wait for.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from mpicluster.absent import refuse_await
from mpicluster.client.containers import CONTAINERS
from mpicluster.client.future import Future, error_of
from mpicluster.client.records import ERROR, FutureRecord
from mpicluster.client.timeouts import to_seconds

ALL_COMPLETED = "ALL_COMPLETED"
FIRST_COMPLETED = "FIRST_COMPLETED"


class DoneAndNotDoneFutures(NamedTuple):
    """What `wait` returns."""

    done: set[Future]
    not_done: set[Future]


def futures_of(value: Any) -> list[Future]:
    """Return the futures in a value: a future, containers of them, or a persisted collection.

    Each future is listed once.

    >>> from mpicluster import futures_of
    >>> futures = client.map(abs, [-1, -2])
    >>> futures_of({"some": futures, "first": futures[0]}) == futures
    True
    """
    if isinstance(value, list) and all(isinstance(item, Future) for item in value):
        return list(dict.fromkeys(value))
    found: dict[Future, None] = {}
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, Future):
            found[value] = None
        elif isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            todo.extend(reversed(list(value)))
        elif hasattr(value, "__dask_graph__"):
            graph = value.__dask_graph__()
            todo.extend(graph.values() if graph is not None else ())
    return list(found)


def wait(
    fs: Any, timeout: float | str | None = None, return_when: str = ALL_COMPLETED
) -> DoneAndNotDoneFutures:
    """Wait until all futures, or the first of them, are done.

    `fs` is a future, a list of them or a persisted collection; `timeout` is in seconds or a text
    like "10s". Raises `TimeoutError` when the time is over.

    >>> from mpicluster import wait
    >>> done, not_done = wait(client.map(abs, [-1, -2]), timeout="10s")
    >>> len(done), len(not_done)
    (2, 0)
    """
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED):
        raise ValueError(
            f"return_when is {return_when!r}; it must be {ALL_COMPLETED!r} or {FIRST_COMPLETED!r}."
        )
    futures = futures_of(fs)
    if not futures:
        return DoneAndNotDoneFutures(set(), set())
    client = futures[0].client
    enough = len(futures) if return_when == ALL_COMPLETED else 1
    if not client.wait_for_some([f._record for f in futures], enough, to_seconds(timeout)):  # noqa: SLF001
        raise TimeoutError(
            f"After {timeout} seconds {sum(1 for f in futures if not f.done())} of {len(futures)} "
            "futures are not done; give wait a longer timeout."
        )
    done = {future for future in futures if future._record.done}  # noqa: SLF001
    return DoneAndNotDoneFutures(done, set(futures) - done)


def fire_and_forget(obj: Any) -> None:
    """Have tasks run to their end although nobody keeps their futures.

    `obj` is a future, a list of them or a persisted collection. For tasks whose effect matters
    and whose result does not, like those that write a file. A cluster ends after them, unless the
    script fails.

    >>> from mpicluster import fire_and_forget
    >>> fire_and_forget(client.submit(sorted, [2, 1]))
    """
    by_client: dict[int, list[Future]] = {}
    for future in futures_of(obj):
        by_client.setdefault(id(future.client), []).append(future)
    for futures in by_client.values():
        futures[0].client.finish_without_futures(futures)


class as_completed:  # noqa: N801  (the name that users of distributed know)
    """Iterate over futures in the order in which they are done; more may be added meanwhile.

    With `with_results` it yields `(future, result)`. With `raise_errors=False` a failed future
    comes with `(type, exception, traceback)` in the place of its result. Raises `TimeoutError` when
    no future is done within `timeout` (seconds, or a text like "10s").

    >>> from mpicluster import as_completed
    >>> sorted(future.result() for future in as_completed(client.map(abs, [-1, -2])))
    [1, 2]
    """

    def __init__(
        self,
        futures: Iterable[Any] | None = None,
        loop: Any = None,  # noqa: ARG002  (distributed's signature)
        with_results: bool = False,
        raise_errors: bool = True,
        *,
        timeout: float | str | None = None,
    ) -> None:
        self.with_results = with_results
        self.raise_errors = raise_errors
        self.timeout = to_seconds(timeout)
        self._done: deque[Future] = deque()
        #: {future: how often it was added} of those that are not done.
        self._pending: dict[FutureRecord, list[Future]] = {}
        self._lock = threading.Lock()
        if futures is not None:
            self.update(futures)

    def add(self, future: Any) -> None:
        """Add a future or a collection's futures."""
        futures = futures_of(future)
        if not futures and not (isinstance(future, CONTAINERS) and not future):
            raise TypeError(
                f"as_completed was given {future!r:.100}, which is not a future. Give it futures, "
                "as client.submit and client.map return them."
            )
        for found in futures:
            record = found._record  # noqa: SLF001
            with found.client.lock:
                if record.done:
                    self._done.append(found)
                    continue
                waiting = self._pending.setdefault(record, [])
                waiting.append(found)
                if len(waiting) == 1:
                    found.client.watch(record, self._record_done)

    def update(self, futures: Iterable[Any]) -> None:
        """Add several futures."""
        for future in futures:
            self.add(future)

    def _record_done(self, record: FutureRecord) -> None:
        self._done.extend(self._pending.pop(record, ()))

    def count(self) -> int:
        """Return how many futures have not been yielded."""
        return len(self._done) + sum(len(waiting) for waiting in list(self._pending.values()))

    def is_empty(self) -> bool:
        """Return whether all futures have been yielded."""
        return not self._done and not self._pending

    def has_ready(self) -> bool:
        """Return whether the next future is there without waiting."""
        if not self._done and self._pending:
            next(iter(self._pending.values()))[0].client.poll()
        return bool(self._done)

    def clear(self) -> None:
        """Forget all futures that have not been yielded."""
        self._done.clear()
        self._pending.clear()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __aiter__(self) -> NoReturn:
        refuse_await("`as_completed` was used in an `async for`", "a plain `for` does the same")

    def __next__(self) -> Any:
        self._await_one()
        return self._item(self._done.popleft())

    def _await_one(self) -> None:
        if self._done:
            return
        if not self._pending:
            raise StopIteration
        client = next(iter(self._pending.values()))[0].client
        if not client.wait_until(lambda: bool(self._done), self.timeout):
            raise TimeoutError(
                f"No future was done within {self.timeout} seconds; {self.count()} are left."
            )

    def _item(self, future: Future) -> Any:
        if not self.with_results:
            return future
        record = future._record  # noqa: SLF001
        if record.status is ERROR and not self.raise_errors:
            error = error_of(record)
            return future, (type(error), error, future.traceback())
        return future, future.result()

    def next_batch(self, block: bool = True) -> list[Any]:
        """Return all futures that are done; wait for one at least if `block`."""
        if block:
            self._await_one()
        return [self._item(self._done.popleft()) for _ in range(len(self._done))]

    def batches(self) -> Iterator[list[Any]]:
        """Yield the futures in batches of all that are done."""
        while not self.is_empty():
            yield self.next_batch(block=True)
