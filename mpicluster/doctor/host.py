"""What does a rank see of its host?

Reads /proc, /sys and the environment, and tries out what a worker will need (`trials.py`). Never
touches MPI: a job does all this before MPI is initialised too.
"""

import os
import platform
import resource
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from mpicluster.cluster.hosts import available_cores, available_memory, process_limit
from mpicluster.config import Config
from mpicluster.doctor.facts import (
    FabricFacts,
    LibraryFacts,
    LimitFacts,
    RankFacts,
    ScratchFacts,
)
from mpicluster.doctor.trials import try_arena, try_slot
from mpicluster.ids import Rank
from mpicluster.transport.mpi import library_text, load
from mpicluster.versions import local_versions
from mpicluster.worker.scratch import choose_folder, file_system, nearest_folder, why_unusable

#: Variables that tell Open MPI, UCX, libfabric, Intel MPI and MPICH how to send messages.
SETTINGS: Final = (
    "OMPI_MCA_pml", "OMPI_MCA_btl", "OMPI_MCA_mtl", "UCX_TLS", "UCX_NET_DEVICES", "FI_PROVIDER",
    "I_MPI_FABRICS", "I_MPI_OFI_PROVIDER", "MPIR_CVAR_CH4_NETMOD", "MPIR_CVAR_OFI_USE_PROVIDER",
)  # fmt: skip
#: Variables by which batch systems say how many cores of this host belong to the job.
_GRANTED: Final = ("SLURM_CPUS_ON_NODE", "NCPUS")
#: The type of an IP interface over InfiniBand (if_arp.h: ARPHRD_INFINIBAND).
_INFINIBAND: Final = "32"


def inspect_host(rank: Rank, config: Config) -> RankFacts:
    """Return what this process sees of its host; starts a slot and ends it."""
    memory = available_memory()
    shm = Path("/dev/shm")
    shm_usage = shutil.disk_usage(shm) if shm.is_dir() else None
    arena_error, small_pages = try_arena(memory, config.huge_pages)
    return RankFacts(
        host=platform.node(),
        affinity=tuple(sorted(os.sched_getaffinity(0))),
        cores=available_cores(),
        granted_cores=granted_cores(os.environ),
        memory_bytes=memory,
        memory_free_bytes=int(psutil.virtual_memory().available),
        arena_error=arena_error,
        small_pages=small_pages,
        shm_bytes=shm_usage.total if shm_usage else 0,
        shm_free_bytes=shm_usage.free if shm_usage else 0,
        slot=try_slot(rank, config),
        scratch=look_at_scratch(config.scratch, os.environ, Path("/proc/mounts").read_text()),
        limits=find_limits(),
        fabrics=find_fabrics(Path("/sys/class")),
        settings={name: os.environ[name] for name in SETTINGS if os.environ.get(name)},
        versions=local_versions(),
    )


def inspect_library() -> LibraryFacts:
    """Return what mpi4py has loaded; raises ImportError or RuntimeError if it loads nothing."""
    MPI = load()  # noqa: N806  (the name of the module)
    vendor, numbers = MPI.get_vendor()
    return LibraryFacts(
        mpi4py=metadata.version("mpi4py"),
        built_for=f"{vendor} {_dotted(numbers)}",
        library=library_text(),
        standard=_dotted(MPI.Get_version()),
    )


def _dotted(numbers: Any) -> str:
    return ".".join(str(number) for number in numbers)


def granted_cores(environment: Mapping[str, str]) -> int:
    """Return the cores of this host that the batch system, or the container, has granted."""
    for name in _GRANTED:
        if environment.get(name, "").isdigit():
            # A batch system may have been told of more cores than there are.
            return min(int(environment[name]), os.cpu_count() or 1)
    # Process 1 has the cores of its container, and is never bound by a launcher.
    with suppress(OSError):
        for line in Path("/proc/1/status").read_text().splitlines():
            if line.startswith("Cpus_allowed_list:"):
                return count_cores(line.split()[1])
    return os.cpu_count() or 1


def count_cores(text: str) -> int:
    """Return how many cores a list of the kernel names.

    >>> count_cores("0-3,8,10-11")
    7
    """
    bounds = [part.partition("-") for part in text.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in bounds)


def look_at_scratch(named: str, environment: Mapping[str, str], mounts: str) -> ScratchFacts:
    """Return where values would be spilled to; writes a file there and removes it."""
    folder = choose_folder(named, environment, mounts)
    if folder is None:
        return ScratchFacts("", named=False)
    existing = nearest_folder(folder)
    return ScratchFacts(
        folder=str(folder), named=bool(named), file_system=file_system(existing, mounts),
        free_bytes=shutil.disk_usage(existing).free, error=why_unusable(folder),
    )  # fmt: skip


def find_limits() -> LimitFacts:
    """Return the limits of this process: setrlimit(2), and the cgroup's on processes."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    found = [process_limit(), None if processes == resource.RLIM_INFINITY else processes]
    return LimitFacts(
        open_files=None if files == resource.RLIM_INFINITY else files,
        processes=min((limit for limit in found if limit is not None), default=None),
    )


def find_fabrics(classes: Path) -> tuple[FabricFacts, ...]:
    """Return the fast network devices; `classes` is /sys/class (sysfs(5))."""
    found: list[FabricFacts] = []
    for device in _entries(classes / "infiniband"):
        ports = _entries(device / "ports")
        active = any("ACTIVE" in _read(port / "state") for port in ports)
        layers = {_read(port / "link_layer") for port in ports}
        found.append(FabricFacts(device.name, _kind(device.name, layers), active))
    found += [FabricFacts(device.name, "Slingshot", True) for device in _entries(classes / "cxi")]
    if not found:
        # Some containers show the interfaces of the network, but not its devices.
        found += [
            FabricFacts(link.name, "InfiniBand", _read(link / "operstate") == "up")
            for link in _entries(classes / "net")
            if _read(link / "type") == _INFINIBAND
        ]
    return tuple(found)


def _kind(device: str, layers: set[str]) -> str:
    if device.startswith("hfi1"):
        return "Omni-Path"
    if device.startswith(("efa", "rdmap")):
        return "EFA"
    return "RoCE" if layers == {"Ethernet"} else "InfiniBand"


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(path: Path) -> str:
    """Return the content of a file of /sys, "" if it cannot be read: drivers differ."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
