"""Do jobs really run on this machine, outlive their submitter, and end when told to?"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jobqueue import JobFailed, JobState, Local, RemoteTraceback, SpecError, SubmitError

ROOT = Path(__file__).resolve().parents[2]


def until(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def end_session(leader: int) -> None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(entry.name)) == leader:
                    os.kill(int(entry.name), 9)


def test_a_job_runs(local: Local) -> None:
    job = local.submit_command_line(["bash", "-c", "echo hello; exit 3"])
    assert job.wait(10) is JobState.FAILED
    assert (job.exit_status, job.output(), job.roles()) == (3, "hello\n", ["output", "batch"])
    assert Local.attach(job.id).exit_status == 3


def test_a_job_that_runs_is_running_and_can_be_cancelled(local: Local, home: Path) -> None:
    job = local.submit_command_line(["bash", "-c", "sleep 60 & echo $! >child; touch ready; wait"])
    until(home / "ready")
    assert job.state is JobState.RUNNING
    job.cancel()
    assert job.wait(10) is JobState.CANCELLED
    assert job.exit_status == 143
    assert not lives(int((home / "child").read_text()))
    job.cancel()


@pytest.mark.parametrize("wait_s", [0.0, 0.005, 0.02, 0.05])
def test_a_job_can_be_cancelled_before_its_script_listens(local: Local, wait_s: float) -> None:
    """Its shells need some milliseconds to start, in which SIGTERM would end them unheard."""
    job = local.submit_command_line(["sleep", "60"])
    time.sleep(wait_s)
    job.cancel()
    assert job.wait(30) is JobState.CANCELLED
    assert job.exit_status == 143


def test_a_job_outlives_the_process_that_submitted_it(local: Local, home: Path) -> None:
    code = (
        "from jobqueue import *; import os, signal; "
        "job = Local(configuration=Configuration()).submit_command_line("
        "['bash', '-c', 'until [ -e go ]; do sleep 0.02; done; echo done']); "
        "print(job.id, flush=True); os.killpg(os.getpgid(0), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == -9
    job = local.job(done.stdout.decode().strip())
    assert job.state is JobState.RUNNING
    (home / "go").touch()
    assert job.wait(10) is JobState.COMPLETED
    assert job.output() == "done\n"


@pytest.mark.slow
def test_the_walltime_ends_a_job(local: Local) -> None:
    job = local.submit_command_line(["sleep", "60"], walltime="1s")
    assert job.wait(20) is JobState.FAILED
    assert job.exit_status == 143
    assert "time limit" in job.status.reason


def test_an_array_runs_each_element(local: Local) -> None:
    code = 'echo "$JOBQUEUE_ARRAY_INDEX"; exit $((JOBQUEUE_ARRAY_INDEX / 4))'
    job = local.submit_command_line(["bash", "-c", code], array="0-4:2")
    assert job.wait(10) is JobState.FAILED
    assert job.exit_statuses == {0: 0, 2: 0, 4: 1}
    assert job.output() == "0\n2\n4\n"
    assert job.output(index=2) == "2\n"


def test_a_job_in_an_odd_folder(local: Local, home: Path) -> None:
    folder = home / "odd \"'$HOME\n%j\\"
    folder.mkdir()
    job = local.submit_command_line(["pwd"], working_folder=folder, log_folder=folder / "jobs")
    job.wait(10)
    assert job.output() == f"{folder}\n"


def test_a_job_that_vanishes_is_unknown(local: Local, home: Path) -> None:
    job = local.submit_command_line(["bash", "-c", "touch ready; sleep 60"])
    until(home / "ready")
    end_session(int(job.id.partition(".")[0]))  # as if the machine had crashed
    assert job.wait(10) is JobState.UNKNOWN
    with pytest.raises(JobFailed, match="neither its folder nor the accounting"):
        job.result()


def test_waiting_can_be_given_up(local: Local) -> None:
    job = local.submit_command_line(["sleep", "60"])
    with pytest.raises(TimeoutError, match="wait longer"):
        job.wait(0.05)
    job.cancel()
    job.wait(10)


# Functions.


def run(local: Local, function: Any, *arguments: Any, **options: Any) -> Any:
    job = local.submit(function, *arguments, launch=[sys.executable], **options)
    return job.result(20)


def test_results_come_back(local: Local) -> None:
    offset = 2
    assert run(local, lambda x: x + offset, 40) == 42


def test_exceptions_come_back_with_their_traceback(local: Local) -> None:
    def inner() -> None:
        raise KeyError("no such station")

    with pytest.raises(KeyError, match="no such station") as caught:
        run(local, inner)
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert "in inner" in str(cause)


def test_elements_of_an_array_have_results_each(local: Local) -> None:
    def index() -> int:
        return int(os.environ["JOBQUEUE_ARRAY_INDEX"]) ** 2

    assert run(local, index, array="1-3") == [1, 4, 9]


def test_what_cannot_be_pickled_is_an_error_that_says_so(local: Local) -> None:
    with pytest.raises(SpecError, match="cannot be sent to a job"):
        run(local, print, threading.Lock())
    with pytest.raises(TypeError, match="result of type generator cannot be sent back"):
        run(local, lambda: (x for x in "ab"))


def test_a_function_that_exits_has_no_result(local: Local) -> None:
    for status in (7, 0):
        job = local.submit(sys.exit, status, launch=[sys.executable])
        with pytest.raises(JobFailed, match=f"left by sys.exit with status {status}") as caught:
            job.result(20)
        assert caught.value.exit_status == status
        assert job.exit_status == status


def test_a_function_that_is_interrupted_interrupts_nobody_else(local: Local) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedError, match="interrupted in its job"):
        run(local, interrupted)


def test_a_cancelled_array_keeps_what_its_elements_left(local: Local) -> None:
    job = local.submit_command_line(["bash", "-c", "echo el; sleep 60"], array="0-4")
    deadline = time.monotonic() + 60
    while not job.output() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert job.output()
    job.cancel()
    assert job.wait(20) is JobState.CANCELLED
    assert job.exit_status == 143
    assert job.status.reason == "The job was cancelled."


def test_an_exception_that_cannot_be_read_back_keeps_its_text(local: Local) -> None:
    def awkward() -> None:
        class AwkwardError(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__(f"{one} and {two}")

        raise AwkwardError(1, 2)

    with pytest.raises(TypeError, match="1 and 2"):
        run(local, awkward)


# What is refused leaves nothing.


def test_bad_submissions_leave_no_folder(local: Local, home: Path) -> None:
    for target, options in (("missing.py", {}), (".", {}), (7, {}), (print, {"nodes": 0})):
        with pytest.raises(SpecError):
            local.submit(target, **options)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="list of words"):
        local.submit_command_line([])
    assert list(home.iterdir()) == []


def test_a_log_folder_that_cannot_be_made_is_a_sentence(local: Local, home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(SubmitError, match="--log-folder") as caught:
        local.submit_command_line(["true"], log_folder="file/jobs")
    assert "\n" not in str(caught.value)
