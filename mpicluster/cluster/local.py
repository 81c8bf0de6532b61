"""How does a cluster run without MPI?

Scheduler, workers and client are threads of this process over the local transport; tasks run in
the same slots, child processes, as in a job. So `Client()` in plain `python script.py` is a real
parallel cluster with the same cores and loops.
"""

import atexit
import os
import platform
import sys
import threading
import weakref
from typing import Any

from mpicluster import messages as m
from mpicluster.client.loop import ClientLoop, allocate_for_client
from mpicluster.cluster.base import Cluster
from mpicluster.cluster.hosts import (
    available_cores,
    available_memory,
    given_limit,
    host_identity,
    parse_memory_limit,
    share_cores,
)
from mpicluster.config import Config, warn_of_unknown_variables
from mpicluster.errors import ConfigError, MpiclusterError
from mpicluster.ids import CLIENT_RANK, FIRST_WORKER_RANK, SCHEDULER_RANK
from mpicluster.scheduler.loop import SchedulerLoop
from mpicluster.transport.local import LocalFabric
from mpicluster.versions import local_versions
from mpicluster.worker.loop import WorkerLoop, WorkerSettings
from mpicluster.worker.preparing import prepare_worker
from mpicluster.worker.spawning import modules_to_preload

#: Showing a cluster waits at most this long for its workers to start.
DISPLAY_WAIT_S = 5.0


class LocalCluster(Cluster):
    """A cluster on this machine, without MPI.

    `n_workers` workers share the cores and the memory; `threads_per_worker` sets the slots of
    each. `memory_limit` is that of each worker (bytes, or a text like "4GB"; None, 0 and "auto"
    mean an even share of all memory), `resources` is what each offers. Other options are settings
    of `Config`.

    >>> from mpicluster import Client, LocalCluster
    >>> with LocalCluster(n_workers=2, threads_per_worker=1) as cluster:
    ...     Client(cluster).submit(max, 3, 4).result()
    4
    """

    kind = "LocalCluster"

    def __init__(
        self,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        memory_limit: str | float | None = None,
        resources: dict[str, float] | None = None,
        processes: bool = True,  # noqa: ARG002  (distributed's signature; tasks are isolated)
        dashboard_address: Any = None,  # noqa: ARG002
        silence_logs: Any = None,  # noqa: ARG002
        **settings: Any,
    ) -> None:
        self.config = Config.load(settings)
        warn_of_unknown_variables()
        self.versions = local_versions()
        _check_counts(n_workers, threads_per_worker)
        count = n_workers or 1
        cores = available_cores()
        slots = [threads_per_worker] * count if threads_per_worker else share_cores(cores, count)
        memory = available_memory() // count
        limit = given_limit(memory_limit)
        if limit is not None:
            memory = parse_memory_limit(limit, max(slots))
        self._fabric = LocalFabric(FIRST_WORKER_RANK + count)
        ranks = list(range(FIRST_WORKER_RANK, FIRST_WORKER_RANK + count))
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._start("mpicluster-scheduler", SCHEDULER_RANK, ranks)
        for rank, number in zip(ranks, slots, strict=True):
            described = WorkerSettings(
                platform.node(), number, memory, dict(resources or {}), self.versions,
                host_identity(), tuple(other for other in ranks if other != rank),
            )  # fmt: skip
            self._start(f"mpicluster-worker-{rank}", rank, described)
        transport = self._fabric.ends[CLIENT_RANK]
        self._loop = ClientLoop(
            transport, self.config, allocate_for_client, self.versions, host_identity()
        )
        self._loop.start()
        self._closed = False
        _open_clusters.add(self)

    def _start(self, name: str, rank: int, argument: Any) -> None:
        target = self._run_scheduler if rank == SCHEDULER_RANK else self._run_worker
        thread = threading.Thread(target=target, args=(rank, argument), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_scheduler(self, rank: int, worker_ranks: list[int]) -> None:
        try:
            SchedulerLoop(self._fabric.ends[rank], self.config, worker_ranks).run()
        except BaseException as error:  # noqa: BLE001  (the client must hear of it)
            self._fail(error)

    def _run_worker(self, rank: int, settings: WorkerSettings) -> None:
        try:
            # The zygote ends with the thread that started it, so each worker starts its own.
            modules = modules_to_preload(" ".join(sys.modules))
            folder = os.getcwd()  # noqa: PTH109
            prepared = prepare_worker(self.config, [folder], modules)
            WorkerLoop(self._fabric.ends[rank], self.config, settings, prepared).run()
        except BaseException as error:  # noqa: BLE001
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failures.append(error)
        self._loop.failure = error
        self._loop.wake()

    def connect(self) -> ClientLoop:
        """Return the connection that all clients of this cluster share."""
        return self._loop

    def __repr__(self) -> str:
        self._await_workers()
        return super().__repr__()

    def _repr_html_(self) -> str:
        self._await_workers()
        return super()._repr_html_()

    def _await_workers(self) -> None:
        """Wait for the workers that are still starting, but not long: it is for a display."""
        if not self._closed and self._loop.failure is None:
            core = self._loop.core
            self._loop.wait_until(lambda: core.workers is not None, DISPLAY_WAIT_S)

    def close(self) -> None:
        """End the workers, their slots and the threads, once what was forgotten has ended."""
        if self._closed or self._loop.forked:
            return
        self._closed = True
        _open_clusters.discard(self)
        loop = self._loop
        try:
            if self.finishes_forgotten and loop.failure is None and loop.core.workers is not None:
                loop.finish_forgotten()
        finally:
            self._end()

    def _end(self) -> None:
        loop = self._loop
        if loop.failure is None:
            with loop.lock:
                loop.core.to_scheduler(m.ClientStopped(stop=True))
            loop.wait_until(lambda: loop.core.stopped, self.config.stop_timeout_s)
        loop.close()
        for thread in self._threads:
            thread.join(self.config.stop_timeout_s if loop.failure is None else 0.1)
            if thread.is_alive() and loop.failure is None:
                raise MpiclusterError(f"The thread {thread.name} of the local cluster hangs.")
        for end in self._fabric.ends:
            end.close()


def _check_counts(n_workers: int | None, threads_per_worker: int | None) -> None:
    """Refuse numbers of workers and of slots that make no cluster; None leaves the choice."""
    for name, count, what in (
        ("n_workers", n_workers, "workers"), ("threads_per_worker", threads_per_worker, "slots"),
    ):  # fmt: skip
        if count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(
                f"{name} is {count!r}, but the number of {what} must be a whole number of at least "
                "1. Leave it out to have it chosen."
            )


_open_clusters: "weakref.WeakSet[LocalCluster]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End clusters that a script has left open."""
    for cluster in list(_open_clusters):
        if hasattr(sys, "last_type"):  # an exception has ended the script
            cluster.finishes_forgotten = False
        cluster.close()
