"""Which local happenings enter the worker's core, and which actions does it ask for?

Events come from the loop through `receive`, like messages; effects are carried out by the loop.
Values are in neither, only their keys and sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mpicluster.ids import Key, NBytes, Rank
from mpicluster.messages import ErrorColumns
from mpicluster.worker.records import LocalTask


@dataclass(slots=True)
class SlotStarted:
    """A slot waits for tasks."""

    slot: int


@dataclass(slots=True)
class SlotFinished:
    """A slot has finished these runs; results of runs that count are in the store."""

    slot: int
    tickets: Sequence[int]
    sizes: list[NBytes]
    durations: Sequence[float]


@dataclass(slots=True)
class SlotRaised:
    """A slot's task raised."""

    slot: int
    ticket: int
    error: ErrorColumns


@dataclass(slots=True)
class SlotReturned:
    """A slot gives back runs that it has not started."""

    slot: int
    tickets: list[int]


@dataclass(slots=True)
class SlotLost:
    """A slot's process has ended while it executed `ticket` (0: nothing)."""

    slot: int
    ticket: int
    how: str


@dataclass(slots=True)
class SlotLent:
    """The task of a slot waits for others, so that its place is free; or it goes on."""

    slot: int
    lent: bool


@dataclass(slots=True)
class ValuesStored:
    """Values have come in and are in the store; `request` is 0 when nobody had asked."""

    request: int
    keys: list[Key]
    sizes: list[NBytes]


@dataclass(slots=True)
class FetchFailed:
    """The peer does not have these values, or is gone."""

    request: int
    keys: list[Key]


@dataclass(slots=True)
class RunTasks:
    """Give these tasks to a slot."""

    slot: int
    tasks: list[LocalTask]


@dataclass(slots=True)
class AskSlot:
    """Ask a slot to report now and to give back what it has not started."""

    slot: int


@dataclass(slots=True)
class StartSlot:
    """Start a slot in the place of one that ended."""

    slot: int


@dataclass(slots=True)
class DropValues:
    """Take these values out of the store."""

    keys: list[Key]


@dataclass(slots=True)
class SendValue:
    """Send a value that has been made to the ranks that were promised it."""

    key: Key
    #: (rank, its request, its home) of each.
    promised: list[tuple[Rank, int, str]]


Effect = RunTasks | AskSlot | StartSlot | DropValues | SendValue
