"""How large are this rank and its slots, and who carries out what the policy decides?

Measures with /proc (proc(5), statm), asks `memory.decide`, spills, trims and ends slots.
"""

import contextlib
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpicluster.config import Config
from mpicluster.ids import NBytes
from mpicluster.worker.memory import RESUME_MARGIN, Usage, decide
from mpicluster.worker.segments import PAGE
from mpicluster.worker.store import Store

#: Measuring may take this share of the time.
MEASURE_SHARE = 0.05
#: A paused worker whose tasks all wait for others goes on after this time, in seconds.
GO_ON_AFTER_S = 0.5
_OWN = re.compile(rb"Pss_Anon:\s+(\d+)")
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
        self._last = -math.inf
        #: How long not to measure again, since that takes time.
        self._rest_s = 0.0
        self._paused = False
        self._complained = False
        #: Since when the worker is paused for nothing but its own processes, and said so.
        self._stuck_since: float | None = None
        self._said_stuck = False
        #: Since when tasks here do nothing but wait for others.
        self._waits_since = math.inf
        self.usage = Usage(0, 0, 0, {})

    def is_due(self, now: float, busy: bool) -> bool:
        """Return whether it is time to measure; an idle worker hardly changes."""
        interval_s = self._config.memory_interval_s if busy else self._config.status_interval_s
        return now >= self._last + max(interval_s, self._rest_s)

    def is_tight(self) -> bool:
        """Return whether values must leave the memory."""
        return self._store.memory_nbytes > self._config.memory_target * self._limit

    def act(
        self, now: float, pids: dict[int, int], busy: bool = True, waiting: bool = False
    ) -> tuple[bool, EndedSlot | None]:
        """Measure and do what is to be done; return whether to pause, and the slot that was ended.

        `pids` are the processes of the slots, `busy` is whether one of them runs a task, `waiting`
        whether one has a task that waits for others.
        """
        started = time.perf_counter()
        self.usage = self._measure(pids, resident_nbytes)
        if self.usage.total > (self._config.memory_pause - RESUME_MARGIN) * self._limit:
            # Slots share with each other what they have not changed since they were forked.
            self.usage = self._measure(pids, own_nbytes)
        self._last = now
        self._rest_s = (time.perf_counter() - started) / MEASURE_SHARE
        decision = decide(self.usage, self._limit, self._config, self._paused)
        if decision.spill:
            self._spill(decision.spill)
        if decision.trim:
            self._store.arena.trim()
        self._paused = decision.paused and not self._holds_up(now, busy, waiting)
        self._say_if_stuck(now, busy or waiting)
        if decision.end_slot < 0:
            return self._paused, None
        return self._paused, self._end(decision.end_slot, pids[decision.end_slot])

    def _measure(self, pids: dict[int, int], measure: Callable[[int], NBytes]) -> Usage:
        return Usage(
            stored=self._store.memory_nbytes,
            warm=self._store.arena.warm_nbytes,
            rank=measure(os.getpid()),
            slots={slot: measure(pid) for slot, pid in pids.items()},
        )

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

    def _holds_up(self, now: float, busy: bool, waiting: bool) -> bool:
        """Return whether all tasks here have waited for a while, perhaps for some that this worker
        would have to take: then it does, whatever is in use.
        """
        if busy or not waiting:
            self._waits_since = math.inf
            return False
        self._waits_since = min(self._waits_since, now)
        return now - self._waits_since >= GO_ON_AFTER_S

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


def own_nbytes(pid: int) -> NBytes:
    """Return the memory of a process, with its share of what it has in common with others.

    Without files and the arena; 0 if the process is gone. The kernel walks over all pages for it
    (proc(5), smaps_rollup), which takes a millisecond and more.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return resident_nbytes(pid)
    found = _OWN.search(text)
    return int(found[1]) * 1024 if found else resident_nbytes(pid)


def resident_nbytes(pid: int) -> NBytes:
    """Return the resident memory of a process without files and the arena, 0 if it is gone.

    What a forked process has not changed yet counts as much as what is its own.
    """
    try:
        words = Path(f"/proc/{pid}/statm").read_bytes().split()
    except OSError:
        return 0
    return (int(words[1]) - int(words[2])) * PAGE
