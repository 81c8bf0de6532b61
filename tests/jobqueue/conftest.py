"""What do the tests of jobqueue share?

A home of their own for every test, and a fake batch system on PATH that plays Slurm, PBS, Grid
Engine and LSF.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobqueue import LSF, PBS, SGE, BatchSystem, Configuration, Local, Slurm

HERE = Path(__file__).parent
CLASSES: dict[str, type[BatchSystem]] = {"slurm": Slurm, "pbs": PBS, "sge": SGE, "lsf": LSF}
PROGRAMS = {
    "slurm": ("sbatch", "squeue", "scancel", "sacct", "scontrol"),
    "pbs": ("qsub", "qstat", "qdel", "pbsnodes"),
    "sge": ("qsub", "qstat", "qdel", "qacct", "qconf"),
    "lsf": ("bsub", "bjobs", "bkill", "bhist"),
}
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}
STATUS = {"slurm": "squeue", "pbs": "qstat", "sge": "qstat", "lsf": "bjobs"}
INDEX = {
    "slurm": "SLURM_ARRAY_TASK_ID",
    "pbs": "PBS_ARRAY_INDEX",
    "sge": "SGE_TASK_ID",
    "lsf": "LSB_JOBINDEX",
}
#: every interval short, so that no test waits for a clock
FAST: dict[str, Any] = {
    "poll_interval_s_min": 0.01,
    "poll_interval_s_max": 0.02,
    "file_patience_s": 0.05,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in an empty folder, and neither reads nor writes the user's own files."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


class FakeBatch:
    """The test's hand on the fake batch system: the files that `fake_bin/fake_batch` reads."""

    def __init__(self, system: str, folder: Path) -> None:
        self.system = system
        self.folder = folder
        self.submit_program = SUBMIT[system]
        self.status_program = STATUS[system]
        for name in ("jobs", "modes"):
            (folder / name).mkdir(parents=True)
        (folder / "next").write_text("1\n")

    def set(self, job_id: str, **values: object) -> None:
        """Change what is known about a job; None takes it away."""
        (self.folder / "jobs" / job_id).mkdir(exist_ok=True)
        for name, value in values.items():
            (self.folder / "jobs" / job_id / name).write_text("" if value is None else str(value))

    def misbehave(self, program: str, mode: str) -> None:
        """Make a command misbehave: fail, hang, print garbage, be silent; "" ends that."""
        (self.folder / "modes" / program).write_text(mode)

    def calls(self, program: str) -> list[str]:
        """Return the command lines with which a program was called."""
        lines = (self.folder / "calls").read_text() if (self.folder / "calls").exists() else ""
        return [line for line in lines.splitlines() if line.partition(" ")[0] == program]

    def run(self, job_id: str, index: int | None = None) -> int:
        """Really run the job's script, as the batch system would, and note how it ended."""
        script = Path((self.folder / "jobs" / job_id / "script").read_text())
        environment = os.environ | ({} if index is None else {INDEX[self.system]: str(index)})
        done = subprocess.run(
            ["bash", str(script)], cwd=script.parent, env=environment, check=False
        )
        self.set(job_id, state="ended", exit_status=done.returncode)
        return done.returncode

    def make(self, **options: Any) -> BatchSystem:
        """Return the batch system object that talks to this fake."""
        if self.system == "sge":
            options = {"parallel_environment": "mpi", **options}
        return CLASSES[self.system](configuration=Configuration(), **{**FAST, **options})


def install(system: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBatch:
    """Put the commands of a batch system on PATH, and those of no other."""
    programs = folder / f"bin-{system}"
    programs.mkdir()
    for name in PROGRAMS[system]:
        (programs / name).symlink_to(HERE / "fake_bin" / "fake_batch")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_BATCH", str(folder / "fake"))
    monkeypatch.setenv("FAKE_SYSTEM", system)
    return FakeBatch(system, folder / "fake")


@pytest.fixture(params=["slurm", "pbs", "sge", "lsf"])
def fake(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FakeBatch:
    """Each batch system in turn."""
    return install(request.param, tmp_path, monkeypatch)


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBatch:
    """Slurm, for tests that do not differ between systems."""
    return install("slurm", tmp_path, monkeypatch)


@pytest.fixture
def local() -> Local:
    """This machine, with short intervals."""
    return Local(configuration=Configuration(), poll_interval_s_max=0.05)
