"""How does a worker's zygote come to be, and with what in its memory?

`start_zygote` must be called before MPI is initialised. Where this process has done nothing yet but
to import mpicluster, as under `python -m mpicluster`, the zygote is a fork of it: it has most of
what it needs then, which costs as much as all else that a rank does to start. Else it is a new
process.
"""

import ast
import builtins
import contextlib
import faulthandler
import os
import pickle
import re
import socket
import subprocess
import sys
import traceback
import types
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import psutil

from mpicluster.worker import zygote
from mpicluster.worker.zygote import WorkerAlive

#: Variables by which MPI libraries and launchers recognise their processes; a task that starts an
#: MPI program of its own must not be taken for a rank of ours.
MPI_VARIABLES: Final = (
    "OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_LOCAL", "MPIR_", "HYDRA_", "HYDI_", "PALS_", "MV2_COMM",
    "SLURM_PMI",
)  # fmt: skip
#: Each slot may use this many threads in numerical libraries.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
#: Imported once per worker, before the first slot is forked: fork shares what costs each slot a
#: second else.
PRELOAD: Final = ("cloudpickle", "numpy", "pandas")
#: Imported too where the script speaks of them. Only packages that start no threads, since the
#: zygote forks.
PRELOAD_IF_USED: Final = {
    "dask": ("dask.array", "dask.dataframe"), "scipy": ("scipy.sparse",), "xarray": ("xarray",),
    "sklearn": ("sklearn.base",), "pyarrow": ("pyarrow.parquet",),
}  # fmt: skip
#: The first is of our own program, the others must not be there when a process is forked: MPI, and
#: what reads `THREAD_VARIABLES` when it is imported.
_OWN_PROGRAM: Final = "mpicluster.__main__"
_NOT_FORKED: Final = ("mpi4py.MPI", "numpy")


@dataclass(frozen=True, slots=True)
class ZygoteLink:
    """A zygote's process and our end of its socket."""

    process: psutil.Process
    socket: socket.socket

    def tell_alive(self) -> None:
        """Tell the zygote that this rank turns its loop."""
        # It may have more of these than it needs; and that it has ended is noticed in `ended`.
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self.socket.send(pickle.dumps(WorkerAlive()), socket.MSG_DONTWAIT)

    def stop(self) -> None:
        """End the zygote and with it all its slots."""
        self.socket.close()
        try:
            self.process.wait(timeout=2)
        except psutil.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def modules_to_preload(script: str) -> list[str]:
    """Return what a zygote should import for a script with this text.

    >>> modules_to_preload("import xarray as xr")
    ['cloudpickle', 'numpy', 'pandas', 'xarray']
    >>> modules_to_preload("import subprocess, mpicluster")
    ['cloudpickle']
    """
    if _needs_python_alone(script):
        return [*PRELOAD[:1]]
    words = set(re.findall(r"\w+", script))
    used = [module for word, found in PRELOAD_IF_USED.items() if word in words for module in found]
    return [*PRELOAD, *used]


def _needs_python_alone(script: str) -> bool:
    """Return whether a script imports something, and nothing but Python's modules and ours.

    Starting a worker takes half as long then, and many run programs and other such work.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rank 1 shows them when it runs the script
            nodes = list(ast.walk(ast.parse(script)))
    except (SyntaxError, ValueError, RecursionError):
        return False
    names = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    } | {
        "." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)
    }
    known = sys.stdlib_module_names | {"mpicluster"}
    return bool(names) and {name.split(".")[0] for name in names} <= known


def start_zygote(
    threads_per_slot: int, paths: Iterable[str] = (), modules: Iterable[str] = PRELOAD,
    patience_s: float = 0.0,
) -> ZygoteLink:  # fmt: skip
    """Start a zygote that imports `modules`; `paths` come first where it looks for them.

    With `patience_s` it ends this process when that is silent for so long, after the first
    `tell_alive`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    search = list(dict.fromkeys([*paths, *filter(None, sys.path)]))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(MPI_VARIABLES)
    }
    for name in THREAD_VARIABLES:
        environment[name] = str(threads_per_slot)
    environment["PYTHONPATH"] = os.pathsep.join(search)
    arguments = [str(theirs.fileno()), str(os.getpid()), ",".join(modules), str(patience_s)]
    with theirs:
        if _may_fork():
            process = _fork(ours, theirs, environment, search, arguments)
        else:
            process = _spawn(theirs, environment, arguments)
    return ZygoteLink(process, ours)


def _may_fork() -> bool:
    """Return whether this process has done nothing yet that a fork of it should not have."""
    program = getattr(sys.modules["__main__"], "__spec__", None)
    threads = list(Path("/proc/self/task").iterdir())
    return (
        program is not None and program.name == _OWN_PROGRAM and len(threads) == 1
        and not any(module in sys.modules for module in _NOT_FORKED)
    )  # fmt: skip


def _spawn(
    theirs: socket.socket, environment: Mapping[str, str], arguments: Sequence[str]
) -> psutil.Process:
    program = "import sys; from mpicluster.worker.zygote import main; main(sys.argv[1:])"
    return psutil.Popen(
        [sys.executable, "-c", program, *arguments],
        pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment,
        # A launcher ends the whole group of a rank, and this process has something left to do then.
        process_group=0,
    )  # fmt: skip


def _fork(
    ours: socket.socket, theirs: socket.socket, environment: Mapping[str, str],
    search: list[str], arguments: Sequence[str],
) -> psutil.Process:  # fmt: skip
    _flush_output()
    pid = os.fork()
    if not pid:
        _become_zygote(ours, theirs.fileno(), environment, search, arguments)
    return psutil.Process(pid)


def _become_zygote(
    ours: socket.socket, theirs: int, environment: Mapping[str, str], search: list[str],
    arguments: Sequence[str],
) -> NoReturn:  # fmt: skip
    """Leave what belongs to the rank, and be as a new process is, from here to the end."""
    status = 1
    try:
        os.setpgid(0, 0)
        faulthandler.disable()
        take_empty_input()
        ours.detach()
        _close_all_but(theirs)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = ["", *search]  # the first is where a task is, as under `python -c`
        main = types.ModuleType("__main__")
        main.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = main
        zygote.main(list(arguments))
        status = 0
    except BaseException:  # noqa: BLE001  (nothing of the rank may run in this process)
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            _flush_output()
        os._exit(status)


def take_empty_input() -> None:
    """Let the standard input of this process be empty."""
    with Path(os.devnull).open("rb") as empty:
        os.dup2(empty.fileno(), 0)


def _close_all_but(kept: int) -> None:
    """Close all descriptors but the standard ones and one more.

    The launcher's are among them, which takes their end for that of the rank. By name, not by
    number: where the kernel cannot close a range (close_range(2)), it may have 10^9 numbers.
    """
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  (names, which are numbers)
        if int(name) > 2 and int(name) != kept:
            with contextlib.suppress(OSError):  # the one by which the folder was read
                os.close(int(name))


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
