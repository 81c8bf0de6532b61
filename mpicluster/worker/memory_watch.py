"""How large are this rank and its slots, and who carries out what the policy decides?

Measures with /proc (proc(5), statm), asks `memory.decide`, spills, trims and ends slots.
"""

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from mpicluster.config import Config
from mpicluster.ids import NBytes
from mpicluster.worker.memory import Usage, decide
from mpicluster.worker.segments import PAGE
from mpicluster.worker.store import Store

#: A worker that is paused without tasks and values for this long will not go on by itself.
STUCK_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class EndedSlot:
    """A slot that was ended for its size, and the sentence that says so."""

    slot: int
    text: str


class MemoryWatch:
    """Watches the memory of one worker."""

    def __init__(self, config: Config, limit: NBytes, store: Store) -> None:
        self._config = config
        self._limit = limit
        self._store = store
        self._next = 0.0
        self._paused = False
        self._complained = False
        #: Since when the worker is paused for nothing but its own processes, and said so.
        self._stuck_since: float | None = None
        self._said_stuck = False
        self.usage = Usage(0, 0, 0, {})

    def is_due(self, now: float, busy: bool) -> bool:
        """Return whether it is time to measure; an idle worker hardly changes."""
        interval_s = self._config.memory_interval_s if busy else self._config.status_interval_s
        return now >= self._next or now + interval_s < self._next

    def is_tight(self) -> bool:
        """Return whether values must leave the memory."""
        return self._store.memory_nbytes > self._config.memory_target * self._limit

    def act(
        self, now: float, pids: dict[int, int], busy: bool = True
    ) -> tuple[bool, EndedSlot | None]:
        """Measure and do what is to be done; return whether to pause, and the slot that was ended.

        `pids` are the processes of the slots, `busy` is whether one of them runs a task.
        """
        self._next = now + self._config.memory_interval_s
        self.usage = Usage(
            stored=self._store.memory_nbytes,
            warm=self._store.arena.warm_nbytes,
            rank=private_nbytes(os.getpid()),
            slots={slot: private_nbytes(pid) for slot, pid in pids.items()},
        )
        decision = decide(self.usage, self._limit, self._config, self._paused)
        if decision.spill:
            self._spill(decision.spill)
        if decision.trim:
            self._store.arena.trim()
        self._paused = decision.paused
        self._say_if_stuck(now, busy)
        if decision.end_slot < 0:
            return self._paused, None
        return self._paused, self._end(decision.end_slot, pids[decision.end_slot])

    def _spill(self, nbytes: NBytes) -> None:
        try:
            self._store.spill(nbytes)
        except OSError as error:
            if not self._complained:
                self._complained = True
                print(
                    f"mpicluster: values cannot be moved to scratch: {error}. They stay in memory; "
                    "name another disk with --scratch.",
                    file=sys.stderr, flush=True,
                )  # fmt: skip

    def _say_if_stuck(self, now: float, busy: bool) -> None:
        """Say once that the worker is paused and that nothing it does will change that."""
        if not self._paused or busy or self.usage.stored:
            self._stuck_since = None
            return
        if self._stuck_since is None:
            self._stuck_since = now
        if self._said_stuck or now - self._stuck_since < STUCK_AFTER_S:
            return
        self._said_stuck = True
        used, limit = self.usage.total / 1e6, self._limit / 1e6
        print(
            f"mpicluster: a worker takes no tasks: its own processes ({len(self.usage.slots)} "
            f"slots) use {used:.0f} MB of its memory limit of {limit:.0f} MB, and it holds no "
            "values that could leave. Give it a larger --memory-limit or fewer slots.",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def _end(self, slot: int, pid: int) -> EndedSlot:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        size, limit = self.usage.slots[slot] / 1e9, self._limit / 1e9
        return EndedSlot(
            slot,
            f"its process had grown to {size:.2f} GB, so that the worker with its {limit:.2f} GB "
            "was about to run out of memory, and was ended; give the task smaller pieces, or the "
            "worker fewer slots or a larger --memory-limit",
        )


def private_nbytes(pid: int) -> NBytes:
    """Return the resident memory of a process without what it shares, 0 if it is gone."""
    try:
        words = Path(f"/proc/{pid}/statm").read_bytes().split()
    except OSError:
        return 0
    return (int(words[1]) - int(words[2])) * PAGE
