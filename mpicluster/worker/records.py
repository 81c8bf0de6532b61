"""What does the worker's core know about its tasks, its slots and its values?"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from mpicluster.ids import Attempt, ClientId, FunctionId, Key, NBytes, Rank
from mpicluster.priority_queue import PriorityQueue


class LocalState(IntEnum):
    """Where an assigned task stands on its worker."""

    WAITING = 0  #: inputs are on their way
    READY = 1  #: all inputs are here
    EXECUTING = 2  #: given to a slot
    ABANDONED = 3  #: given to a slot, but nobody wants the result any more
    GONE = 4  #: its result, its error or its end has been reported, or it was given up


class LocalTask:
    """An attempt that the scheduler has assigned to this worker."""

    __slots__ = (
        "attempt", "function", "inputs", "key", "missing", "payload", "priority", "push_to",
        "slot", "state", "ticket",
    )  # fmt: skip

    def __init__(
        self, key: Key, attempt: Attempt, function: FunctionId, priority: int, payload: bytes
    ) -> None:
        self.key = key
        self.attempt = attempt
        self.function = function
        #: Smaller runs earlier; unique among the tasks here.
        self.priority = priority
        self.payload = payload
        #: The client that gets a small result at once, or 0.
        self.push_to: ClientId = 0
        self.inputs: list[Key] = []
        #: How many of `inputs` are not here.
        self.missing = 0
        self.state = LocalState.WAITING
        #: The slot that has it, -1 for none.
        self.slot = -1
        #: The number of this run, 0 until a slot has it.
        self.ticket = 0

    def __repr__(self) -> str:
        return f"<local task {self.key} attempt {self.attempt} {self.state.name.lower()}>"


@dataclass(slots=True, eq=False)
class SlotRecord:
    """A slot and the tasks that it has, in the order in which it runs them."""

    index: int
    #: It has reported and can take tasks.
    started: bool = False
    #: {ticket: task}.
    tasks: dict[int, LocalTask] = field(default_factory=dict)
    #: Expected seconds of all tasks that it has.
    expected_s: float = 0.0
    #: When it last began to have tasks or reported one.
    last_report: float = 0.0
    #: Its task waits for others, so that its place is free.
    lent: bool = False
    #: It has been asked to report and to give waiting tasks back.
    asked: bool = False
    seconds_busy: float = 0.0

    def is_abandoned(self) -> bool:
        """Return whether it has nothing but what nobody wants, and is not done with it."""
        return bool(self.tasks) and all(
            task.state is LocalState.ABANDONED for task in self.tasks.values()
        )


class Lane(NamedTuple):
    """Where a fetch waits for its turn: what a rank has, or what it is about to make.

    The second are answered when they are made, so nothing may have to wait behind them.
    """

    rank: Rank
    promised: bool


@dataclass(slots=True, eq=False)
class Fetch:
    """A value on its way here, or about to be."""

    key: Key
    nbytes: NBytes
    #: Ranks that should have it and have not been asked.
    holders: list[Rank]
    #: {key: task} of the tasks that wait for it; more may come.
    waiters: dict[Key, LocalTask] = field(default_factory=dict)
    #: The scheduler asked for a copy, whether or not a task here needs it.
    wanted: bool = False
    #: Those of the holders that are only about to make the value.
    makers: list[Rank] = field(default_factory=list)
    #: The queue in `WorkerState.fetch_queues` in which it waits, None for none.
    lane: Lane | None = None
    #: The rank that has been asked, -1 for none; this one where a task here makes the value.
    asked: Rank = -1

    @property
    def needed(self) -> bool:
        """Whether anything still waits for the value."""
        return bool(self.waiters) or self.wanted


class WorkerState:
    """All records of a worker, and the queues that are kept for speed."""

    def __init__(self, slots: int, home: str = "", neighbours: Iterable[Rank] = ()) -> None:
        #: What this worker says to be lent values by others of its host; "": it wants copies.
        self.home = home
        #: {rank: None} of the other workers of its host.
        self.neighbours = dict.fromkeys(neighbours)
        self.slots = [SlotRecord(index) for index in range(slots)]
        #: {key: task} of the assigned attempts that are not finished.
        self.tasks: dict[Key, LocalTask] = {}
        #: {ticket: task} of what slots have, abandoned ones included.
        self.running: dict[int, LocalTask] = {}
        #: How many of them are abandoned.
        self.abandoned = 0
        self.ready: PriorityQueue[LocalTask] = PriorityQueue()
        #: {key: size} of the values in the store.
        self.has: dict[Key, NBytes] = {}
        self.fetches: dict[Key, Fetch] = {}
        #: {lane: {key: fetch}} of fetches whose turn has not come.
        self.fetch_queues: dict[Lane, dict[Key, Fetch]] = {}
        #: {rank: None} of ranks that are gone.
        self.lost_ranks: dict[Rank, None] = {}
        #: {request: (lane, {key: fetch})} on their way.
        self.requests: dict[int, tuple[Lane, dict[Key, Fetch]]] = {}
        #: {key: [(rank, request, home), ...]} of who is to be sent a value that a task here makes.
        self.promised: dict[Key, list[tuple[Rank, int, str]]] = {}
        #: Expected seconds of a function's tasks, as measured here.
        self.durations: dict[FunctionId, float] = {}
        self.next_ticket = 1
        self.next_request = 1
        #: How many `FreeKeys` have come.
        self.frees_seen = 0
        #: Over its memory limit: it begins nothing that clients send it themselves.
        self.paused = False
