"""When does a client send a task to a worker itself?

When it waits for no other task, as in `submit(...).result()` in a loop: then the worker that made
its last value most likely has nothing to do, and the way through the scheduler takes longer than
such a task. The scheduler is told a little later (`untold.py`), and keeps the task like any other.
A worker that cannot begin at once gives the task to the scheduler.
"""

from mpicluster import messages as m
from mpicluster.ids import CLIENT_ATTEMPT, SLOT_CLIENTS, ClientId, FunctionId, Key, Rank


class Placing:
    """What a client knows of the workers that have run its last tasks."""

    def __init__(self, client: ClientId) -> None:
        self._client = client
        #: {worker: {function: None}} of what workers have run for this client alone.
        self._known: dict[Rank, dict[FunctionId, None]] = {}
        #: The worker that has pushed the last value.
        self._last = -1
        #: The task that was submitted last, if it was alone and has not ended, and its function.
        self._alone: tuple[Key, FunctionId] | None = None
        #: The next task goes through the scheduler, whatever it is.
        self._paused = False

    def place(self, message: m.SubmitTasks) -> tuple[Rank, m.ComputeTasks] | None:
        """Return which worker is sent a task, and with what; `message` says so from then on.

        Called for every `SubmitTasks` that leaves while no other task of the client is pending.
        """
        if len(message.keys) > 1 or message.dependencies or message.options or message.graph:
            return None
        (key,), (function,) = message.keys, message.functions
        by_scheduler = self._paused or self._alone is not None or self._client >= SLOT_CLIENTS
        self._paused, self._alone = False, (key, function)
        if by_scheduler or function not in self._known.get(self._last, ()):
            return None
        message.placed_on = self._last
        # Priorities are unique; the scheduler's are far from the numbers of keys.
        return self._last, m.ComputeTasks(
            [key], [CLIENT_ATTEMPT], [function], [key], message.payloads[:], [self._client], [], []
        )

    def pushed(self, worker: Rank, keys: list[Key]) -> None:
        """Note which worker has made values."""
        self._last = worker
        if self._alone is not None and self._alone[0] in keys:
            self._known.setdefault(worker, {})[self._alone[1]] = None
            self._alone = None

    def told_by_scheduler(self, keys: list[Key]) -> None:
        """Note that values were not pushed: they are large, or there are none.

        The scheduler must know such tasks at once, or the client hears of their end too late.
        """
        if self._alone is not None and self._alone[0] in keys:
            for known in self._known.values():
                known.pop(self._alone[1], None)
            self._alone = None

    def pause(self) -> None:
        """Let the next task go through the scheduler."""
        self._paused = True

    def worker_lost(self, worker: Rank) -> None:
        """Send nothing to a worker any more."""
        self._known.pop(worker, None)
