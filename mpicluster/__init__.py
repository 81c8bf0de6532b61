"""mpicluster: Dask's client, scheduler and workers for supercomputers, over MPI.

Importing this package starts no MPI and imports neither numpy, pandas nor dask.
"""

from builtins import TimeoutError  # noqa: A004  (distributed has it under this name)
from typing import Any

from mpicluster.absent import refuse_module_name
from mpicluster.client.client import Client
from mpicluster.client.collect import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    as_completed,
    fire_and_forget,
    futures_of,
    wait,
)
from mpicluster.client.coordination import Event, Lock, Queue, Semaphore, Variable
from mpicluster.client.future import Future
from mpicluster.client.plugins import WorkerPlugin
from mpicluster.client.progress import progress
from mpicluster.cluster.local import LocalCluster
from mpicluster.cluster.script import initialize
from mpicluster.config import Config
from mpicluster.errors import (
    CancelledError,
    ClusterClosedError,
    KilledWorker,
    LostValueError,
    MpiclusterError,
    NoValidWorkerError,
    RemoteTaskError,
    TaskSerializationError,
    VersionMismatchError,
)
from mpicluster.tasks import get_client, get_worker, rejoin, secede, worker_client

__version__ = "0.1.0"

default_client = Client.current


def __getattr__(name: str) -> Any:
    refuse_module_name(name)


__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "CancelledError",
    "Client",
    "ClusterClosedError",
    "Config",
    "Event",
    "Future",
    "KilledWorker",
    "LocalCluster",
    "Lock",
    "LostValueError",
    "MpiclusterError",
    "NoValidWorkerError",
    "Queue",
    "RemoteTaskError",
    "Semaphore",
    "TaskSerializationError",
    "TimeoutError",
    "Variable",
    "VersionMismatchError",
    "WorkerPlugin",
    "__version__",
    "as_completed",
    "default_client",
    "fire_and_forget",
    "futures_of",
    "get_client",
    "get_worker",
    "initialize",
    "progress",
    "rejoin",
    "secede",
    "wait",
    "worker_client",
]
