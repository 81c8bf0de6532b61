"""What does the client do with a message?

Keeps the futures' states and the order of what goes to the scheduler. No clock, no I/O, no
threads; the loop calls it under its lock.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from mpicluster import messages as m
from mpicluster.client.placing import Placing
from mpicluster.client.records import CANCELLED, ERROR, FINISHED, PENDING, FutureRecord
from mpicluster.client.untold import Untold
from mpicluster.config import Config
from mpicluster.errors import ProtocolError
from mpicluster.ids import CONNECTION_SHIFT, SCHEDULER_RANK, ClientId, Key, Rank, first_number
from mpicluster.load import Load


class ClientCore:
    """A client without its surroundings."""

    def __init__(self, config: Config, client: ClientId, connection: int = 0) -> None:
        self.config = config
        self.client = client
        #: {key: record} of all keys with a future.
        self.records: dict[Key, FutureRecord] = {}
        #: {name: record} of keys that users or graphs have named.
        self.by_name: dict[Hashable, FutureRecord] = {}
        #: {token: record} of pure calls.
        self.by_token: dict[Any, FutureRecord] = {}
        #: One description per worker, once the cluster has started.
        self.workers: list[dict[str, Any]] | None = None
        #: {request: body} of answers that nobody has taken.
        self.answers: dict[int, Any] = {}
        self.lost_workers: dict[Rank, str] = {}
        self.stopped = False
        #: `SubmitTasks` messages that may be sent before the scheduler accepts more.
        self.credits = config.submit_credits
        #: Keys in `records` that are pending.
        self._unfinished = 0
        #: Slots of all workers.
        self._slots = 0
        # Each of a process's connections has numbers of its own, so that a future of one cluster
        # is nothing that another one knows.
        self._next_number = first_number(client) + (connection << CONNECTION_SHIFT) + 1
        #: What goes to the scheduler, in this order.
        self._to_scheduler: deque[m.Message] = deque()
        self._to_workers: dict[Rank, list[m.Message]] = {}
        self._released: list[Key] = []
        self._placing = Placing(client)
        self._untold = Untold()
        self._handlers: dict[type[m.Message], Callable[[Any], None]] = {
            m.ClusterStarted: self._on_cluster_started,
            m.TasksAccepted: self._on_tasks_accepted,
            m.KeysFinished: self._on_keys_finished,
            m.KeysErred: self._on_keys_erred,
            m.KeysCancelled: self._on_keys_cancelled,
            m.Answer: self._on_answer,
            m.ValuesPushed: self._on_values_pushed,
            m.WorkerLost: self._on_worker_lost,
            m.ClusterStopped: self._on_cluster_stopped,
        }

    # --- the contract of a core ---

    def receive(self, source: Rank, message: m.Message, now: float) -> None:
        """Take note of a message."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(
                f"Rank {source} sent {type(message).__name__}, which a client does not take."
            )
        if isinstance(message, m.ValuesPushed):
            self._placing.pushed(source, message.keys)
            if message.to_tell:
                self._untold.ended(source, message.to_tell, now)
        elif isinstance(message, m.KeysFinished | m.KeysErred):
            self._placing.told_by_scheduler(message.keys)
        handler(message)

    def outgoing(self, now: float) -> list[tuple[Rank, list[m.Message]]]:
        """Return what to send: as many tasks as there are credits, nothing out of order."""
        if self._released:
            self._to_scheduler.append(m.ReleaseKeys(self._released))
            self._released = []
        outgoing: list[tuple[Rank, list[m.Message]]] = []
        bundle: list[m.Message] = []
        queue, untold = self._to_scheduler, self._untold
        while queue:
            message = queue[0]
            placed = None
            if isinstance(message, m.SubmitTasks):
                if not self.credits:
                    break
                if self._unfinished == 1 and message.keys[0] in self.records:
                    placed = self._placing.place(message)
                if placed is None or untold.sent(message, now):
                    self.credits -= 1
            queue.popleft()
            if placed is not None:
                outgoing.append((placed[0], [placed[1]]))
            elif isinstance(message, m.ReleaseKeys):
                untold.released(message.keys, now)
            else:
                bundle += untold.take()
                bundle.append(message)
                untold.hurry()  # what may follow goes with it
        if now >= untold.deadline:
            bundle += untold.take()
        if bundle:
            outgoing.append((SCHEDULER_RANK, bundle))
        if self._to_workers:
            outgoing += self._to_workers.items()
            self._to_workers = {}
        return outgoing

    def next_deadline(self) -> float | None:
        """Return when to be called again if nothing arrives; None: not before a message."""
        return self._untold.deadline if len(self._untold) else None

    def hurry(self) -> None:
        """Send everything the next time."""
        self._untold.hurry()

    def tell_scheduler(self) -> None:
        """Let the scheduler know all that has been submitted before whatever is submitted next."""
        self.hurry()
        self._placing.pause()

    @property
    def load(self) -> Load:
        """How much the slots have to do with the tasks of this client."""
        if self._unfinished > self._slots:
            return Load.FULL
        return Load.SOME if self._unfinished else Load.NONE

    @property
    def backlog(self) -> int:
        """How many messages have not been sent."""
        return len(self._to_scheduler) + len(self._untold)

    # --- requests of the client's methods ---

    def next_number(self) -> int:
        """Return a number that has not been used for a key, a function or a request."""
        self._next_number += 1
        return self._next_number

    def to_scheduler(self, message: m.Message) -> None:
        """Queue a message for the scheduler, behind all that was queued before."""
        if self._released and not isinstance(message, m.ReleaseKeys):
            self._to_scheduler.append(m.ReleaseKeys(self._released))
            self._released = []
        self._to_scheduler.append(message)

    def to_worker(self, rank: Rank, message: m.Message) -> None:
        """Queue a message for a worker."""
        self._to_workers.setdefault(rank, []).append(message)

    def ask(self, question: str, arguments: Iterable[Any] = ()) -> int:
        """Ask the scheduler; return the request number under which the answer will be."""
        request = self.next_number()
        self.to_scheduler(m.AskScheduler(request, question, list(arguments)))
        return request

    def add(self, record: FutureRecord, *, named: bool) -> None:
        """Remember a new key."""
        self.records[record.key] = record
        self._unfinished += 1
        if named:
            self.by_name[record.name] = record
        elif record.token is not None:
            self.by_token[record.token] = record

    def drop_reference(self, record: FutureRecord) -> None:
        """One future less; with the last one the key is released."""
        record.references -= 1
        if record.references <= 0 and self.records.get(record.key) is record:
            self._forget(record)
            self._released.append(record.key)

    def cancel(self, record: FutureRecord) -> None:
        """Give a key up at once; equal calls are new tasks from now on."""
        if self.records.get(record.key) is record:
            self._forget(record)
        record.value = None
        record.status = PENDING
        self._end(record, CANCELLED)

    def _forget(self, record: FutureRecord) -> None:
        del self.records[record.key]
        if record.status is PENDING:
            self._unfinished -= 1
        name = record._name  # noqa: SLF001  (a name that was never made is no key)
        if self.by_name.get(name) is record:
            del self.by_name[name]
        if record.token is not None and self.by_token.get(record.token) is record:
            del self.by_token[record.token]

    # --- messages ---

    def _end(self, record: FutureRecord, status: str) -> None:
        """Give a record its final status."""
        if record.status is not PENDING:
            return
        record.status = status
        if self.records.get(record.key) is record:
            self._unfinished -= 1
        callbacks, record.callbacks = record.callbacks, None
        for callback in callbacks or ():
            callback(record)

    def _on_cluster_started(self, message: m.ClusterStarted) -> None:
        self.workers = message.workers
        self._count_slots()

    def _on_tasks_accepted(self, message: m.TasksAccepted) -> None:
        self.credits += message.messages

    def _on_keys_finished(self, message: m.KeysFinished) -> None:
        for key, nbytes, rank in zip(message.keys, message.sizes, message.ranks, strict=True):
            record = self.records.get(key)
            if record is not None:
                record.nbytes, record.rank = nbytes, rank
                if record.status is PENDING:
                    self._end(record, FINISHED)

    def _on_values_pushed(self, message: m.ValuesPushed) -> None:
        for key, value in zip(message.keys, message.values, strict=True):
            record = self.records.get(key)
            if record is not None:
                record.value = value
                if record.status is PENDING:
                    self._end(record, FINISHED)

    def _on_keys_erred(self, message: m.KeysErred) -> None:
        for key in message.keys:
            record = self.records.get(key)
            if record is not None:
                record.error = message.error
                self._end(record, ERROR)

    def _on_keys_cancelled(self, message: m.KeysCancelled) -> None:
        for key in message.keys:
            record = self.records.get(key)
            if record is not None:
                self.cancel(record)
                # A wish for it may have been on its way when the scheduler said this.
                self._released.append(key)

    def _on_answer(self, message: m.Answer) -> None:
        self.answers[message.request] = message.body

    def _on_worker_lost(self, message: m.WorkerLost) -> None:
        self.lost_workers[message.rank] = message.reason
        self._placing.worker_lost(message.rank)
        self.hurry()  # of what was sent there only the scheduler can tell what becomes of it
        if self.workers is not None:
            self.workers = [w for w in self.workers if w["rank"] != message.rank]
            self._count_slots()

    def _count_slots(self) -> None:
        self._slots = sum(worker["slots"] for worker in self.workers or ())

    def _on_cluster_stopped(self, _message: m.ClusterStopped) -> None:
        self.stopped = True
        for record in list(self.records.values()):
            self._end(record, CANCELLED)
