"""Does a job live the same life on every batch system? One test for all, against fake commands on
PATH.
"""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobqueue import Configuration, JobSpec, JobState, StatusError, SubmitError, system_class
from jobqueue.folder import JobFolder

if TYPE_CHECKING:
    from tests.jobqueue.conftest import FakeBatch


def test_a_job_is_queued_runs_and_completes(fake: FakeBatch) -> None:
    job = fake.make().submit_command_line(["echo", "hello world"], nodes=2)
    assert job.state is JobState.QUEUED
    fake.set(job.id, state="running")
    job.system.poller.hurry()
    assert job.state is JobState.RUNNING
    fake.run(job.id)
    assert job.wait(5) is JobState.COMPLETED
    assert job.exit_status == 0
    assert job.output() == "hello world\n"


def test_a_failing_job_fails_with_its_exit_status(fake: FakeBatch) -> None:
    job = fake.make().submit_command_line(["bash", "-c", "echo oh >&2; exit 3"])
    fake.run(job.id)
    assert job.wait(5) is JobState.FAILED
    assert job.exit_status == 3
    assert job.output() == "oh\n"
    assert "exit status 3" in job.failure()


def test_a_cancelled_job_is_cancelled(fake: FakeBatch) -> None:
    job = fake.make().submit_command_line(["true"])
    job.cancel()
    assert job.wait(5) is JobState.CANCELLED
    job.cancel()  # a second time harms nobody


def test_another_process_finds_the_job_and_its_end(fake: FakeBatch) -> None:
    job = fake.make().submit_command_line(["true"], name="first")
    again = fake.make().job(job.id)
    assert again.name == "first"
    fake.run(job.id)
    assert again.wait(5) is JobState.COMPLETED
    fake.set(job.id, state="forgotten")
    assert fake.make().job(job.id).state is JobState.COMPLETED  # from the folder, nobody is asked


def test_an_array_ends_when_all_its_elements_have(fake: FakeBatch) -> None:
    job = fake.make().submit_command_line(
        ["bash", "-c", "exit $((JOBQUEUE_ARRAY_INDEX - 1))"], array="1-3"
    )
    for index in (1, 2, 3):
        fake.run(job.id, index)
    assert job.wait(5) is JobState.FAILED
    assert job.exit_statuses == {1: 0, 2: 1, 3: 2}
    assert job.exit_status == 2


def test_what_nobody_knows_is_unknown_with_one_warning(
    fake: FakeBatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = fake.make().submit_command_line(["true"])
    fake.set(job.id, state="forgotten")
    assert job.wait(5) is JobState.UNKNOWN
    assert job.state is JobState.UNKNOWN
    assert [r.levelno for r in caplog.records if job.id in r.getMessage()] == [logging.WARNING]


def test_an_exit_record_decides_where_no_accounting_is(fake: FakeBatch) -> None:
    job = fake.make().submit_command_line(["bash", "-c", "exit 7"])
    fake.run(job.id)
    fake.set(job.id, state="forgotten")
    assert job.wait(5) is JobState.FAILED
    assert job.exit_status == 7


def test_an_unheard_of_state_is_unknown_with_one_warning(
    fake: FakeBatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = fake.make().submit_command_line(["true"])
    fake.set(job.id, native="FROBNICATING?")
    for _ in range(3):
        job.system.poller.hurry()
        assert job.state is JobState.UNKNOWN
    assert len([r for r in caplog.records if "FROBNICATING" in r.getMessage()]) == 1
    fake.set(job.id, native=None)
    fake.run(job.id)
    assert job.wait(5) is JobState.COMPLETED


def test_all_jobs_are_asked_about_in_one_call(fake: FakeBatch) -> None:
    system = fake.make(poll_interval_s_min=60)
    jobs = [system.submit_command_line(["true"]) for _ in range(4)]
    assert [job.state for job in jobs] == [JobState.QUEUED] * 4
    assert len(fake.calls(fake.status_program)) == 1


@pytest.mark.parametrize("mode", ["fail", "hang"])
def test_a_silent_batch_system_changes_no_state(
    fake: FakeBatch, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    system = fake.make(status_timeout_s=0.1 if mode == "hang" else 5)
    job = system.submit_command_line(["true"])
    fake.misbehave(fake.status_program, mode)
    for _ in range(2):
        system.poller.hurry()
        assert job.state is JobState.QUEUED
    assert len(caplog.records) == 1
    fake.misbehave(fake.status_program, "")
    fake.run(job.id)
    assert job.wait(5) is JobState.COMPLETED


def test_a_silent_batch_system_leaves_what_another_process_has_found(fake: FakeBatch) -> None:
    """A job that was known to run was once told to be queued by the next process."""
    job = fake.make().submit_command_line(["true"])
    fake.set(job.id, state="running")
    assert job.state is JobState.RUNNING
    fake.misbehave(fake.status_program, "fail")
    assert fake.make().job(job.id).state is JobState.RUNNING
    fake.misbehave(fake.status_program, "")
    fake.run(job.id)
    assert fake.make().job(job.id).wait(5) is JobState.COMPLETED


def test_waiting_for_a_silent_batch_system_ends_one_day(fake: FakeBatch) -> None:
    job = fake.make(silence_s_max=0.05).submit_command_line(["true"])
    fake.misbehave(fake.status_program, "fail")
    with pytest.raises(StatusError, match="without an answer"):
        job.wait(5)


@pytest.mark.parametrize("mode", ["fail", "garbage", "hang", "silent", "killed"])
def test_nothing_is_half_submitted(fake: FakeBatch, mode: str) -> None:
    system = fake.make(submit_timeout_s=0.2 if mode == "hang" else 5)
    fake.misbehave(fake.submit_program, mode)
    with pytest.raises(SubmitError) as caught:
        system.submit_command_line(["touch", "ran"], log_folder="logs")
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert caught.value.transient == (mode == "hang")
    assert caught.value.in_doubt == (mode != "fail")
    assert ("cancel what is too many" in text) == (mode != "fail")
    (folder,) = Path("logs").iterdir()
    assert caught.value.folder == folder.resolve()
    record = json.loads((folder / "job.json").read_text())
    assert record["submission"] == "failed"
    assert record["error"] == text


def test_a_job_that_was_reported_as_failed_runs_nothing(fake_slurm: FakeBatch) -> None:
    fake_slurm.misbehave("sbatch", "garbage")
    with pytest.raises(SubmitError) as caught:
        fake_slurm.make().submit_command_line(["touch", "ran"])
    folder = caught.value.folder
    assert folder is not None
    fake_slurm.set("9", script=folder / "job.sh")
    assert fake_slurm.run("9") == 1
    assert not Path("ran").exists()


def test_a_submission_that_hangs_after_it_named_the_id_is_one(
    fake: FakeBatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once it was told that the job runs nothing, and it ran to its end."""
    fake.misbehave(fake.submit_program, "late")
    job = fake.make(submit_timeout_s=0.5).submit_command_line(["echo", "hello"])
    assert f"The job was made all the same: its id is {job.id}." in caplog.text
    fake.run(job.id)
    assert job.wait(5) is JobState.COMPLETED
    assert job.output() == "hello\n"
    assert fake.make().job(job.id).state is JobState.COMPLETED


@pytest.mark.parametrize("ending", ["echo garbage", "sleep 600", "kill -KILL $$"])
def test_a_job_that_has_begun_tells_its_id_itself(
    fake: FakeBatch, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The submit command may fail in any way once the job runs."""
    job_id = "17.pbs" if fake.system == "pbs" else "17"
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID", "LSB_JOBID"):
        monkeypatch.setenv(name, job_id)
    program = tmp_path / f"bin-{fake.system}" / fake.submit_program
    program.unlink()
    program.write_text(f"#!/bin/bash\nbash job.sh </dev/null\n{ending}\n")
    program.chmod(0o755)
    job = fake.make(submit_timeout_s=1).submit_command_line(["echo", "hello"])
    assert job.id == job_id
    assert job.output() == "hello\n"
    fake.set(job.id, state="ended", exit_status=0)
    assert job.wait(5) is JobState.COMPLETED


@pytest.mark.parametrize(
    ("name", "told", "job_id"),
    [
        ("slurm", {"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "17"}, "17"),
        ("pbs", {"PBS_JOBID": "17[3].server"}, "17[].server"),
        ("sge", {"JOB_ID": "17"}, "17"),
        ("lsf", {"LSB_JOBID": "17"}, "17"),
    ],
)
def test_elements_of_an_array_tell_the_id_of_the_whole(
    name: str, told: dict[str, str], job_id: str, home: Path
) -> None:
    folder = JobFolder(home / "job")
    system = system_class(name)(configuration=Configuration(), log_folder=home)
    folder.create(system.script(JobSpec.from_options(["true"], {"array": "1-3"}), folder.path))
    environment = {"PATH": "/usr/bin:/bin", system.index_variable: "3", **told}
    subprocess.run(["bash", folder.path / "job.sh"], env=environment, check=True)
    assert folder.told_id() == job_id


def test_a_job_that_may_have_begun_before_its_submission_failed_is_told(
    fake_slurm: FakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        JobFolder, "told_id", lambda self: "17" if (self.path / "do-not-run").exists() else ""
    )
    fake_slurm.misbehave("sbatch", "garbage")
    with pytest.raises(SubmitError) as caught:
        fake_slurm.make().submit_command_line(["echo", "hello"])
    (note,) = caught.value.__notes__
    assert note.startswith("A job has come of it, 17, and may have begun")


def test_a_job_that_was_seen_to_run_was_not_cancelled_before_it_ran(fake: FakeBatch) -> None:
    for ran in (True, False):
        job = fake.make().submit_command_line(["true"])
        job.cancel()
        assert job.cancel_accepted
        fake.set(job.id, state="forgotten")
        if ran:
            job.logs()[None].touch()
        assert job.wait(5) is JobState.CANCELLED
        assert job.status.reason == f"The job was cancelled{'' if ran else ' before it ran'}."


def test_a_job_of_others_that_was_cancelled_is_cancelled(fake_slurm: FakeBatch) -> None:
    fake_slurm.set("77", state="running")
    job = fake_slurm.make().job("77")
    job.cancel()
    fake_slurm.set("77", state="forgotten")
    assert job.wait(5) is JobState.CANCELLED
    assert job.status.reason == "The job was cancelled."


def test_a_submission_that_cannot_be_noted_is_one(
    fake_slurm: FakeBatch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that was full by then once cost the id of a job that ran."""
    update = JobFolder.update_record

    def full(folder: JobFolder, **values: object) -> None:
        if values.get("submission") == "submitted":
            raise OSError(errno.ENOSPC, "No space left on device", str(folder.path))
        update(folder, **values)

    monkeypatch.setattr(JobFolder, "update_record", full)
    job = fake_slurm.make().submit_command_line(["true"])
    assert job.id == "1"
    assert "That job 1 was submitted cannot be noted" in caplog.text
    fake_slurm.run(job.id)
    assert job.wait(5) is JobState.COMPLETED


def test_what_slurm_does_not_know_was_not_cancelled(fake_slurm: FakeBatch) -> None:
    """scancel says so only with -v, and its status is 0."""
    job = fake_slurm.make().submit_command_line(["true"])
    fake_slurm.set(job.id, state="forgotten")
    job.cancel()
    assert not job.cancel_accepted
    assert job.wait(5) is JobState.UNKNOWN


def test_a_job_that_left_the_queue_long_ago_is_settled(
    fake: FakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process once waited for its files anew, months later too."""
    job = fake.make(file_patience_s=1000).submit_command_line(["true"])
    fake.set(job.id, state="forgotten")
    assert job.state is JobState.UNKNOWN
    assert not job.ended
    begun = time.time()
    monkeypatch.setattr(time, "time", lambda: begun + 2000)
    again = fake.make(file_patience_s=1000).job(job.id)
    assert again.wait(5) is JobState.UNKNOWN
    monkeypatch.setattr(time, "time", lambda: begun + 100_000)
    later = fake.make().job(job.id)
    assert later.ended
    assert later.status.reason.startswith("It left the queue")


def test_a_damaged_record_is_told_and_the_job_goes_on(
    fake_slurm: FakeBatch, caplog: pytest.LogCaptureFixture
) -> None:
    for damage in (5, "5-1", [1]):
        job = fake_slurm.make().submit_command_line(["true"], array="0-1")
        assert job.folder is not None
        job.folder.update_record(array=damage, exit_status="x", left_queue_at="y")
        assert fake_slurm.make().job(job.id).state is JobState.QUEUED
    assert "is damaged" in caplog.text


def test_a_script_is_run_by_its_launcher(fake_slurm: FakeBatch) -> None:
    Path("analysis.py").write_text("import sys; print(sys.argv[1:])")
    job = fake_slurm.make(launch=[sys.executable]).submit("analysis.py", "--year", 2026)
    assert job.name == "analysis"
    fake_slurm.run(job.id)
    job.wait(5)
    assert job.output() == "['--year', '2026']\n"


def test_a_function_brings_its_result_back(fake_slurm: FakeBatch) -> None:
    job = fake_slurm.make(launch=[sys.executable]).submit(divmod, 17, 5)
    fake_slurm.run(job.id)
    assert job.result(5) == (3, 2)
