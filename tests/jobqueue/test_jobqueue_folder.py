"""Are a job's files whole, and are the jobs of a user found again?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue.folder import JobFolder, read_log, slug
from jobqueue.registry import KnownJob, find, known_jobs, registry_folder, remember
from jobqueue.states import ExitRecord

ROOT = Path(__file__).resolve().parents[2]


def make(home: Path, name: str = "job") -> JobFolder:
    folder = JobFolder.plan(home / "jobs", name)
    folder.create("#!/bin/bash\n")
    return folder


def test_a_folder_has_a_script_and_a_record(home: Path) -> None:
    folder = make(home, "my $(analysis)\n.py")
    assert folder.path.name.startswith("my-analysis-.py-")
    folder.update_record(name="a", state="new")
    folder.update_record(state="queued")
    assert folder.read_record() == {"name": "a", "state": "queued"}
    assert sorted(path.name for path in folder.path.iterdir()) == ["job.json", "job.sh"]


def test_a_failed_write_leaves_the_file_before(home: Path) -> None:
    folder = make(home)
    folder.write("file", b"whole")
    with pytest.raises(TypeError):
        folder.write("file", "no bytes")  # type: ignore[arg-type]
    assert (folder.path / "file").read_bytes() == b"whole"
    assert len(list(folder.path.iterdir())) == 2


def test_a_broken_record_is_no_record(home: Path) -> None:
    folder = make(home)
    for text in ("", "{", "[1]"):
        (folder.path / "job.json").write_text(text)
        assert folder.read_record() == {}


def test_exit_records(home: Path) -> None:
    folder = make(home)
    assert folder.exit_records([None]) == {}
    (folder.path / "exit-status").write_text("143 TERM\n")
    (folder.path / "exit-status-4").write_text("0 \n")
    (folder.path / "exit-status-5").write_text("what?\n")
    assert folder.exit_records([None, 4, 5]) == {None: ExitRecord(143, "TERM"), 4: ExitRecord(0)}


def test_logs_of_roles(home: Path) -> None:
    folder = make(home)
    assert read_log(folder.log()) == ""
    for role in ("worker-10", "worker-3", "output", "batch"):
        folder.log(role).write_text(role)
    assert folder.roles() == ["output", "worker-3", "worker-10", "batch"]
    assert read_log(folder.log("worker-3")) == "worker-3"


def test_roles_of_arrays_are_without_the_index(home: Path) -> None:
    folder = make(home)
    for index in (1, 3, 8):
        for role in ("output", "worker-2"):
            folder.log(role, index).touch()
    (folder.path / "own.log").touch()
    assert folder.roles(range(1, 5)) == ["output", "worker-2"]


def test_slugs_are_harmless() -> None:
    assert [slug(text) for text in ("", "../..", "-rf *", "1st", "a" * 99)] == [
        "job",
        "job",
        "rf",
        "st",
        "a" * 60,
    ]


def test_jobs_are_found_again(home: Path) -> None:
    first, second = make(home), make(home)
    remember("slurm", "17", first)
    remember("pbs", "17.server", second)
    assert {(known.system, known.job_id) for known in known_jobs()} == {
        ("slurm", "17"),
        ("pbs", "17.server"),
    }
    assert find("17", "pbs") == find("17.server")
    found = find("17")
    assert found is not None
    assert found.folder == first
    assert find("18") is None
    remember("slurm", "17", second)
    assert len(list(known_jobs())) == 2


def test_deleted_folders_are_forgotten(home: Path) -> None:
    folder = make(home)
    remember("slurm", "17", folder)
    shutil.rmtree(folder.path)
    assert list(known_jobs()) == []
    assert list(registry_folder().iterdir()) == []


def test_a_home_that_cannot_be_written_costs_only_the_memory(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    remember("slurm", "17", make(home))
    assert list(known_jobs()) == []
    assert "could not be noted" in caplog.text


def test_looks_while_another_process_submits_find_all_jobs(home: Path) -> None:
    """A link that was replaced meanwhile once made the whole list empty."""
    folder = make(home)
    for number in range(20):
        remember("slurm", str(number), folder)
    code = (
        "from pathlib import Path; from jobqueue.registry import remember; "
        "from jobqueue.folder import JobFolder\n"
        f"while True: remember('slurm', '99', JobFolder(Path({str(folder.path)!r})))"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        for _ in range(300):
            assert len(list(known_jobs())) >= 20
            assert find("7") is not None
    finally:
        other.kill()
        other.wait()


def test_a_job_is_found_without_a_look_at_all_others(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(home)
    for number in range(50):
        remember("slurm", str(number), folder)
    looked: list[Path] = []
    readlink = Path.readlink
    monkeypatch.setattr(Path, "readlink", lambda path: looked.append(path) or readlink(path))
    assert find("7") == KnownJob("slurm", "7", folder)
    assert len(looked) == 1
