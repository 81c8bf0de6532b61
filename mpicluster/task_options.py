"""What does a user ask for a task beyond its function and arguments?"""

from dataclasses import dataclass
from typing import Any, Final

from mpicluster.ids import Rank


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a user asks for a task beyond its function and arguments."""

    #: Ranks that may run it; empty: all.
    workers: tuple[Rank, ...] = ()
    #: The ranks above are only a wish.
    allow_other_workers: bool = False
    #: Abstract resources it holds while it runs, as (name, amount).
    resources: tuple[tuple[str, float], ...] = ()
    #: How often it is run again after an exception.
    retries: int = 0
    #: Larger runs earlier.
    priority: int = 0

    def to_columns(self) -> list[Any] | None:
        """Return the form that `SubmitTasks.options` carries; None says that all is default."""
        if self == NO_OPTIONS:
            return None
        return [
            list(self.workers),
            self.allow_other_workers,
            [list(pair) for pair in self.resources],
            self.retries,
            self.priority,
        ]

    @classmethod
    def from_columns(cls, columns: list[Any] | None) -> "TaskOptions":
        """Return the options that `to_columns` wrote."""
        if columns is None:
            return NO_OPTIONS
        workers, allow_other_workers, resources, retries, priority = columns
        pairs = tuple((name, amount) for name, amount in resources)
        return cls(tuple(workers), allow_other_workers, pairs, retries, priority)


NO_OPTIONS: Final = TaskOptions()
