"""How often was each task executed, and how often was that right?"""

from collections import Counter

from mpicluster.ids import Key, Rank
from mpicluster.scheduler.records import SchedulerState, TaskState


class Tally:
    """Counts executions, and what permits them."""

    def __init__(self) -> None:
        self.executions: Counter[Key] = Counter()
        #: Attempts given up, values lost, slots ended: each permits one more execution.
        self.allowed: Counter[Key] = Counter()
        self.causes: Counter[str] = Counter()
        #: {key: where it was executed last}.
        self.last_rank: dict[Key, Rank] = {}
        self._read = 0

    def read(self, state: SchedulerState) -> None:
        """Take in the scheduler's history since the last call."""
        history = state.history
        for _, cause, key, old, new in list(history)[self._read :]:
            self.causes[cause] += 1
            # What is stolen has not been started, so it permits nothing.
            given_up = old is TaskState.PROCESSING and new is not TaskState.MEMORY
            given_up = given_up and cause != "stolen"
            if given_up or old is TaskState.MEMORY or cause == "copy found":
                self.allowed[key] += 1
        self._read = len(history)

    def executed(self, key: Key, rank: Rank) -> None:
        """Count an execution; one that nothing permits is an error."""
        self.executions[key] += 1
        self.last_rank[key] = rank
        assert self.executions[key] <= 1 + self.allowed[key], (
            f"key {key} is executed {self.executions[key]} times, now on rank {rank}, though only "
            f"{self.allowed[key]} attempts were given up"
        )
