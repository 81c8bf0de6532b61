"""What has a client done of which the scheduler has not heard?

Tasks that it has sent to workers itself, their ends, and futures that it has let go. The scheduler
need not know these at once, and hears of a few of them together: its work would only take the time
of the others on their cores.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

from mpicluster import messages as m
from mpicluster.ids import CLIENT_ATTEMPT, Key, Rank

#: It is told after so long, in seconds, or with what the scheduler must know.
UNHURRIED_S: Final = 0.001


class Untold:
    """Gathers it in as few messages as possible."""

    def __init__(self) -> None:
        self._sent: list[m.SubmitTasks] = []
        self._ended: list[m.TasksFinished] = []
        self._released: list[Key] = []
        #: When it is to be told at the latest; before that nothing is to be told.
        self.deadline = math.inf

    def __len__(self) -> int:
        return len(self._sent) + len(self._ended) + bool(self._released)

    def sent(self, task: m.SubmitTasks, now: float) -> bool:
        """Note a task that has been sent to a worker; return whether it makes a further message."""
        self._begin(now)
        if self._sent and self._sent[-1].placed_on == task.placed_on:
            last = self._sent[-1]
            last.keys += task.keys
            last.functions += task.functions
            last.payloads += task.payloads
            last.wanted += task.wanted
            return False
        self._sent.append(task)
        return True

    def ended(self, worker: Rank, rows: Iterable[list[Any]], now: float) -> None:
        """Note which of these tasks have ended: rows (key, size, seconds)."""
        self._begin(now)
        if not self._ended or self._ended[-1].worker != worker:
            self._ended.append(m.TasksFinished([], [], [], [], worker=worker))
        last = self._ended[-1]
        for key, nbytes, duration_s in rows:
            last.keys.append(key)
            last.attempts.append(CLIENT_ATTEMPT)
            last.sizes.append(nbytes)
            last.durations.append(duration_s)

    def released(self, keys: list[Key], now: float) -> None:
        """Note which futures are gone."""
        self._begin(now)
        self._released += keys

    def _begin(self, now: float) -> None:
        self.deadline = min(self.deadline, now + UNHURRIED_S)

    def hurry(self) -> None:
        """Let everything be told the next time."""
        self.deadline = -math.inf

    def take(self) -> list[m.Message]:
        """Return what is to be told, a task before its end and that before its release."""
        told: list[m.Message] = [*self._sent, *self._ended]
        if self._released:
            told.append(m.ReleaseKeys(self._released))
        self._sent, self._ended, self._released = [], [], []
        self.deadline = math.inf
        return told
