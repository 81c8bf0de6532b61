"""What does one task cost in the scheduler's core, in CPU time and in memory?

No I/O and no other process: the messages of a client and of N workers are encoded, taken in,
answered and decoded here; only the scheduler's own work is timed (decode, receive, outgoing,
encode). Workers finish at once what they are given.

    python tests/benchmarks/scheduler_core.py --graph tree --workers 2 1000 --tasks 200000
"""

import argparse
import gc
import time
import tracemalloc
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.scheduler.core import SchedulerCore

CLIENT = 1
FIRST_KEY = 1 << 40
#: Tasks in one `SubmitTasks`, as clients send them.
CHUNK = 2000
#: Bundles taken in before the core decides, as after a short pause.
ARRIVALS = 50
#: Virtual time between two decisions.
TURN_S = 1e-3


@dataclass
class Graph:
    """Tasks with their dependencies; only the last is wanted, or all of them."""

    dependencies: list[list[int]]
    all_wanted: bool


def make_graph(shape: str, tasks: int) -> Graph:
    """Return a graph of about `tasks` tasks."""
    if shape == "map":
        return Graph([[] for _ in range(tasks)], True)
    if shape == "merge":
        keys = range(FIRST_KEY, FIRST_KEY + tasks)
        return Graph([*([] for _ in range(tasks)), list(keys)], False)
    dependencies: list[list[int]] = [[] for _ in range(tasks // 2)]
    level = list(range(FIRST_KEY, FIRST_KEY + tasks // 2))
    while len(level) > 1:
        pairs = list(zip(level[::2], level[1::2], strict=False))
        rest = level[len(pairs) * 2 :]
        first = FIRST_KEY + len(dependencies)
        dependencies += [list(pair) for pair in pairs]
        level = [*range(first, first + len(pairs)), *rest]
    return Graph(dependencies, False)


def submissions(graph: Graph) -> Iterator[bytes]:
    """Yield the graph as a client sends it."""
    count = len(graph.dependencies)
    for start in range(0, count, CHUNK):
        part = graph.dependencies[start : start + CHUNK]
        stop = start + len(part)
        wanted = bytearray([graph.all_wanted]) * len(part)
        if stop == count:
            wanted[-1] = 1
        yield m.encode_bundle([m.SubmitTasks(
            keys=list(range(FIRST_KEY + start, FIRST_KEY + stop)),
            functions=[1] * len(part),
            payloads=[b"a payload of 26 bytes %4d" % (i % 10000) for i in range(start, stop)],
            dependencies=part if any(part) else [],
            wanted=bytes(wanted),
            options=None,
        )])  # fmt: skip


class Cluster:
    """A scheduler core with a client and workers that answer at once."""

    def __init__(self, workers: int, slots: int) -> None:
        ranks = list(range(2, 2 + workers))
        self.core = SchedulerCore(Config(), ranks)
        for rank in ranks:
            self.core.receive(rank, m.WorkerStarted({"slots": slots, "memory_limit": 1 << 30}), 0.0)
        self.core.receive(CLIENT, m.ClientStarted({}), 0.0)
        self.core.receive(CLIENT, m.DefineFunctions([1], ["inc"], [b"code"]), 0.0)
        self.core.outgoing(0.0)
        self.inbox: deque[tuple[int, bytes]] = deque()
        self.now = 0.0
        self.scheduler_s = 0.0
        self.messages = 0
        self.finished = 0
        self.bytes_max = 0

    def run(self) -> None:
        """Let everything that arrives be handled, until nothing does."""
        while self.inbox:
            batch = [self.inbox.popleft() for _ in range(min(len(self.inbox), ARRIVALS))]
            self.now += TURN_S
            begin = time.process_time()
            for source, bundle in batch:
                for message in m.decode_bundle(bundle):
                    self.core.receive(source, message, self.now)
            outgoing = [
                (rank, m.encode_bundle(sent)) for rank, sent in self.core.outgoing(self.now)
            ]
            self.scheduler_s += time.process_time() - begin
            for rank, bundle in outgoing:
                self.answer(rank, m.decode_bundle(bundle))

    def answer(self, rank: int, messages: list[m.Message]) -> None:
        """Do what a worker or the client does."""
        for message in messages:
            if isinstance(message, m.ComputeTasks):
                count = len(message.keys)
                self.messages += 1
                done = m.TasksFinished(message.keys, message.attempts, [28] * count, [1e-6] * count)
                self.inbox.append((rank, m.encode_bundle([done])))
                # Results are small, so that the worker sends them to the client itself.
                keys = zip(message.keys, message.push_to, strict=True)
                self.release([key for key, client in keys if client])
            elif isinstance(message, m.KeysFinished):
                self.release(message.keys)

    def release(self, keys: list[int]) -> None:
        """Let the client drop the futures of results that it has."""
        if keys:
            self.finished += len(keys)
            self.inbox.append((CLIENT, m.encode_bundle([m.ReleaseKeys(keys)])))


def measure_time(graph: Graph, workers: int, slots: int) -> str:
    """Return a line with the cost per task in the scheduler."""
    cluster = Cluster(workers, slots)
    gc.collect()
    gc.disable()
    cluster.inbox.extend((CLIENT, bundle) for bundle in submissions(graph))
    cluster.run()
    gc.enable()
    count = len(graph.dependencies)
    left = len(cluster.core.state.tasks)
    return (
        f"{cluster.scheduler_s / count * 1e6:6.2f} us/task  {count} tasks  {cluster.messages} "
        f"messages with tasks  {cluster.finished} results  {left} left"
    )


def measure_bytes(graph: Graph) -> float:
    """Return how many bytes a task needs while it waits."""
    cluster = Cluster(1, 1)
    bundles = list(submissions(graph))
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for bundle in bundles:
        for message in m.decode_bundle(bundle):
            cluster.core.receive(CLIENT, message, 0.0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(graph.dependencies)


def main() -> None:
    """Print one line per graph and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 100, 1000, 10000])
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--graph", nargs="+", default=["map", "merge", "tree"])
    options = parser.parse_args()
    for shape in options.graph:
        graph = make_graph(shape, options.tasks)
        print(f"{shape:6} {measure_bytes(graph):.0f} bytes/task")
        for workers in options.workers:
            print(f"{shape:6} {workers:6} workers  {measure_time(graph, workers, options.slots)}")


if __name__ == "__main__":
    main()
