"""Which tasks have clients sent to workers themselves?

A client tells the scheduler a little later (`client/placing.py`), and MPI keeps the order only
between two ranks: the worker's report of the task may come first, and then waits here. So that it
is not taken for one of a task that is over, each such attempt is reported exactly once, by the
worker or by the client (`worker/reports.py`), even if it is given up meanwhile. Nothing waits for
ever: a client tells of all before it leaves.
"""

from mpicluster import messages as m
from mpicluster.ids import Key, Rank


class ClientAttempts:
    """The attempts whose beginning or whose end has not been told yet."""

    def __init__(self) -> None:
        #: {key: worker} of those whose end has not been reported.
        self.running: dict[Key, Rank] = {}
        #: {key: (worker, its report)} of those of which the client has not told.
        self.early: dict[Key, tuple[Rank, m.Message]] = {}

    def begin(self, key: Key, worker: Rank) -> m.Message | None:
        """A client has sent this task to a worker; return the report if it is here already."""
        self.running[key] = worker
        _, report = self.early.pop(key, (worker, None))
        return report

    def is_early(self, key: Key, worker: Rank, report: m.Message) -> bool:
        """Return whether a report of an attempt must wait until the client has told of it."""
        if self.running.pop(key, None) is not None:
            return False
        self.early[key] = (worker, report)
        return True

    def worker_lost(self, worker: Rank) -> None:
        """Forget what is or was on a worker."""
        self.running = {key: rank for key, rank in self.running.items() if rank != worker}
        self.early = {key: found for key, found in self.early.items() if found[0] != worker}
