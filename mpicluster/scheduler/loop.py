"""What does the scheduler's rank run?

The same short shape as the other loops: take all that has arrived, let the core decide, send,
pause.
"""

import gc
import time

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.ids import SCHEDULER_RANK, SLOT_CLIENTS, Rank, rank_of_client
from mpicluster.scheduler.core import SchedulerCore
from mpicluster.transport.base import Transport
from mpicluster.transport.waiting import Ladder


class SchedulerLoop:
    """The scheduler: transport and core."""

    def __init__(self, transport: Transport, config: Config, worker_ranks: list[Rank]) -> None:
        self.transport = transport
        self.core = SchedulerCore(config, worker_ranks)
        self.ladder = Ladder(config, transport.wake_fd, transport.arrived)

    def run(self, freeze: bool = False) -> None:
        """Schedule until the client says that all is over.

        With `freeze` the garbage collector is switched off: the records form no cycles, and a
        collection would walk over all of them.
        """
        if freeze:
            gc.collect()
            gc.freeze()
            gc.disable()
        while not self.core.stopped:
            self._turn()
        self.ladder.close()

    def _turn(self) -> None:
        now, core = time.monotonic(), self.core
        busy = False
        for source, messages in self.transport.receive():
            for message in messages:
                if isinstance(message, m.RelayToScheduler):
                    busy = True
                    for relayed in m.decode_bundle(message.bundle):
                        core.receive(message.client, relayed, now)
                    continue
                # Signs of life are no traffic: an idle cluster must come to rest.
                busy = busy or not isinstance(message, m.WorkerStatus)
                core.receive(source, message, now)
        for rank in self.transport.lost_ranks():
            core.receive(SCHEDULER_RANK, m.WorkerLost(rank, "its process is gone"), now)
        for target, bundle in core.outgoing(now):
            busy = True
            if target < SLOT_CLIENTS:
                self.transport.send(target, bundle)
            else:
                relay = m.RelayToClient(target, m.encode_bundle(bundle))
                self.transport.send(rank_of_client(target), [relay])
        if busy:
            self.ladder.traffic(now)
        else:
            self.ladder.pause(now, core.next_deadline(), working=core.working)
