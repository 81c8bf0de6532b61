"""What does the scheduler's rank run?

The same short shape as the other loops: take all that has arrived, let the core decide, send,
pause.
"""

import gc
import sys
import time
from collections.abc import Callable

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.errors import LostRankError
from mpicluster.ids import CLIENT_RANK, SCHEDULER_RANK, SLOT_CLIENTS, Rank, rank_of_client
from mpicluster.scheduler.core import SchedulerCore
from mpicluster.transport.base import Transport
from mpicluster.transport.silence import Silence
from mpicluster.transport.waiting import Ladder


class SchedulerLoop:
    """The scheduler: transport and core."""

    def __init__(self, transport: Transport, config: Config, worker_ranks: list[Rank]) -> None:
        self.transport = transport
        self.core = SchedulerCore(config, worker_ranks)
        self.ladder = Ladder(config, transport)
        self._silence = Silence(config) if config.survive == "ranks" else None
        #: Tells whether the process of rank 1 has ended, as far as somebody here can know.
        self.script_is_gone: Callable[[], bool] = bool

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
            self._lose(rank, "MPI reports that its process has failed", now)
        if self._silence is not None and self._silence.is_due(now):
            self._look_for_silent(self._silence, now)
        for target, bundle in core.outgoing(now, more=not self.transport.drained):
            busy = True
            if target < SLOT_CLIENTS:
                self.transport.send(target, bundle)
            else:
                relay = m.RelayToClient(target, m.encode_bundle(bundle))
                self.transport.send(rank_of_client(target), [relay])
        if busy:
            self.ladder.traffic(now)
        self.ladder.pause(now, core.next_deadline(), load=core.load)

    def _look_for_silent(self, silence: Silence, now: float) -> None:
        """Give a sign of life, and give up the workers that have given none for too long."""
        core = self.core
        if self.script_is_gone():
            raise LostRankError(CLIENT_RANK, "its process has ended")
        signs = core.signs_of_life()
        for rank in signs:
            self.transport.send(rank, [m.SchedulerStatus()])
        for rank, silent_s in silence.look(now, signs).items():
            if silent_s > core.patience_s(rank):
                self._lose(rank, f"nothing has been heard from it for {silent_s:.0f} s", now)

    def _lose(self, rank: Rank, reason: str, now: float) -> None:
        """Go on without a worker, and say so; without the script there is nothing to go on with."""
        core = self.core
        if rank == CLIENT_RANK:
            raise LostRankError(rank, reason)
        if rank not in core.worker_ranks:
            return
        worker = core.state.workers.get(rank)
        host = f" on {worker.host}" if worker is not None else ""
        lost = m.WorkerLost(rank, reason)
        core.receive(SCHEDULER_RANK, lost, now)
        print(
            f"mpicluster: worker rank {rank}{host} is lost: {reason}. "
            f"{len(core.worker_ranks)} workers are left.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        # It may live and only have been slow: then this is its order to leave.
        self.transport.send(rank, [lost])
        self.transport.lose(rank)
