"""Can jobs be submitted and watched from a shell? Answers on standard output, all else on standard
error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobqueue.cli import main
from jobqueue.registry import known_jobs

if TYPE_CHECKING:
    from jobqueue import Local
    from tests.jobqueue.conftest import FakeBatch

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
[jobqueue]
poll_interval_s_min = 0.01
poll_interval_s_max = 0.05
file_patience_s = 0.1
"""


@pytest.fixture(autouse=True)
def configured(home: Path) -> None:
    (home / "mpicluster.toml").write_text(CONFIG)


def submit(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["submit", *words]) == 0
    captured = capsys.readouterr()
    assert re.fullmatch(r"\S+\n", captured.out)
    return captured.out.strip()


def local(capsys: pytest.CaptureFixture[str], code: str) -> str:
    return submit(capsys, "--system", "local", "--command", "bash", "-c", code)


def test_submit_prints_the_id_alone(
    fake_slurm: FakeBatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "analysis.py").touch()
    words = "--nodes 4 --time 1:00:00 --partition batch --env A=1"
    words += " --signal SIGUSR2@60 --directive=--nice=5"
    assert main(["submit", *words.split(), "analysis.py", "--nodes", "7"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "1\n"
    (script,) = home.glob("mpicluster-jobs/*/job.sh")
    assert str(script.parent) in captured.err
    text = script.read_text()
    for line in (
        "--nodes=4",
        "--time=1:00:00",
        "--partition=batch",
        "--signal=B:USR2@60",
        "--nice=5",
    ):
        assert f"#SBATCH {line}\n" in text
    assert "export A=1\n" in text
    assert f"{sys.executable} -m mpicluster run {home}/analysis.py --nodes 7 &\n" in text


def test_a_dry_run_prints_the_script_and_submits_nothing(
    fake_slurm: FakeBatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "--dry-run", "--array", "0-3", "--command", "--", "hostname", "-f"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("#!/bin/bash\n#SBATCH --job-name=hostname\n")
    assert "\nhostname -f &\n" in captured.out
    assert captured.err == ""
    assert fake_slurm.calls("sbatch") == []
    assert not (home / "mpicluster-jobs").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["missing.py"], "no such file"),
        (["x" * 300], "none that can be looked at"),
        ([], "nothing to run was named"),
        (["--time", "99999999999999d", "--command", "true"], "at most ten years"),
        (["--time", f"{'9' * 30}:00:00", "--command", "true"], "at most ten years"),
        (["--memory-per-node", "9" * 400 + "G", "--command", "true"], "none that a node can have"),
        (["--signal", "USR1@²", "--command", "true"], "USR1@120"),
        (["--array", "0-" + "9" * 5000, "--command", "true"], "cannot be read"),
        (["--log-folder", "~nosuchuser/x", "--command", "true"], "Write the whole path"),
        (["--working-folder", "~nosuchuser/x", "x.py"], "Write the whole path"),
        (["--nodes", "0", "--command", "true"], "nodes is 0"),
        (["--time", "1:30", "--command", "true"], "Write 1:30:00"),
        (["--env", "A", "--command", "true"], "NAME=VALUE"),
        (["--signal", "USR1", "--command", "true"], "USR1@120"),
        (["--run-options", "'", "--command", "true"], "Close the quotes"),
        (["--system", "torque", "--command", "true"], "Choose from"),
        (["--log-folder", "/proc/no", "--command", "true"], "--log-folder"),
        (["--name", "a\nb", "--command", "true"], "would end its line"),
    ],
)
def test_bad_input_is_one_sentence_and_status_1(
    fake_slurm: FakeBatch, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert main(["submit", *words]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert fake_slurm.calls("sbatch") == []


@pytest.mark.parametrize("mode", ["fail", "garbage"])
def test_a_refused_job_is_one_sentence_and_the_folder_says_so(
    fake_slurm: FakeBatch, home: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    fake_slurm.misbehave("sbatch", mode)
    assert main(["submit", "--command", "true"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (record,) = home.glob("mpicluster-jobs/*/job.json")
    assert str(record) in captured.err
    assert json.loads(record.read_text())["submission"] == "failed"


def test_no_batch_system_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert main(["submit", "--command", "true"]) == 1
    assert "--system local" in capsys.readouterr().err


def test_wait_ends_with_the_status_of_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = local(capsys, "true"), local(capsys, "echo oh; exit 5")
    assert main(["wait", good]) == 0
    assert main(["wait", bad]) == 5
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "exit status 5" in captured.err
    assert main(["wait", good, bad]) == 5
    assert main(["wait"]) == 0
    assert "no job to wait for" in capsys.readouterr().err


def test_wait_can_be_given_up_and_cancel_ends_all(capsys: pytest.CaptureFixture[str]) -> None:
    job_id = local(capsys, "sleep 60")
    assert main(["wait", "--timeout", "0.05"]) == 124
    assert main(["cancel", "--yes"]) == 0
    assert main(["wait", job_id]) == 143
    assert main(["cancel", job_id]) == 0
    assert "had ended before: cancelled" in capsys.readouterr().err
    assert main(["cancel"]) == 0


def test_without_a_terminal_nobody_cancels_all_by_naming_none(
    fake_slurm: FakeBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in `cancel $job` after a submission that failed."""
    job_id = submit(capsys, "--command", "true")
    assert main(["cancel"]) == 1
    assert f"all of yours: {job_id}." in capsys.readouterr().err
    assert fake_slurm.calls("scancel") == []
    fake_slurm.set(job_id, state="running")
    assert main(["cancel", job_id]) == 0
    assert f"was asked to cancel job {job_id}." in capsys.readouterr().err


def test_only_what_could_be_cancelled_is_told_so(
    fake_slurm: FakeBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cancel", "4242"]) == 1
    assert "Slurm has no job 4242 that it could cancel" in capsys.readouterr().err
    assert fake_slurm.calls("scancel") == ["scancel -v 4242"]


@pytest.mark.parametrize("command", ["status", "wait", "cancel", "logs"])
def test_a_batch_system_that_does_not_exist_is_named(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--system", "torque"]) == 1
    assert "The batch system 'torque' does not exist here" in capsys.readouterr().err


@pytest.mark.parametrize("timeout", ["nan", "-5", "inf", "x"])
def test_only_a_time_can_be_waited_for(timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["wait", "--timeout", timeout])
    assert caught.value.code == 2
    assert "no number of seconds" in capsys.readouterr().err


def test_an_interrupted_submission_says_what_became_of_it(
    fake_slurm: FakeBatch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobqueue.shell.subprocess.Popen.communicate", interrupt)
    assert main(["submit", "--command", "true"]) == 130
    told = capsys.readouterr().err
    assert "The submission to Slurm was broken off. A job that was made all the same ends" in told
    assert "the jobs go on" not in told


def test_submit_can_wait(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--system", "local", "--wait", "--command", "bash", "-c", "exit 6"]) == 6


def test_status_is_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    assert "no jobs" in capsys.readouterr().err
    job_id = submit(capsys, "--system", "local", "--name", "[red]odd", "--command", "false")
    main(["wait", job_id])
    capsys.readouterr()
    assert main(["status"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["job", "system", "name", "state", "exit", "remark"]
    assert row.split() == [job_id, "local", "[red]odd", "failed", "1"]
    assert main(["status", "--json", job_id]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["state"], shown["exit_status"]) == (job_id, "failed", 1)


def test_status_of_a_job_of_others_asks_the_batch_system(
    fake_slurm: FakeBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_slurm.set("77", state="running")
    assert main(["status", "77"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "77",
        "slurm",
        "running",
        "on",
        "n[1-2]",
    ]
    assert main(["logs", "77"]) == 1
    assert "no job of this id was submitted by jobqueue" in capsys.readouterr().err


def test_a_silent_batch_system_is_told_with_status_1(
    fake_slurm: FakeBatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    job_id = submit(capsys, "--command", "true")
    fake_slurm.misbehave("squeue", "fail")
    assert main(["status", job_id]) == 1
    assert "queued" in capsys.readouterr().out
    assert "Unable to contact slurm controller" in caplog.text


def test_logs(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = local(capsys, "echo one"), local(capsys, "echo two; echo $JOBQUEUE_FOLDER")
    main(["wait", first, second])
    capsys.readouterr()
    assert main(["logs", first]) == 0
    assert capsys.readouterr().out == "one\n"
    assert main(["logs"]) == 0
    assert capsys.readouterr().out.startswith("two\n/")
    assert main(["logs", first, second]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("one\ntwo\n")
    assert captured.err == f"==> job {first} <==\n==> job {second} <==\n"
    assert main(["logs", "--role", "worker-1", first]) == 1
    assert "has only: output, batch" in capsys.readouterr().err


def test_logs_can_be_followed_until_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    job_id = local(capsys, "for i in 1 2 3; do echo $i; sleep 0.1; done; exit 1")
    assert main(["logs", "--follow", job_id]) == 0
    captured = capsys.readouterr()
    assert captured.out == "1\n2\n3\n"
    assert f"Job {job_id}: failed." in captured.err


def test_logs_of_a_job_that_never_started_show_the_batch_systems_words(
    fake_slurm: FakeBatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = submit(capsys, "--command", "true")
    (script,) = home.glob("mpicluster-jobs/*/job.sh")
    (script.parent / "batch.log").write_text("slurmstepd: error: no space\n")
    assert main(["logs", job_id]) == 0
    assert "Slurm wrote:\nslurmstepd: error: no space\n" in capsys.readouterr().err


def test_the_commands_are_a_program_too() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "jobqueue", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("submit", "status", "wait", "cancel", "logs"):
        assert command in done.stdout


def test_importing_jobqueue_imports_neither_mpi_nor_mpicluster() -> None:
    code = (
        "import sys, jobqueue, jobqueue.cli; print([m for m in sys.modules if m.split('.')[0] in "
    )
    code += "('mpicluster', 'mpi4py', 'numpy', 'pandas', 'rich', 'cloudpickle')])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(unbuffered: str) -> None:
    script = f"{sys.executable} -m jobqueue submit --system local --dry-run --command true | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(home: Path, closed: str) -> None:
    """The next file that was opened once got their numbers, and there was no stream to write to."""
    code = (
        "from jobqueue.streams import open_closed_streams; open_closed_streams(); import os, sys; "
        "print('out'); print('err', file=sys.stderr); assert sys.stdin.read() == ''; "
        "assert os.open('file', os.O_CREAT | os.O_RDWR) > 2"
    )
    words = f"{sys.executable} -c {shlex.quote(code)} {closed}"
    done = subprocess.run(
        ["bash", "-c", words], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if " >" in f" {closed}" else "out\n")
    assert done.stderr == ("" if "2>" in closed else "err\n")
    assert (home / "file").read_bytes() == b""


def test_empty_arguments_reach_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print(sys.argv[1:])"
    words = ["--system", "local", "--command", sys.executable, "-c", code, "", "b", ""]
    job_id = submit(capsys, *words)
    assert main(["wait", job_id]) == 0
    capsys.readouterr()
    assert main(["logs", job_id]) == 0
    assert capsys.readouterr().out == "['', 'b', '']\n"
    assert main(["submit", "--system", "local", "--command", "", "b"]) == 1
    assert "command is empty" in capsys.readouterr().err


def test_logs_are_the_bytes_that_the_job_printed(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Pieces of 1 MiB were once decoded each by itself, and what is no text was replaced."""
    code = "import sys; sys.stdout.buffer.write(b'a' + 'ü'.encode() * 1_500_000 + b'\\xff')"
    words = ["--system", "local", "--command", sys.executable, "-c", code]
    assert main(["submit", *words]) == 0
    job_id = capfdbinary.readouterr().out.decode().strip()
    assert main(["wait", job_id]) == 0
    for more in ([], ["--follow"]):
        assert main(["logs", job_id, *more]) == 0
        assert capfdbinary.readouterr().out == b"a" + "ü".encode() * 1_500_000 + b"\xff"


def test_logs_of_elements_that_are_not_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    array = submit(capsys, "--system", "local", "--array", "0-3", "--command", "true")
    alone = local(capsys, "true")
    assert main(["wait", array, alone]) == 0
    for job_id, index, sentence in (
        (array, "9", "0-3"),
        (alone, "3", "no array"),
        (array, "-1", ""),
    ):
        assert main(["logs", job_id, f"--index={index}"]) == 1
        assert sentence in capsys.readouterr().err
    assert main(["logs", "--follow", array, "--index", "9"]) == 1
    assert main(["logs", array, "--index", "3"]) == 0


@pytest.mark.parametrize("words", [("submit", "--command", "true"), ("status",)])
def test_an_answer_that_cannot_be_written_is_a_sentence(
    local: Local, words: tuple[str, ...]
) -> None:
    local.submit_command_line(["true"])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jobqueue", words[0], "--system", "local", *words[1:]],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=full, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "the answer could not be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    if words[0] == "submit":  # the id is told all the same
        (_, newest) = known_jobs()
        assert f"has taken job {newest.job_id}" in done.stderr


def test_a_user_without_a_home_is_served(home: Path) -> None:
    code = (
        "import pwd, sys; pwd.getpwuid = lambda uid: {}[uid]; from jobqueue.cli import main; "
        "sys.exit(main(['submit', '--system', 'local', '--command', 'true']))"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"PYTHONPATH": str(ROOT)}, cwd=home,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\n", done.stdout)
    assert "could not be noted among your jobs" in done.stderr


@pytest.mark.parametrize("array", [[], ["--array", "0-1"]])
def test_other_logs_are_named_and_shown(
    capsys: pytest.CaptureFixture[str], array: list[str]
) -> None:
    suffix = "-$JOBQUEUE_ARRAY_INDEX" if array else ""
    code = f'cd "$JOBQUEUE_FOLDER"; echo mine >worker-2{suffix}.log; touch worker-3{suffix}.log'
    words = ["--system", "local", *array, "--command", "bash", "-c", code]
    job_id = submit(capsys, *words)
    assert main(["wait", job_id]) == 0
    capsys.readouterr()
    assert main(["logs", job_id]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert f"Job {job_id} has printed more, which --role shows: worker-2.\n" in told.err
    assert main(["logs", job_id, "--role", "worker-2"]) == 0
    assert capsys.readouterr().out == "mine\n" * (2 if array else 1)
    assert main(["logs", job_id, "--role", "worker-4"]) == 1
    assert "has only: output, worker-2, worker-3" in capsys.readouterr().err


def test_a_log_that_is_to_come_can_be_followed(capsys: pytest.CaptureFixture[str]) -> None:
    code = 'sleep 0.5; echo mine >"$JOBQUEUE_FOLDER/worker-2.log"'
    job_id = local(capsys, code)
    assert main(["logs", "--follow", job_id, "--role", "worker-2"]) == 0
    assert capsys.readouterr().out == "mine\n"
    job_id = local(capsys, "sleep 0.5")
    assert main(["logs", "--follow", job_id, "--role", "worker-2"]) == 1
    assert "The log of 'worker-2' was asked for" in capsys.readouterr().err
