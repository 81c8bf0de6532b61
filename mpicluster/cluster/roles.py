"""Which rank does what, and do the ranks make a cluster at all?

Reads what the launcher promised from the environment, before MPI is initialised, and compares it
with what MPI found. Pure functions; a wrong world is a `WorldError` with the remedy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from mpicluster.cluster.hosts import share_cores
from mpicluster.errors import WorldError
from mpicluster.ids import CLIENT_RANK, FIRST_WORKER_RANK, SCHEDULER_RANK, Rank

#: (size, rank) variables of launchers, the most specific first: Open MPI, PMI (MPICH, Intel MPI),
#: MVAPICH, Slurm's srun.
_WORLD_VARIABLES = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)
_OPEN_MPI = re.compile(r"Open MPI|Spectrum MPI")
#: On a host with at least this many cores ranks 0 and 1 get one of their own.
CORES_TO_SHARE = 8


class Role(Enum):
    """What a rank does."""

    SCHEDULER = "scheduler"
    CLIENT = "client"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Promise:
    """What the launcher says: how many ranks there are and which one this is."""

    size: int
    rank: Rank


def role_of(rank: Rank) -> Role:
    """Return the role of a rank."""
    return {SCHEDULER_RANK: Role.SCHEDULER, CLIENT_RANK: Role.CLIENT}.get(rank, Role.WORKER)


def read_promise(environment: Mapping[str, str]) -> Promise | None:
    """Return what the launcher promised, None if there is no launcher.

    >>> read_promise({"PMI_SIZE": "4", "PMI_RANK": "2"})
    Promise(size=4, rank=2)
    """
    for size_name, rank_name in _WORLD_VARIABLES:
        size, rank = environment.get(size_name, ""), environment.get(rank_name, "")
        if size.isdigit() and rank.isdigit():
            return Promise(int(size), int(rank))
    return None


def is_started_by_open_mpi(environment: Mapping[str, str]) -> bool:
    """Return whether Open MPI's launcher has started this process."""
    return "OMPI_COMM_WORLD_SIZE" in environment


def check_launcher(environment: Mapping[str, str], library: str) -> None:
    """Raise `WorldError` if the launcher is known to belong to another MPI than mpi4py's.

    MPICH ends the process in MPI_Init when it finds Open MPI's launcher, so this comes before.
    """
    if is_started_by_open_mpi(environment) and not _OPEN_MPI.search(library):
        raise WorldError(
            f"The ranks were started by Open MPI's mpirun, but mpi4py uses {library}, so each of "
            "them is alone in its MPI world. Use the mpiexec of that MPI (`mpicluster run` finds "
            "it), or an mpi4py that was installed for Open MPI."
        )


def check_world(size: int, promise: Promise | None, library: str) -> None:
    """Raise `WorldError` if the ranks that MPI found are not those that the launcher started."""
    if promise is not None and promise.size > 1 and size == 1:
        raise WorldError(
            f"The launcher started {promise.size} processes, but each of them is alone in its MPI "
            f"world. mpi4py uses {library}; the launcher belongs to another MPI or speaks another "
            "protocol. Use the mpirun of that MPI (`mpicluster run` finds it), or under srun the "
            "matching --mpi option (`srun --mpi=list`: pmix for Open MPI, pmi2 for MPICH)."
        )
    if size == 2:
        raise WorldError(
            "The job has 2 ranks: rank 0 is the scheduler, rank 1 runs the script, and no rank is "
            "left to be a worker. Start it with at least 3 ranks, for example "
            "`mpicluster run -n 4 script.py`, or without a launcher: `python script.py`."
        )


def worker_slots(
    hosts: list[str], affinities: list[list[int]], wanted: int | None
) -> dict[Rank, int]:
    """Return the slots of each worker rank.

    `hosts` and `affinities` (the cores a rank may use) are in rank order. Ranks with the same
    host and cores share them; ranks 0 and 1 get a core each where there are many.

    >>> worker_slots(["a"] * 4, [[0, 1, 2, 3]] * 4, None)
    {2: 2, 3: 2}
    """
    groups: dict[tuple[str, tuple[int, ...]], list[Rank]] = {}
    for rank in range(FIRST_WORKER_RANK, len(hosts)):
        groups.setdefault((hosts[rank], tuple(affinities[rank])), []).append(rank)
    slots: dict[Rank, int] = {}
    for (host, cores), ranks in groups.items():
        count = len(cores)
        if count >= CORES_TO_SHARE:
            count -= sum(1 for rank in range(FIRST_WORKER_RANK) if hosts[rank] == host)
        for rank, share in zip(ranks, share_cores(count, len(ranks)), strict=True):
            slots[rank] = wanted or share
    return dict(sorted(slots.items()))


def memory_shares(hosts: list[str], memory: list[int]) -> dict[Rank, int]:
    """Return the memory limit of each worker rank: that of its host, divided by its workers."""
    workers: dict[str, list[Rank]] = {}
    for rank in range(FIRST_WORKER_RANK, len(hosts)):
        workers.setdefault(hosts[rank], []).append(rank)
    return {
        rank: memory[rank] // len(ranks) for host, ranks in workers.items() for rank in ranks
    }
