"""How do tests start programs under real MPI, and see what these leave behind?"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

#: Further Python interpreters, each with mpicluster and an MPI of its own, separated by colons.
OTHER_PYTHONS = "MPICLUSTER_TEST_PYTHONS"
_MARK = "MPICLUSTER_TEST_MARK"


@dataclass(frozen=True)
class Environment:
    """A Python with mpi4py and the MPI that it is bound to."""

    name: str
    python: str

    @property
    def folder(self) -> Path:
        return Path(self.python).parent


def _library(python: str) -> str | None:
    """Return the family of MPI that a Python's mpi4py loads, None if it loads none."""
    code = "from mpicluster.cluster.launch import find_library as f; print(f().family)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def find_environments() -> list[Environment]:
    """Return this Python and the others, one per MPI."""
    pythons = [sys.executable, *filter(None, os.environ.get(OTHER_PYTHONS, "").split(":"))]
    found: dict[str, Environment] = {}
    for python in pythons:
        name = _library(python)
        if name is not None:
            found.setdefault(name, Environment(name, python))
    return list(found.values())


ENVIRONMENTS = find_environments()


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"status {self.status} after {self.seconds:.1f} s\n"
            f"--- stdout ---\n{self.stdout}\n--- stderr ---\n{self.stderr}"
        )


# A shell has what it runs in the background ignore SIGINT, and so would all that we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Runner:
    """Starts commands, ends what hangs, and sees what is left behind."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self.mark = uuid4().hex
        self.process: subprocess.Popen[str] | None = None

    def variables(self) -> dict[str, str]:
        path = f"{self.environment.folder}:{os.environ['PATH']}"
        return {
            **os.environ, "PATH": path, _MARK: self.mark, "PYTHONUNBUFFERED": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }  # fmt: skip

    def start(
        self, *words: str, terminal: int | None = None, **variables: str
    ) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own, perhaps in a terminal's foreground."""
        pipe = subprocess.PIPE
        begin = [] if terminal is None else ["setsid", "--ctty"]  # setsid(1)
        self.process = subprocess.Popen(
            [*begin, *words], cwd=self.folder, env={**self.variables(), **variables}, text=True,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=pipe if terminal is None else terminal,
            stderr=pipe if terminal is None else terminal,
            start_new_session=terminal is None,
        )  # fmt: skip
        return self.process

    def wait(self, timeout: float = 60) -> Ended:
        """Wait for the end; a program that hangs is a failure with all that it printed."""
        assert self.process is not None
        started = time.monotonic()
        try:
            stdout, stderr = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            for process in self.left():
                process.kill()
            stdout, stderr = self.process.communicate()
            pytest.fail(f"The program hung.\n{Ended(-1, stdout, stderr, timeout)}")
        return Ended(self.process.returncode, stdout, stderr, time.monotonic() - started)

    def run(self, *words: str, timeout: float = 60, **variables: str) -> Ended:
        """Run a command to its end."""
        self.start(*words, **variables)
        return self.wait(timeout)

    def mpi(self, ranks: int, program: Path | str, *arguments: str, timeout: float = 60) -> Ended:
        """Run a script on a cluster of `ranks` ranks."""
        return self.run(*self.mpi_words(ranks, program, *arguments), timeout=timeout)

    def mpi_words(
        self, ranks: int, program: Path | str, *arguments: str, options: Sequence[str] = ()
    ) -> list[str]:
        """Return the command that runs a script on `ranks` ranks."""
        command = [self.environment.python, "-m", "mpicluster", "run", "-n", str(ranks)]
        return [*command, *options, str(program), *arguments]

    def raw_mpi(self, ranks: int, *words: str, timeout: float = 60) -> Ended:
        """Start ranks of a program with this MPI's own launcher."""
        return self.run(*self.launcher(ranks), *words, timeout=timeout)

    def launcher(self, ranks: int) -> list[str]:
        """Return the first words of a command line that starts ranks."""
        words = [str(self.environment.folder / "mpirun"), "-n", str(ranks)]
        if self.environment.name == "openmpi":
            words += ["--oversubscribe", "--bind-to", "none"]
        return words

    def left(self) -> list[psutil.Process]:
        """Return the processes of this test that still run."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark:
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def assert_nothing_left(self, seconds: float = 10) -> None:
        """Fail if a process still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        while left := self.left():
            if time.monotonic() > deadline:
                names = [" ".join(process.cmdline()) for process in left]
                for process in left:
                    process.kill()
                pytest.fail(f"Left behind after {seconds} s: {names}")
            time.sleep(0.05)


def new_shared_files(before: set[str], seconds: float = 2) -> set[str]:
    """Return what has been left since; what another program is about to map gets some time."""
    deadline = time.monotonic() + seconds
    while (found := shared_files() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def shared_files() -> set[str]:
    """Return what lies in shared memory and scratch and is in no process's use."""
    found = {
        str(path)
        for folder, pattern in (("/dev/shm", "*"), ("/tmp", "mpicluster-*"))
        for path in Path(folder).glob(pattern)
    }
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:
            continue
        found -= {path for path in found if path in text}
    return found
