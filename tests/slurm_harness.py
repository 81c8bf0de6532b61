"""How do tests run jobs of mpicluster under a real Slurm, and see how these end?"""

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from batch_harness import JOB_S

ROOT = Path(__file__).resolve().parents[1]
TESTCLUSTER = ROOT / "slurm" / "testcluster"


@dataclass(frozen=True)
class Ended:
    """How a job ended; the states are those of its array's elements."""

    states: list[str]
    status: int
    log: str

    def __str__(self) -> str:
        return f"{self.states}, status {self.status}\n{self.log}"


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
