"""What do scheduler, client and MPI cost without slots? Workers that answer at once.

As in the papers on RSDS and HyperQueue: a worker says at once that a task is done, computes
nothing, fetches nothing, and gives `None` for every result that the client wants.
"""

import os
import pickle
import platform
import time
from typing import Final, NoReturn

from mpicluster import messages as m
from mpicluster.cluster import roles
from mpicluster.cluster.base import set_current_job
from mpicluster.cluster.job import Job, JobOptions
from mpicluster.cluster.leaving import leave_mpi
from mpicluster.config import Config
from mpicluster.errors import WorldError
from mpicluster.ids import (
    CLIENT_ATTEMPT,
    CLIENT_RANK,
    FIRST_WORKER_RANK,
    SCHEDULER_RANK,
    ClientId,
    Rank,
)
from mpicluster.scheduler.loop import SchedulerLoop
from mpicluster.transport.base import Transport
from mpicluster.transport.mpi import MPITransport, connect
from mpicluster.transport.waiting import Ladder
from mpicluster.versions import local_versions

#: What every task returns.
VALUE: Final = pickle.dumps(None, 5)
TASK_S: Final = 1e-6
MEMORY_LIMIT: Final = 1 << 30


def start_without_slots(options: JobOptions) -> Job:  # noqa: RET503  (_leave does not return)
    """Play this rank's role; returns on rank 1, the other ranks leave the program here."""
    promise = roles.read_promise(os.environ)
    if promise is None or promise.size <= FIRST_WORKER_RANK:
        raise WorldError("Workers that answer at once need the ranks of a job: -n 3 or more.")
    config = Config.load(options.settings)
    transport = connect(config)
    roles.check_world(transport.size, promise, transport.library)
    info = {"host": platform.node(), "versions": local_versions()}
    infos = transport.exchange(info)
    if transport.rank == CLIENT_RANK:
        job = Job(transport, config, infos)
        set_current_job(job)
        return job
    if transport.rank == SCHEDULER_RANK:
        ranks = list(range(FIRST_WORKER_RANK, transport.size))
        SchedulerLoop(transport, config, ranks).run(freeze=True)
    else:
        ZeroWorker(transport, config).run()
    _leave(transport, config)


def _leave(transport: MPITransport, config: Config) -> NoReturn:
    leave_mpi(transport, config, 0)
    raise SystemExit(0)


class ZeroWorker:
    """A worker's rank without slots and without a store."""

    def __init__(self, transport: Transport, config: Config) -> None:
        self.transport = transport
        self.ladder = Ladder(config, transport)
        self.stopped = False

    def run(self) -> None:
        """Answer until the scheduler says that all is over."""
        description = {
            "host": platform.node(), "pid": os.getpid(), "slots": 1, "memory_limit": MEMORY_LIMIT,
            "resources": {}, "versions": local_versions(),
        }  # fmt: skip
        self.transport.send(SCHEDULER_RANK, [m.WorkerStarted(description)])
        while not self.stopped:
            now, received = time.monotonic(), self.transport.receive()
            for _, messages in received:
                self._answer(messages)
            if received:
                self.ladder.traffic(now)
            else:
                self.ladder.pause(now, None)
        self.ladder.close()

    def _answer(self, messages: list[m.Message]) -> None:
        done: list[m.Message] = []
        pushed: dict[ClientId, m.ValuesPushed] = {}
        for message in messages:
            if isinstance(message, m.ComputeTasks):
                count = len(message.keys)
                own = message.attempts[0] == CLIENT_ATTEMPT  # alone, and its client tells
                if not own:
                    done.append(m.TasksFinished(
                        message.keys, message.attempts, [len(VALUE)] * count, [TASK_S] * count
                    ))  # fmt: skip
                for key, client in zip(message.keys, message.push_to, strict=True):
                    if client:
                        found = pushed.setdefault(client, m.ValuesPushed([], []))
                        found.keys.append(key)
                        found.values.append(VALUE)
                        if own:
                            found.to_tell.append([key, len(VALUE), TASK_S])
            elif isinstance(message, m.StealTasks):
                done.append(m.TasksYielded([], [], message.keys))
            elif isinstance(message, m.StopWorker):
                done.append(m.WorkerStopped())
                self.stopped = True
        target: Rank
        for target, values in pushed.items():
            self.transport.send(target, [values])
        if done:
            self.transport.send(SCHEDULER_RANK, done)
