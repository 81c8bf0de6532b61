"""What must a worker do about its memory now?

A pure policy: sizes go in, decisions come out. Stored values over the target go to scratch; over
the pause mark the worker takes no new tasks; over the last mark the largest slot is ended, so that
its task fails with an error and the rank, with all that it holds, lives on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mpicluster.config import Config
from mpicluster.ids import NBytes

#: A paused worker goes on only this share of the limit below the mark, so that it does not flutter.
RESUME_MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class Usage:
    """What is in use, in bytes."""

    #: Values in memory.
    stored: NBytes
    #: Free segments that are kept warm, and other pages that can go back to the system.
    warm: NBytes
    #: This process, without shared memory but what of it cannot go back.
    rank: NBytes
    #: Each slot, without shared memory.
    slots: Mapping[int, NBytes]

    @property
    def total(self) -> NBytes:
        """Everything that counts against the rank's limit."""
        return self.stored + self.warm + self.rank + sum(self.slots.values())


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do."""

    #: Values to move to scratch, in bytes.
    spill: NBytes = 0
    #: Give the pages of free segments back.
    trim: bool = False
    #: Take no new tasks.
    paused: bool = False
    #: The slot to end, -1 for none.
    end_slot: int = -1


def decide(usage: Usage, limit: NBytes, config: Config, paused: bool) -> Decision:
    """Return what to do about the memory; `paused` is how things are now.

    >>> usage = Usage(stored=90, warm=0, rank=0, slots={0: 1})
    >>> decide(usage, 100, Config(), paused=False)
    Decision(spill=30, trim=True, paused=True, end_slot=-1)
    """
    if limit <= 0:
        return Decision()
    over_target = usage.stored - int(limit * config.memory_target)
    over_pause = usage.total - int(limit * config.memory_pause)
    mark = config.memory_pause - (RESUME_MARGIN if paused else 0.0)
    return Decision(
        spill=max(0, over_target, min(over_pause - usage.warm, usage.stored)),
        trim=over_pause > 0 and (usage.warm > 0 or over_target > 0),
        paused=usage.total - usage.warm > int(limit * mark),
        end_slot=_slot_to_end(usage, limit, config),
    )


def _slot_to_end(usage: Usage, limit: NBytes, config: Config) -> int:
    """Return the largest slot if ending it is what helps: values can go to scratch instead."""
    without_values = usage.rank + sum(usage.slots.values())
    if not usage.slots or without_values <= int(limit * config.memory_terminate):
        return -1
    return max(usage.slots, key=lambda slot: usage.slots[slot])
