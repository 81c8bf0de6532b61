"""What does the scheduler know about tasks, workers, functions and clients?

Data and look-ups only. States are changed in `lifecycle.py`, places are chosen in `placement.py`.
"""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, TypeAlias

from mpicluster.config import Config
from mpicluster.ids import SLOT_CLIENTS, Attempt, ClientId, FunctionId, Key, NBytes, Rank
from mpicluster.messages import ErrorColumns, TaskOptions
from mpicluster.priority_queue import PriorityQueue


class TaskState(IntEnum):
    """Where a task stands; the allowed changes are in `lifecycle.py`."""

    RELEASED = 0  #: known, not needed, its value is nowhere
    WAITING = 1  #: needed, and waits for inputs
    READY = 2  #: all inputs are in memory, no worker chosen
    PROCESSING = 3  #: assigned to a worker
    MEMORY = 4  #: its value is on at least one worker
    ERRED = 5  #: its function raised, or that of a task it depends on
    FORGOTTEN = 6  #: no longer in `SchedulerState.tasks`


#: A user's priority outweighs every order of arrival: 2^48 tasks.
PRIORITY_SHIFT: Final = 48


ReadyQueue: TypeAlias = "PriorityQueue[TaskRecord]"


class FunctionRecord:
    """A function that a client defined, with what has been measured of its tasks."""

    __slots__ = (
        "code", "duration_s", "duration_s_total", "erred", "finished", "function", "nbytes_mean",
        "nbytes_total", "prefix", "seen",
    )  # fmt: skip

    def __init__(self, function: FunctionId, prefix: str, code: bytes, duration_s: float) -> None:
        self.function = function
        #: The name under which people see its tasks.
        self.prefix = prefix
        #: Opaque pickle, sent once to each worker.
        self.code = code
        #: Moving average of a task's time.
        self.duration_s = duration_s
        self.duration_s_total = 0.0
        self.finished = 0
        self.erred = 0
        #: Moving average of a result's size.
        self.nbytes_mean: NBytes = 0
        self.nbytes_total: NBytes = 0
        #: Tasks finished, their seconds and bytes when the averages were brought up to date.
        self.seen = (0, 0.0, 0)

    def update_means(self) -> None:
        """Let what has finished since the last time count in the averages.

        Quickly towards shorter, slowly towards longer: the first call of a function pays for
        imports, so it tells little about the next ones.
        """
        finished, seconds, nbytes = self.seen
        self.seen = (self.finished, self.duration_s_total, self.nbytes_total)
        count = self.finished - finished
        known_s, mean_s = self.duration_s, (self.duration_s_total - seconds) / count
        share = 0.5 if mean_s < known_s or not finished else 0.1
        self.duration_s = known_s + (1 - (1 - share) ** count) * (mean_s - known_s)
        difference = (self.nbytes_total - nbytes) // count - self.nbytes_mean
        if difference:
            step = int((1 - 0.5**count) * difference)
            self.nbytes_mean += step or (1 if difference > 0 else -1)


class TaskRecord:
    """A task, or a scattered value (then `function` is None)."""

    __slots__ = (
        "ahead", "attempt", "dependencies", "dependents", "error", "expected_s", "failures",
        "function", "group", "key", "lineage", "nbytes", "payload", "priority", "processing_on",
        "pushed_to", "queue", "retries", "state", "stealing", "waiting_on", "wanted_by", "who_has",
    )  # fmt: skip

    def __init__(self, key: Key, function: FunctionRecord | None, priority: int) -> None:
        self.key = key
        self.function = function
        #: Opaque pickle of the arguments.
        self.payload = b""
        #: Smaller runs earlier; unique.
        self.priority = priority
        #: Only `lifecycle.move` assigns it.
        self.state = TaskState.RELEASED
        #: The tasks whose values this one needs.
        self.dependencies: tuple[TaskRecord, ...] = ()
        #: {key: task} of the unfinished tasks that need this value; None until there is one.
        self.dependents: dict[Key, TaskRecord] | None = None
        #: How many of `dependencies` are not in memory; counted while WAITING or `ahead`.
        self.waiting_on = 0
        #: PROCESSING although inputs are still being made, so that it cannot run yet.
        self.ahead = False
        #: The workers that hold the value, in order of arrival; one-element tuples are shared.
        self.who_has: tuple[WorkerRecord, ...] = ()
        #: How many known tasks have this one among their `dependencies`; counted only with
        #: survive = "ranks", where their values may have to be computed again.
        self.lineage = 0
        #: The clients that hold a future; the tuples are shared.
        self.wanted_by: tuple[ClientId, ...] = ()
        self.processing_on: WorkerRecord | None = None
        #: The client to which its worker sends a small result without being asked, or 0.
        self.pushed_to: ClientId = 0
        #: The queue that it waits in while READY.
        self.queue: ReadyQueue | None = None
        #: Its share of `processing_on.duration_sum_s`.
        self.expected_s = 0.0
        #: Number of the last assignment; reports about older ones are dropped.
        self.attempt: Attempt = 0
        #: A question whether the worker gives it back is on its way.
        self.stealing = False
        self.nbytes: NBytes = 0
        #: Its restrictions, None if any worker may run it.
        self.group: OptionsGroup | None = None
        #: How often it may still raise.
        self.retries = 0
        #: How often it has ended its process.
        self.failures = 0
        self.error: ErrorColumns | None = None

    def __repr__(self) -> str:
        return f"<task {self.key} {self.state.name.lower()}>"

    @property
    def prefix(self) -> str:
        """The name under which people see the task."""
        return self.function.prefix if self.function is not None else "scattered"


class WorkerRecord:
    """A worker's rank, what it holds and what it is doing."""

    __slots__ = (
        "abandoned", "ahead", "alone", "description", "duration_sum_s", "freed", "frees_sent",
        "functions", "has_what", "host", "is_idle", "is_roomy", "last_heard", "last_progress",
        "last_resort", "lent", "local", "memory_limit", "metrics", "nbytes", "paused",
        "processing", "rank", "resources", "resources_free", "slots", "stealing",
    )  # fmt: skip

    def __init__(self, rank: Rank, description: dict[str, Any]) -> None:
        self.rank = rank
        self.description = description
        self.host = str(description.get("host", ""))
        #: As many tasks may run: more than the description says while `lent` tasks wait, fewer
        #: while `abandoned` slots are not done with what nobody wants any more.
        self.slots = int(description.get("slots", 1))
        self.lent = self.abandoned = 0
        self.memory_limit: NBytes = int(description.get("memory_limit", 0))
        self.resources: dict[str, float] = dict(description.get("resources") or {})
        self.resources_free = dict(self.resources)
        #: {key: task} of the values it holds.
        self.has_what: dict[Key, TaskRecord] = {}
        #: {key: task} assigned to it and not finished, in order of assignment.
        self.processing: dict[Key, TaskRecord] = {}
        #: Expected seconds of all tasks in `processing`.
        self.duration_sum_s = 0.0
        #: How many of `processing` are being stolen back.
        self.stealing = 0
        #: How many of `processing` cannot run yet. They take nobody's place: what an input waits
        #: for, such as a task that its own task has submitted, must find one.
        self.ahead = 0
        #: Ready tasks that would best run here because their inputs are here.
        self.local: ReadyQueue = PriorityQueue()
        #: Functions that it has been sent.
        self.functions: set[FunctionId] = set()
        #: Bytes of the values it holds.
        self.nbytes: NBytes = 0
        #: It takes no tasks; as a last resort single ones, when nobody else can.
        self.paused = self.last_resort = False
        #: It is among the scheduler's `idle` or `roomy`.
        self.is_idle = self.is_roomy = False
        self.metrics: dict[str, Any] = {}
        #: How many `FreeKeys` it has been sent.
        self.frees_sent = 0
        #: {key: number of the last `FreeKeys` that names it}, until the worker has seen that one;
        #: kept only with survive = "ranks", where a key may come back.
        self.freed: dict[Key, int] = {}
        #: When it last sent anything, and when it last finished a task or got its first.
        self.last_heard = 0.0
        self.last_progress = 0.0
        #: `(self,)`, shared by all tasks that only this worker holds.
        self.alone: tuple[WorkerRecord, ...] = (self,)

    def __repr__(self) -> str:
        return f"<worker {self.rank}>"

    def free_slots(self) -> int:
        """Return how many slots have nothing to do."""
        return self.slots - len(self.processing) + self.ahead + self.stealing

    def runs_nothing(self) -> bool:
        """Return whether none of its tasks does anything but wait."""
        return len(self.processing) - self.ahead <= self.lent

    def queued_s(self) -> float:
        """Return how long a task sent now would wait for a slot, in seconds."""
        count = len(self.processing) - self.ahead
        if count < self.slots:
            return 0.0
        if not self.slots:
            return math.inf
        return self.duration_sum_s * (count - self.slots + 1) / (count * self.slots)


@dataclass(slots=True)
class OptionsGroup:
    """All ready tasks with the same restrictions, and the workers that meet them."""

    options: TaskOptions
    #: {rank: worker} of those that may run its tasks.
    workers: dict[Rank, WorkerRecord]
    ready: ReadyQueue = field(default_factory=PriorityQueue)


@dataclass(slots=True)
class ClientRecord:
    """A client and what it wants."""

    client: ClientId
    #: {key: task} of the futures it holds.
    wants: dict[Key, TaskRecord] = field(default_factory=dict)
    #: {number: [task, ...]} of graphs of which more tasks may come.
    graphs: dict[int, list[TaskRecord]] = field(default_factory=dict)
    #: `(client,)`, shared by all tasks that only this client wants.
    alone: tuple[ClientId, ...] = ()
    #: Messages of it that were taken in and have not been answered with credits.
    accepted: int = 0


#: Stands for nobody: the task is computed to its end even when no client wants it.
FIRE_AND_FORGET: Final[ClientId] = -1
#: Stands for the later tasks of a graph that has not come completely.
OPEN_GRAPH: Final[ClientId] = -2
#: Stands for the queues and variables in which futures of the task lie.
SHARED_BY_NAME: Final[ClientId] = -3


class SchedulerState:
    """All records of the scheduler, and the sums and queues that are kept for speed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        #: Whether a released task is remembered so that it can be computed again.
        self.keeps_lineage = config.survive == "ranks"
        self.now = 0.0
        self.tasks: dict[Key, TaskRecord] = {}
        self.functions: dict[FunctionId, FunctionRecord] = {}
        self.workers: dict[Rank, WorkerRecord] = {}
        self.clients: dict[ClientId, ClientRecord] = {}
        #: Ready tasks that have no inputs, so that any worker is as good as any other.
        self.ready: ReadyQueue = PriorityQueue()
        #: {key: task} that became READY since the last decision and are in no queue yet.
        self.fresh: dict[Key, TaskRecord] = {}
        #: {worker: None} of workers whose `local` queue is not empty.
        self.with_local: dict[WorkerRecord, None] = {}
        #: {worker: None} of workers that finished something or got local tasks since then.
        self.touched: dict[WorkerRecord, None] = {}
        #: {function: None} of which tasks have finished since the last decision.
        self.measured: dict[FunctionRecord, None] = {}
        #: {worker: None} of workers that have tasks.
        self.working: dict[WorkerRecord, None] = {}
        #: {options: group} for tasks with restrictions.
        self.groups: dict[TaskOptions, OptionsGroup] = {}
        #: {worker: None} of workers with a free slot, longest idle first.
        self.idle: OrderedDict[WorkerRecord, None] = OrderedDict()
        #: {worker: None} of workers that could take a task ahead.
        self.roomy: OrderedDict[WorkerRecord, None] = OrderedDict()
        #: {worker: None} of paused workers, and of those that would take a task as a last resort.
        self.paused: dict[WorkerRecord, None] = {}
        self.last_resorts: dict[WorkerRecord, None] = {}
        #: {worker: None} of workers all of whose slots are abandoned.
        self.without_slots: dict[WorkerRecord, None] = {}
        #: Counts arrivals: the order of tasks with equal user priority.
        self.sequence = 0
        #: (now, cause, key, old state, new state) of the last changes.
        self.history: deque[tuple[float, str, Key, TaskState, TaskState]] = deque(
            maxlen=config.history_length
        )
        #: Values that workers are to drop: {worker: [key, ...]}.
        self.to_free: dict[WorkerRecord, list[Key]] = {}
        #: Attempts that workers need not run any more: {worker: [(key, attempt), ...]}.
        self.to_cancel: dict[WorkerRecord, list[tuple[Key, Attempt]]] = {}
        #: {key: (receiver, sender)} of declared values that have not arrived, released ones among
        #: them.
        self.arriving: dict[Key, tuple[Rank, Rank]] = {}
        #: {key: (worker, size)} of scattered values that arrived before they were declared.
        self.early: dict[Key, tuple[WorkerRecord, NBytes]] = {}
        #: News for clients: {client: [task, ...]} now in memory.
        self.finished_for: dict[ClientId, list[TaskRecord]] = {}
        #: News for clients: {client: [task, ...]} now erred.
        self.erred_for: dict[ClientId, list[TaskRecord]] = {}

    def first_priority(self, source: ClientId, count: int, user_priority: int) -> int:
        """Return the first of `count` unique priorities: by the user's wish, then by arrival.

        What tasks have submitted goes before what scripts have, the newest first: its task waits
        for it, and holds a process as long. In the order of arrival the tasks of a recursion would
        all wait before the first of them could end.
        """
        first = self.sequence + 1
        self.sequence += count
        if source >= SLOT_CLIENTS:
            first = -self.sequence
        return first - (user_priority << PRIORITY_SHIFT)

    def group_for(self, options: TaskOptions) -> "OptionsGroup | None":
        """Return the group of tasks with these restrictions, None if there are none."""
        if not options.workers and not options.resources:
            return None
        restrictions = TaskOptions(
            options.workers, options.allow_other_workers, options.resources
        )
        group = self.groups.get(restrictions)
        if group is None:
            group = self.groups[restrictions] = OptionsGroup(restrictions, {})
            for worker in self.workers.values():
                if may_run(worker, restrictions):
                    group.workers[worker.rank] = worker
        return group


def may_run(worker: WorkerRecord, options: TaskOptions) -> bool:
    """Return whether the worker could ever run a task with these restrictions."""
    wanted = not options.workers or worker.rank in options.workers or options.allow_other_workers
    return wanted and all(
        worker.resources.get(name, 0.0) >= amount for name, amount in options.resources
    )
