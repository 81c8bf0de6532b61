"""How do tests of the pure cores build a situation and look at what follows?

By intent: workers and tasks by name, one event, then every message that leaves must be taken by
the test; one that it did not name is a failure.
"""

from collections.abc import Sequence
from typing import TypeVar

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.ids import SCHEDULER_RANK, Key, Rank, first_number
from mpicluster.messages import TaskOptions
from mpicluster.scheduler import checks
from mpicluster.scheduler.core import SchedulerCore
from mpicluster.scheduler.records import TaskRecord

CLIENT = 1
OTHER_CLIENT = 2
FIRST_WORKER = 3
#: Larger than what is pushed to clients.
NBYTES = 10_000

M = TypeVar("M", bound=m.Message)


class SchedulerEnvironment:
    """A scheduler core with clients and workers that say what the test lets them say."""

    def __init__(self, workers: int = 1, slots: int = 1, **settings: object) -> None:
        config = Config().update(settings, "a test")
        self.ranks = list(range(FIRST_WORKER, FIRST_WORKER + workers))
        self.core = SchedulerCore(config, self.ranks)
        self.now = 0.0
        self.keys: dict[str, Key] = {}
        self.sent: list[tuple[Rank, m.Message]] = []
        for client in (CLIENT, OTHER_CLIENT):
            self.core.receive(client, m.ClientStarted({}), 0.0)
        self.core.receive(CLIENT, m.DefineFunctions([1], ["f"], [b"code"]), 0.0)
        for rank in self.ranks:
            description = {"slots": slots, "resources": {"GPU": 1.0} if rank == 3 else {}}
            self.core.receive(rank, m.WorkerStarted(description), 0.0)
        self.core.outgoing(0.0)

    # --- events ---

    def say(self, source: Rank, *messages: m.Message, decide: bool = True) -> None:
        """Let a rank send messages; then the scheduler decides."""
        for message in messages:
            self.core.receive(source, message, self.now)
            checks.check_state(self.core.state, decided=False)
        if decide:
            self.decide()

    def decide(self) -> None:
        """Let the scheduler decide, and check its records."""
        for rank, bundle in self.core.outgoing(self.now):
            self.sent += [(rank, message) for message in bundle]
        checks.check_state(self.core.state)

    def key(self, name: str) -> Key:
        """Return the key of a name."""
        return self.keys.setdefault(name, first_number(CLIENT) + 1 + len(self.keys))

    def submit(
        self, *names: str, needs: Sequence[str] = (), wanted: bool = True, graph: int = 0,
        options: TaskOptions | None = None,
    ) -> None:  # fmt: skip
        """Submit tasks that all need the same inputs."""
        inputs = [self.key(name) for name in needs]
        count = len(names)
        self.say(CLIENT, m.SubmitTasks(
            [self.key(name) for name in names], [1] * count, [b""] * count, [inputs] * count,
            bytes([wanted]) * count, options.to_columns() if options else None, graph,
        ))  # fmt: skip
        self.take(CLIENT, m.TasksAccepted, optional=True)

    def finish(self, name: str, rank: Rank, attempt: int = 1, frees_seen: int = 0) -> None:
        """Let a worker report a finished task."""
        self.say(rank, m.TasksFinished([self.key(name)], [attempt], [NBYTES], [0.1], frees_seen))

    def have(self, *names: str, rank: Rank = FIRST_WORKER) -> None:
        """Put values of tasks that the client wants on a worker."""
        for name in names:
            self.submit(name, options=TaskOptions(workers=(rank,)))
            self.take(rank, m.DefineFunctions, optional=True)
            assert self.take(rank, m.ComputeTasks).keys == [self.key(name)]
            self.finish(name, rank)
            assert self.take(CLIENT, m.KeysFinished).keys == [self.key(name)]

    def lose(self, rank: Rank) -> None:
        """Let a worker be lost; everybody is told."""
        self.say(SCHEDULER_RANK, m.WorkerLost(rank, "a test"))
        others = [other for other in self.ranks if other in self.core.state.workers]
        for peer in (CLIENT, OTHER_CLIENT, *others):
            assert self.take(peer, m.WorkerLost).rank == rank

    # --- what follows ---

    def take(self, rank: Rank, kind: type[M], *, optional: bool = False) -> M:
        """Return the first message of a kind to a rank, which must have been sent."""
        for number, (target, message) in enumerate(self.sent):
            if target == rank and isinstance(message, kind):
                del self.sent[number]
                return message
        if optional:
            return None  # type: ignore[return-value]
        raise AssertionError(f"no {kind.__name__} to {rank}, but {self.sent}")

    def nothing_left(self) -> None:
        """Fail if a message was sent that the test did not take."""
        self.sent = [
            (rank, message) for rank, message in self.sent
            if not isinstance(message, m.DefineFunctions)
        ]  # fmt: skip
        assert not self.sent, f"not expected: {self.sent}"

    def task(self, name: str) -> TaskRecord:
        """Return the record of a task."""
        return self.core.state.tasks[self.key(name)]

    def known(self, name: str) -> bool:
        """Return whether the scheduler has a record of a task."""
        return self.key(name) in self.core.state.tasks
