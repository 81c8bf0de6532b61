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
#: A paused worker that has run nothing for so long, in seconds, frees no memory by waiting longer.
LAST_RESORT_AFTER_S = 0.5
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
        #: The worker takes no tasks; as a last resort single ones, when nobody else can.
        self.paused = self.last_resort = False
        self._complained = False
        #: Since when the worker is paused for nothing but its own processes, and said so.
        self._stuck_since: float | None = None
        self._said_stuck = False
        #: Since when the worker has been paused and run nothing.
        self._rests_since = math.inf
        #: What the arena had too much even after it was trimmed.
        self._stays_nbytes: NBytes = 0
        self.usage = Usage(0, 0, 0, {})

    def is_due(self, now: float, busy: bool) -> bool:
        """Return whether it is time to measure; a worker with nothing to do hardly changes."""
        often = busy or self.paused
        interval_s = self._config.memory_interval_s if often else self._config.status_interval_s
        return now >= self._last + max(interval_s, self._rest_s)

    def is_tight(self) -> bool:
        """Return whether values must leave the memory."""
        return self._store.memory_nbytes > self._config.memory_target * self._limit

    def act(
        self, now: float, pids: dict[int, int], busy: bool = True, waiting: bool = False
    ) -> EndedSlot | None:
        """Measure and do what is to be done; return the slot that was ended, if one was.

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
        decision = decide(self.usage, self._limit, self._config, self.paused)
        if decision.spill:
            self._spill(decision.spill)
        if decision.trim:
            self._store.arena.trim()
            self._stays_nbytes = self._store.arena.spare_nbytes
        self.paused = decision.paused
        self._note_rest(now, busy)
        self._say_if_stuck(now, busy or waiting)
        if decision.end_slot < 0:
            return None
        return self._end(decision.end_slot, pids[decision.end_slot])

    def _measure(self, pids: dict[int, int], measure: Callable[[int], NBytes]) -> Usage:
        spare = self._store.arena.spare_nbytes
        stays = min(spare, self._stays_nbytes)
        return Usage(
            stored=self._store.memory_nbytes,
            warm=spare - stays,
            rank=measure(os.getpid()) + stays,
            slots={slot: measure(pid) for slot, pid in pids.items()},
        )

    def _spill(self, nbytes: NBytes) -> None:
        try:
            self._store.spill(nbytes)
            reason = "no local disk was found" if self._store.scratch is None else ""
        except OSError as error:
            reason = str(error)
        if reason and not self._complained:
            self._complained = True
            print(
                f"mpicluster: values cannot be moved to scratch: {reason}. They stay in memory, so "
                "tasks may have to run one after another; name another disk with --scratch.",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def _note_rest(self, now: float, busy: bool) -> None:
        """See whether only more tasks could change anything: by letting go of their inputs, or
        because those that are here wait for them.
        """
        if not self.paused:
            self.last_resort, self._rests_since = False, math.inf
        elif busy:
            self._rests_since = math.inf
        else:
            self._rests_since = min(self._rests_since, now)
            self.last_resort |= now - self._rests_since >= LAST_RESORT_AFTER_S

    def _say_if_stuck(self, now: float, busy: bool) -> None:
        """Say once that the worker is paused and that nothing it does will change that."""
        if not self.paused or busy or self.usage.stored:
            self._stuck_since = None
            return
        if self._stuck_since is None:
            self._stuck_since = now
        if self._said_stuck or now - self._stuck_since < STUCK_AFTER_S:
            return
        self._said_stuck = True
        used, limit = self.usage.total / 1e6, self._limit / 1e6
        print(
            "mpicluster: a worker takes only single tasks that no other can: its own processes "
            f"({len(self.usage.slots)} slots) use {used:.0f} MB of its memory limit of {limit:.0f} "
            "MB, and it holds no values that could leave. Give it a larger --memory-limit or fewer "
            "slots.",
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
