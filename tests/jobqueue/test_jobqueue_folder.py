"""Are a job's files whole, and are the jobs of a user found again?"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobqueue.errors import JobNotFound
from jobqueue.folder import JobFolder, slug
from jobqueue.registry import find, known_jobs, registry_folder, remember
from jobqueue.states import ExitRecord


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
    assert folder.read_log() == ""
    for role in ("worker-3", "output", "batch"):
        folder.log(role).write_text(role)
    assert folder.roles() == ["output", "worker-3", "batch"]
    assert folder.read_log("worker-3") == "worker-3"
    with pytest.raises(JobNotFound, match="has only: output, worker-3, batch"):
        folder.read_log("worker-4")


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
