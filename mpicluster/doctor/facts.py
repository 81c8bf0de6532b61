"""What can be known about an environment before a cluster runs in it?

Plain records. They are measured elsewhere (`host.py`, `trials.py`, `talks.py`) and judged in
`findings.py`; here nothing is done.
"""

from dataclasses import dataclass, field

from mpicluster.ids import Rank


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """The MPI that mpi4py has loaded."""

    mpi4py: str
    #: The MPI whose headers mpi4py was compiled with, like "Open MPI 5.0.11".
    built_for: str
    #: What the library says of itself, in one line.
    library: str
    #: The version of the MPI standard, like "3.1".
    standard: str


@dataclass(frozen=True, slots=True)
class FabricFacts:
    """A network device that is made for MPI."""

    device: str
    #: "InfiniBand", "Omni-Path", "Slingshot", "EFA" or "RoCE".
    kind: str
    active: bool


@dataclass(frozen=True, slots=True)
class ScratchFacts:
    """The folder for values that do not fit into memory."""

    #: "" if no disk is suitable.
    folder: str
    #: The user has named it.
    named: bool
    file_system: str = ""
    free_bytes: int = 0
    #: Why nothing can be written there, "" if it can.
    error: str = ""


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What came of starting one slot as a worker does."""

    #: Seconds until it had run its first function.
    seconds: float = 0.0
    #: Why it did not, "" if it did.
    error: str = ""


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """What the system grants a process; None: as many as it likes."""

    open_files: int | None
    processes: int | None


@dataclass(frozen=True, slots=True)
class RankFacts:
    """What one rank sees of its host."""

    host: str
    #: Numbers of the cores that the rank may use.
    affinity: tuple[int, ...]
    #: Cores that it may keep busy: fewer than those if a quota says so.
    cores: int
    #: Cores of the host that the job, or the container, has been given.
    granted_cores: int
    memory_bytes: int
    memory_free_bytes: int
    #: Why large values cannot lie in shared memory, "" if they can.
    arena_error: str
    #: Why they cannot lie in huge pages, "" if they can, or are not to.
    small_pages: str
    #: Size of /dev/shm, 0 if there is none.
    shm_bytes: int
    shm_free_bytes: int
    slot: SlotFacts
    scratch: ScratchFacts
    limits: LimitFacts
    fabrics: tuple[FabricFacts, ...]
    #: Variables that tell MPI libraries how to send messages.
    settings: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class PairFacts:
    """How fast messages go between two ranks."""

    ranks: tuple[Rank, Rank]
    #: Half the time that a message of 8 bytes takes there and back (median).
    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """How far the clock of a host is ahead of that of rank 0's host."""

    host: str
    offset_s: float
    #: The offset is known this well: half the way there and back.
    uncertainty_s: float


@dataclass(frozen=True, slots=True)
class WorldFacts:
    """All ranks together."""

    library: LibraryFacts
    #: Name of the level that MPI granted, like "MPI_THREAD_SERIALIZED".
    thread_level: str
    #: The level lets threads of a process call MPI, one at a time.
    threads_suffice: bool
    #: In rank order.
    ranks: tuple[RankFacts, ...]
    pairs: tuple[PairFacts, ...] = field(default=())
    clocks: tuple[ClockFacts, ...] = field(default=())
