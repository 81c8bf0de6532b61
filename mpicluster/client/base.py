"""What do all methods of a client build upon?

The connection, waiting, and making futures. The methods that users call are in the files beside
this one, by what they are for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from mpicluster.client import gathering
from mpicluster.client.functions import FunctionTable
from mpicluster.client.future import Future, belongs_elsewhere, raise_error_of
from mpicluster.client.loop import ClientLoop
from mpicluster.client.options import find_ranks, preferred_workers
from mpicluster.client.records import PENDING, FutureRecord
from mpicluster.client.timeouts import to_seconds
from mpicluster.errors import ClusterClosedError, NoValidWorkerError
from mpicluster.ids import Rank
from mpicluster.messages import TaskOptions
from mpicluster.serialization.frames import loads

if TYPE_CHECKING:
    from mpicluster.client.client import Client
    from mpicluster.cluster.base import Cluster


class ClientBase:
    """A client's connection with its cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._loop = cluster.connect()
        with self._loop.lock:
            self._loop.clients += 1
        self.config = self._loop.config
        self.lock = self._loop.lock
        self.status = "running"
        self.functions = FunctionTable(self._loop)
        self._future_type: type[Future] = Future
        self._callbacks: SimpleQueue[Callable[[], Any] | None] | None = None

    @property
    def loop(self) -> ClientLoop:
        """The connection with the cluster."""
        return self._loop

    def worker_descriptions(self) -> list[dict[str, Any]]:
        """Return what is known of each worker."""
        return self._workers()

    def make_future(self, record: FutureRecord) -> Future:
        """Return one more future of a record."""
        return self._future_type(record, cast("Client", self))

    def wait_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Let messages move until `done()`; return False if `timeout` seconds pass before."""
        return self._loop.wait_until(done, timeout)

    def poll(self) -> None:
        """Take in what has arrived, without waiting."""
        if self.status == "running":
            self._loop.check()
            self._loop.turn()

    def wait_for_some(
        self, records: Sequence[FutureRecord], enough: int, timeout: float | None
    ) -> bool:
        """Wait until `enough` records are done; return False if the time is over before."""
        left = enough
        with self.lock:
            waiting = [record for record in records if not record.done]
            left -= len(records) - len(waiting)
            if left <= 0:
                return True
            counter = [left]

            def count(_record: FutureRecord) -> None:
                counter[0] -= 1

            for record in waiting:
                self.watch(record, count)
        return self._loop.wait_until(lambda: counter[0] <= 0, timeout)

    def watch(self, record: FutureRecord, callback: Callable[[FutureRecord], None]) -> None:
        """Have `callback` called, under the lock, when the record is done."""
        if record.callbacks is None:
            record.callbacks = []
        record.callbacks.append(callback)

    def wait_for_record(self, record: FutureRecord, timeout: float | str | None) -> None:
        """Wait for one record; raise `TimeoutError` when the time is over."""
        if record.status is PENDING and not self._loop.wait_until(
            lambda: record.status is not PENDING, to_seconds(timeout)
        ):
            raise TimeoutError(
                f"The future {record.name!r} was not done within {timeout}; it is still pending."
            )

    def result_of(self, record: FutureRecord, timeout: float | str | None) -> Any:
        """Return a record's value or raise its error."""
        self.wait_for_record(record, timeout)
        raise_error_of(record)
        if record.value is not None:
            return loads(record.value)
        return gathering.fetch_values(self._loop, [record])[record.key]

    def call_when_done(self, future: Future, function: Callable[[Future], Any]) -> None:
        """Call `function(future)` in the thread for callbacks when the future is done."""
        if self._callbacks is None:
            self._callbacks = SimpleQueue()
            threading.Thread(
                target=_run_callbacks, args=(self._callbacks,), name="mpicluster-callbacks",
                daemon=True,
            ).start()  # fmt: skip
        queue, record = self._callbacks, future._record  # noqa: SLF001
        with self.lock:
            if record.done:
                queue.put(lambda: function(future))
            else:
                self.watch(record, lambda _record: queue.put(lambda: function(future)))

    def remember_name(self, record: FutureRecord) -> None:
        """Let graphs and other calls find a key by the name that somebody has seen."""
        with self.lock:
            if self._loop.core.records.get(record.key) is record:
                self._loop.core.by_name.setdefault(record.name, record)

    def tell_scheduler(self) -> None:
        """Let the scheduler know all tasks of now before it hears of their futures elsewhere."""
        self._loop.core.tell_scheduler()

    def drop(self, record: FutureRecord) -> None:
        """Note that a future of the record is gone; called by finalizers, so it takes no lock."""
        self._loop.drop(record)

    def _check_open(self) -> None:
        if self.status != "running":
            raise ClusterClosedError("The client is closed; make a new one with Client().")
        self._loop.check()

    def _workers(self) -> list[dict[str, Any]]:
        return self._loop.core.workers or []

    def next_rank(self, options: TaskOptions) -> Rank:
        """Return the worker whose turn it is to get a value, one that its task may run on."""
        workers: Sequence[Mapping[str, Any]] = self._workers()
        if options.workers or options.resources:
            workers = preferred_workers(workers, options) or workers
        if not workers:
            raise NoValidWorkerError(
                "The call has a large argument, which is sent to a worker, and all workers of this "
                "cluster are lost. The job's log says when and how; start the job again."
            )
        return int(workers[next(self._loop.turns) % len(workers)]["rank"])

    def _ranks(self, workers: Any) -> list[Rank]:
        if workers is None:
            return [worker["rank"] for worker in self._workers()]
        return find_ranks(self._workers(), workers)

    def _futures_in(self, value: Any) -> list[Future]:
        from mpicluster.client.collect import futures_of

        found = futures_of(value)
        for future in found:
            if future.client.loop is not self._loop:
                raise belongs_elsewhere(future._record)  # noqa: SLF001
        return found


def _run_callbacks(queue: SimpleQueue[Callable[[], Any] | None]) -> None:
    """Run users' callbacks one after the other; an exception in one is printed, no more."""
    import traceback

    while (callback := queue.get()) is not None:
        try:
            callback()
        except Exception:  # noqa: BLE001  (the next callback must run)
            traceback.print_exc()
        finally:
            del callback  # with the future that it was called for
