"""What do the handlers of the scheduler's core share?

The records, the outbox, and the few things that concern clients and workers alike.
"""

import math
from collections.abc import Callable
from typing import Any

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.errors import ProtocolError
from mpicluster.ids import ClientId, Rank
from mpicluster.scheduler import answers
from mpicluster.scheduler.client_attempts import ClientAttempts
from mpicluster.scheduler.coordination import Coordination, Reply
from mpicluster.scheduler.records import ClientRecord, SchedulerState
from mpicluster.scheduler.replication import Replication


class CoreBase:
    """The state of a scheduler's core and its outbox."""

    def __init__(self, config: Config, worker_ranks: list[Rank]) -> None:
        self.config = config
        self.state = SchedulerState(config)
        #: The workers that are not lost. A dict: each of thousands is looked up when it starts.
        self.worker_ranks: dict[Rank, None] = dict.fromkeys(worker_ranks)
        self.replication = Replication(self.state)
        self.coordination = Coordination()
        self.client_attempts = ClientAttempts()
        #: Set when all ranks are to leave; the loop ends once it is True.
        self.stopped = False
        self._stopping = False
        #: Worker ranks that have not stopped; some may not even have reported yet.
        self._running: dict[Rank, None] = dict.fromkeys(worker_ranks)
        self._waiting_clients: list[ClientId] = []
        self._outbox: dict[Rank, list[m.Message]] = {}
        self._handlers: dict[type[m.Message], Callable[[Rank, Any], None]] = {}
        self._next_balance = 0.0
        #: Since when each call of `outgoing` was told that there may be more messages.
        self._more_since = math.inf
        self._some_lost = False

    def receive(self, source: Rank, message: m.Message, now: float) -> None:
        """Take note of a message."""
        self.state.now = now
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(
                f"Rank {source} sent {type(message).__name__}, which a scheduler does not take."
            )
        handler(source, message)

    def _send(self, rank: Rank, message: m.Message) -> None:
        self._outbox.setdefault(rank, []).append(message)

    def _client(self, client: ClientId) -> ClientRecord:
        record = self.state.clients.get(client)
        if record is None:
            record = ClientRecord(client, alone=(client,))
            self.state.clients[client] = record
        return record

    def _reply(self, replies: list[Reply]) -> None:
        for client, request, body in replies:
            self._send(client, m.Answer(request, body))

    def _tell_started(self) -> None:
        """Answer the clients that wait for the cluster, once all workers have reported."""
        if not self._stopping and len(self.state.workers) == len(self.worker_ranks):
            started = m.ClusterStarted(answers.worker_descriptions(self.state))
            for client in self._waiting_clients:
                self._send(client, started)
            self._waiting_clients.clear()

    def _finish_stop(self) -> None:
        if self._stopping and not self._running:
            self.stopped = True
            for client in {*self._waiting_clients, *self.state.clients}:
                self._send(client, m.ClusterStopped())
