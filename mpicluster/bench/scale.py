"""What does one scheduler cost with thousands of workers and millions of tasks?

No I/O and no other process: a client and workers are simulated, which answer at once, or as soon as
inputs that are being made are there; their messages pass through the real serializer. Only the
scheduler's own work is timed, in its four steps: decode, receive, outgoing, encode. All tasks are
submitted before the first result comes back, so that the scheduler holds all of them at once: the
worst case.
"""

import gc
import time
import tracemalloc
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

import psutil

from mpicluster import messages as m
from mpicluster.bench import machine
from mpicluster.config import Config
from mpicluster.ids import CLIENT_RANK, FIRST_WORKER_RANK, first_number
from mpicluster.scheduler.core import SchedulerCore

if TYPE_CHECKING:
    from mpicluster.bench.program import Request

FIRST_KEY: Final = first_number(CLIENT_RANK) + 1
#: Bundles taken in before the core decides, as after a short pause.
ARRIVALS: Final = 50
#: Virtual time between two decisions.
TURN_S: Final = 1e-3
RESULT_BYTES: Final = 28
#: Virtual time of a task.
TASK_S: Final = 1e-6
#: Tasks whose memory is counted; the count itself needs as much again.
MEMORY_TASKS: Final = 100_000
#: Memory that a run may need per task: records, payloads, and the messages of the simulation.
BYTES_PER_TASK: Final = 2500
STEPS: Final = ("decode", "receive", "outgoing", "encode")
#: (graph, workers, tasks).
Point = tuple[str, int, int]
GRIDS: Final[dict[str, tuple[Point, ...]]] = {
    "tiny": (("map", 4, 100), ("merge", 4, 100), ("tree", 10, 100)),
    "quick": tuple(
        (graph, workers, 100_000)
        for graph in ("map", "merge", "tree")
        for workers in (4, 1000, 10_000)
    ),
    "all": (
        *(
            (graph, workers, 200_000)
            for graph in ("map", "merge", "tree")
            for workers in (4, 100, 1000, 10_000)
        ),
        *(("map", 1000, tasks) for tasks in (10_000, 100_000, 1_000_000, 5_000_000)),
        ("tree", 1000, 1_000_000),
        ("map", 10_000, 1_000_000),
    ),
}


@dataclass(frozen=True, slots=True)
class ScaleRow:
    """What one graph cost on so many simulated workers."""

    graph: str
    workers: int
    tasks: int
    #: µs per task in each of `STEPS`.
    steps: dict[str, float]
    #: Bytes that a waiting task needs; None if it was not counted.
    bytes_per_task: float | None
    #: Tasks in one message to a worker, on average.
    tasks_per_message: float
    note: str = ""

    @property
    def us_per_task(self) -> float:
        """µs per task in all steps."""
        return sum(self.steps.values())

    def cells(self) -> dict[str, str]:
        """Return the row of a table."""
        from mpicluster.bench.report import format_number

        figures = {"µs/task": self.us_per_task, **self.steps}
        texts = {n: format_number(v) if self.steps else "-" for n, v in figures.items()}
        for name in STEPS:
            texts.setdefault(name, "-")
        size = "-" if self.bytes_per_task is None else f"{self.bytes_per_task:.0f}"
        return {
            "graph": self.graph,
            "workers": f"{self.workers:,}".replace(",", " "),
            "tasks": f"{self.tasks:,}".replace(",", " "),
            **texts,
            "bytes/task": size,
            "tasks/message": format_number(self.tasks_per_message) if not self.note else self.note,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON has it."""
        return {**asdict(self), "us_per_task": self.us_per_task}


@dataclass(slots=True)
class Simulation:
    """A scheduler core with a client and workers that answer at once."""

    core: SchedulerCore
    inbox: deque[tuple[int, bytes]] = field(default_factory=deque)
    now: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    #: Messages with tasks.
    messages: int = 0
    #: Results that the client has seen.
    finished: int = 0
    #: Keys of those that it saw in this turn.
    seen: list[int] = field(default_factory=list)
    #: Keys of values that some worker has made.
    made: set[int] = field(default_factory=set)
    #: {key: [(worker, task, attempt, inputs), ...]} of tasks sent ahead that need this value next.
    ahead: dict[int, list[tuple[int, int, int, list[int]]]] = field(default_factory=dict)

    def run(self, submissions: Iterator[bytes]) -> None:
        """Let everything that arrives be handled, until nothing does."""
        while True:
            batch = [(CLIENT_RANK, sent) for _, sent in zip(range(ARRIVALS), submissions)]  # noqa: B905
            count = min(len(self.inbox), ARRIVALS - len(batch))
            batch += [self.inbox.popleft() for _ in range(count)]
            if not batch:
                return
            self._turn(batch)

    def _turn(self, batch: list[tuple[int, bytes]]) -> None:
        """One turn of the scheduler, timed, and what the others answer."""
        core, seconds = self.core, self.seconds
        self.now += TURN_S
        begin = time.process_time()
        decoded = [(source, m.decode_bundle(bundle)) for source, bundle in batch]
        after_decode = time.process_time()
        for source, messages in decoded:
            for message in messages:
                core.receive(source, message, self.now)
        after_receive = time.process_time()
        outgoing = core.outgoing(self.now, more=bool(self.inbox))
        after_outgoing = time.process_time()
        encoded = [(rank, m.encode_bundle(sent)) for rank, sent in outgoing]
        end = time.process_time()
        seconds["decode"] += after_decode - begin
        seconds["receive"] += after_receive - after_decode
        seconds["outgoing"] += after_outgoing - after_receive
        seconds["encode"] += end - after_outgoing
        for rank, bundle in encoded:
            self._answer(rank, m.decode_bundle(bundle))
        self._release_seen()

    def _execute(self, tasks: Sequence[tuple[int, int, int, list[int]]]) -> None:
        """Report tasks as finished, (worker, key, attempt, inputs) each, and then those that waited
        for them: no report comes before that of an input.
        """
        while tasks:
            reports: dict[int, m.TasksFinished] = {}
            for task in tasks:
                rank, key, attempt, inputs = task
                missing = next((needed for needed in inputs if needed not in self.made), None)
                if missing is not None:
                    self.ahead.setdefault(missing, []).append(task)
                    continue
                self.made.add(key)
                report = reports.setdefault(rank, m.TasksFinished([], [], [], []))
                report.keys.append(key)
                report.attempts.append(attempt)
                report.sizes.append(RESULT_BYTES)
                report.durations.append(TASK_S)
            self.inbox += [(rank, m.encode_bundle([found])) for rank, found in reports.items()]
            tasks = [
                task for report in reports.values() for key in report.keys
                for task in self.ahead.pop(key, ())
            ]

    def _answer(self, rank: int, messages: list[m.Message]) -> None:
        """Do what a worker or the client does."""
        for message in messages:
            if isinstance(message, m.ComputeTasks):
                self.messages += 1
                inputs = message.dependencies or [[]] * len(message.keys)
                self._execute(list(zip(
                    repeat(rank), message.keys, message.attempts, inputs, strict=False
                )))  # fmt: skip
                # Results are small, so that the worker sends them to the client itself.
                pushed = zip(message.keys, message.push_to, strict=True)
                self.seen += [key for key, client in pushed if client]
            elif isinstance(message, m.KeysFinished):
                self.seen += message.keys

    def _release_seen(self) -> None:
        """Let the client drop the futures of results that it has: it, too, takes all that has come
        and then sends one message.
        """
        keys, self.seen = self.seen, []
        if keys:
            self.finished += len(keys)
            self.inbox.append((CLIENT_RANK, m.encode_bundle([m.ReleaseKeys(keys)])))


def make_simulation(workers: int, slots: int = 1) -> Simulation:
    """Return a cluster that has started and knows one function."""
    ranks = list(range(FIRST_WORKER_RANK, FIRST_WORKER_RANK + workers))
    core = SchedulerCore(Config(), ranks)
    for rank in ranks:
        core.receive(rank, m.WorkerStarted({"slots": slots, "memory_limit": 1 << 30}), 0.0)
    core.receive(CLIENT_RANK, m.ClientStarted({}), 0.0)
    core.receive(CLIENT_RANK, m.DefineFunctions([1], ["inc"], [b"code"]), 0.0)
    core.outgoing(0.0)
    return Simulation(core)


def dependencies_of(graph: str, tasks: int) -> Iterator[list[int]]:
    """Yield the dependencies of each task of a graph of about `tasks` tasks, in their order."""
    leaves = tasks // 2 if graph == "tree" else tasks
    for _ in range(leaves):
        yield []
    if graph == "merge":
        yield list(range(FIRST_KEY, FIRST_KEY + tasks))
    if graph != "tree":
        return
    level, following = range(FIRST_KEY, FIRST_KEY + leaves), FIRST_KEY + leaves
    while len(level) > 1:
        pairs = len(level) // 2
        for number in range(pairs):
            yield [level[2 * number], level[2 * number + 1]]
        if len(level) % 2:  # the one that is left goes up with the rest
            yield [level[-1]]
        level = range(following, following + (len(level) + 1) // 2)
        following = level.stop


def submissions(graph: str, tasks: int) -> Iterator[bytes]:
    """Yield a graph as a client sends it: all results of a map are wanted, else the last one."""
    chunk = Config().submit_tasks_max
    all_dependencies = dependencies_of(graph, tasks)
    part = [found for _, found in zip(range(chunk), all_dependencies)]  # noqa: B905
    start = FIRST_KEY
    while part:
        following = [found for _, found in zip(range(chunk), all_dependencies)]  # noqa: B905
        stop = start + len(part)
        wanted = bytearray([graph == "map"]) * len(part)
        if not following:
            wanted[-1] = 1
        yield m.encode_bundle([m.SubmitTasks(
            keys=list(range(start, stop)),
            functions=[1] * len(part),
            payloads=[b"a payload of 26 bytes %4d" % (i % 10_000) for i in range(start, stop)],
            dependencies=part if any(part) else [],
            wanted=bytes(wanted),
            options=None,
        )])  # fmt: skip
        part, start = following, stop


def measure(graph: str, workers: int, tasks: int, slots: int = 1) -> ScaleRow:
    """Run a graph and return what it cost in the scheduler."""
    if tasks * BYTES_PER_TASK > psutil.virtual_memory().available:
        return ScaleRow(graph, workers, tasks, {}, None, 0.0, "left out: not enough memory")
    nbytes = measure_bytes(graph, tasks) if tasks <= MEMORY_TASKS else None
    simulation = make_simulation(workers, slots)
    gc.collect()
    gc.disable()  # as in the scheduler's rank
    try:
        simulation.run(submissions(graph, tasks))
    finally:
        gc.enable()
    left, wanted = len(simulation.core.state.tasks), tasks if graph == "map" else 1
    if left or simulation.finished != wanted:
        raise RuntimeError(
            f"The simulated {graph} of {tasks} tasks ended with {simulation.finished} results and "
            f"{left} tasks, and not with {wanted} and none."
        )
    steps = {name: seconds / tasks * 1e6 for name, seconds in simulation.seconds.items()}
    return ScaleRow(graph, workers, tasks, steps, nbytes, tasks / max(1, simulation.messages))


def measure_bytes(graph: str, tasks: int) -> float:
    """Return how many bytes a task needs while it waits."""
    simulation = make_simulation(1)
    bundles = list(submissions(graph, tasks))
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for bundle in bundles:
        for message in m.decode_bundle(bundle):
            simulation.core.receive(CLIENT_RANK, message, 0.0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / tasks


def run_grid(request: "Request") -> int:
    """Measure the points of a level, print the table and write the files."""
    from mpicluster.bench.program import say, write

    about = machine.describe()
    rows = []
    for graph, workers, tasks in GRIDS[request.level]:
        say(f"{graph}, {workers} workers, {tasks} tasks ...")
        rows.append(measure(graph, workers, tasks))
        say(f"  {rows[-1].note or f'{rows[-1].us_per_task:.2f} µs/task'}")
    write(request, about, [], rows)
    return 0
