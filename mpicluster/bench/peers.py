"""How do other systems do the same work?

    python -m mpicluster.bench.peers NAME [options]

runs the cases on one of them, in ranks that its launcher has started or alone, and writes a JSON
file. Each is imported inside, as none of them is needed otherwise.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from mpicluster.bench import machine, report, work
from mpicluster.bench.backends import FIRST, GRAPHS, VALUES, Backend, ClientBackend
from mpicluster.bench.case import LEVELS
from mpicluster.bench.graphs import Graph
from mpicluster.bench.program import Request, measure_backend
from mpicluster.errors import MpiclusterError


class FuturesBackend(Backend):
    """mpi4py.futures: a pool of workers that rank 0 feeds."""

    name = "mpi4py.futures"
    abilities = frozenset({FIRST})

    def __init__(self, slots: int) -> None:
        from mpi4py.futures import MPIPoolExecutor

        self.slots = slots
        self._executor = MPIPoolExecutor()
        self._executor.bootup(wait=True)

    def map(self, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        """Start one task per item."""
        return [self._executor.submit(function, item) for item in items]

    def gather(self, futures: Any) -> list[Any]:
        """Return the results of futures."""
        return [future.result() for future in futures]

    def submit(self, function: Callable[..., Any], *args: Any, place: Any = None) -> Any:  # noqa: ARG002
        """Start one task."""
        return self._executor.submit(function, *args)

    def result(self, future: Any) -> Any:
        """Return the result of one future."""
        return future.result()

    def wait_for_first(self, futures: Any) -> None:
        """Wait until the first of the futures is done."""
        from concurrent.futures import as_completed

        next(iter(as_completed(futures)))

    def close(self) -> None:
        """End the workers."""
        self._executor.shutdown()


class RayBackend(Backend):
    """Ray on this machine."""

    name = "Ray"
    abilities = frozenset({GRAPHS, VALUES, FIRST})

    def __init__(self, slots: int) -> None:
        import ray

        self.slots = slots
        self._ray = ray
        self._remote: dict[Any, Any] = {}
        ray.init(
            num_cpus=slots, include_dashboard=False, logging_level="error", log_to_driver=False
        )

    def _function(self, function: Callable[..., Any]) -> Any:
        if function not in self._remote:
            self._remote[function] = self._ray.remote(function)
        return self._remote[function]

    def map(self, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        """Start one task per item."""
        remote = self._function(function)
        return [remote.remote(item) for item in items]

    def gather(self, futures: Any) -> list[Any]:
        """Return the results of futures."""
        found: list[Any] = self._ray.get(futures)
        return found

    def submit(self, function: Callable[..., Any], *args: Any, place: Any = None) -> Any:  # noqa: ARG002
        """Start one task."""
        return self._function(function).remote(*args)

    def result(self, future: Any) -> Any:
        """Return the result of one future."""
        return self._ray.get(future)

    def wait(self, future: Any) -> None:
        """Wait until a future is done."""
        self._ray.wait([future], fetch_local=False)

    def wait_for_first(self, futures: Any) -> None:
        """Wait until the first of the futures is done."""
        self._ray.wait(futures, num_returns=1, fetch_local=False)

    def get(self, graph: Graph) -> Any:
        """Submit a graph task by task; references stand for the dependencies."""
        return self._ray.get(submit_all(graph, self.submit))

    def scatter(self, value: Any, place: Any = None, everywhere: bool = False) -> Any:  # noqa: ARG002
        """Put a value into the store of this machine."""
        return self._ray.put(value)

    def close(self) -> None:
        """End Ray's processes."""
        self._ray.shutdown()


class ParslBackend(Backend):
    """Parsl's HighThroughputExecutor on this machine."""

    name = "Parsl"
    abilities = frozenset({GRAPHS, FIRST})

    def __init__(self, slots: int) -> None:
        import tempfile

        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        self.slots = slots
        self._parsl = parsl
        self._apps: dict[Any, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="mpicluster-bench-")
        executor = HighThroughputExecutor(
            label="bench", address="127.0.0.1", max_workers_per_node=slots, cores_per_worker=1e-6,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )  # fmt: skip
        parsl.load(Config(
            executors=[executor], run_dir=self._folder.name, usage_tracking=0, strategy="none",
            initialize_logging=False,
        ))  # fmt: skip

    def _app(self, function: Callable[..., Any]) -> Any:
        if function not in self._apps:
            self._apps[function] = self._parsl.python_app(function)
        return self._apps[function]

    def map(self, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        """Start one task per item."""
        app = self._app(function)
        return [app(item) for item in items]

    def gather(self, futures: Any) -> list[Any]:
        """Return the results of futures."""
        return [future.result() for future in futures]

    def submit(self, function: Callable[..., Any], *args: Any, place: Any = None) -> Any:  # noqa: ARG002
        """Start one task."""
        return self._app(function)(*args)

    def result(self, future: Any) -> Any:
        """Return the result of one future."""
        return future.result()

    def wait_for_first(self, futures: Any) -> None:
        """Wait until the first of the futures is done."""
        from concurrent.futures import as_completed

        next(iter(as_completed(futures)))

    def get(self, graph: Graph) -> Any:
        """Submit a graph task by task; futures stand for the dependencies."""
        return submit_all(graph, self.submit).result()

    def close(self) -> None:
        """End Parsl's processes and remove its folder."""
        self._parsl.dfk().cleanup()
        self._parsl.clear()
        self._folder.cleanup()


def submit_all(graph: Graph, submit: Callable[..., Any]) -> Any:
    """Submit the tasks of a graph in their order and return the future of the last."""
    futures: list[Any] = []
    for task in graph.tasks:
        inputs = [futures[place] for place in task.dependencies]
        futures.append(submit(task.function, *task.literals, *inputs))
    return futures[-1]


def open_dask_mpi(_slots: int) -> Backend:
    """Return distributed's client in rank 1; the other ranks stay in here."""
    import dask
    import dask_mpi

    dask.config.set({"distributed.logging.distributed": "error"})
    dask_mpi.initialize(nthreads=1, dashboard=False, local_directory=os.environ.get("TMPDIR"))
    from distributed import Client, as_completed

    client = Client()
    workers = int(os.environ.get("MPICLUSTER_BENCH_WORKERS", "1"))
    client.wait_for_workers(workers)
    return ClientBackend("dask-mpi", client, as_completed)


#: What opens each of them, given the tasks that it may run at a time.
OPEN: Final[dict[str, Callable[[int], Backend]]] = {
    "dask-mpi": open_dask_mpi,
    "mpi4py.futures": FuturesBackend,
    "ray": RayBackend,
    "parsl": ParslBackend,
}


def main() -> int:
    """Run the cases on one system and write what they cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(OPEN))
    parser.add_argument("--level", choices=LEVELS, default="quick")
    parser.add_argument("--only", default="")
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--minutes", type=int)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--json", required=True)
    parser.add_argument("--first-result", action="store_true", help="run one task, then end")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["MPICLUSTER_BENCH_WORKERS"] = str(arguments.slots)
    backend = OPEN[arguments.name](arguments.slots)
    try:
        if arguments.first_result:
            print(backend.result(backend.submit(work.identity, "first result")), flush=True)
            return 0
        only = [name for name in arguments.only.split(",") if name]
        request = Request(arguments.level, only, arguments.repeat, arguments.minutes)
        rows = measure_backend(backend, request)
        report.write_json(Path(arguments.json), machine.describe(), rows)
    finally:
        backend.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MpiclusterError as error:
        sys.exit(f"bench: {error}")
