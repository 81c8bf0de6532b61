"""Does jobqueue tell the truth about jobs of a real Slurm?"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_harness import running

from jobqueue import Configuration, JobState, Slurm, SpecError, SubmitError, wait_all
from jobqueue.cli import main
from jobqueue.shell import Command, Output

pytestmark = pytest.mark.real_slurm


def until(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_a_job_runs_on_all_its_nodes(slurm: Slurm) -> None:
    job = slurm.submit_command_line(
        ["srun", "--label", "bash", "-c", "echo $SLURMD_NODENAME"], nodes=3, walltime="5m"
    )
    assert job.state in (JobState.QUEUED, JobState.RUNNING)
    assert job.wait(60) is JobState.COMPLETED
    assert job.exit_status == 0
    assert sorted(job.output().split()) == ["0:", "1:", "2:", "n1", "n2", "n3"]
    assert Slurm.attach(job.id).state is JobState.COMPLETED


def test_whole_nodes_are_the_default_and_cores_can_be_asked_for(slurm: Slurm) -> None:
    code = ["bash", "-c", "echo $SLURM_JOB_CPUS_PER_NODE"]
    whole = slurm.submit_command_line(code, nodes=2)
    part = slurm.submit_command_line(code, nodes=2, cpus_per_task=3)
    wait_all([whole, part], 60)
    assert (whole.output(), part.output()) == ("4(x2)\n", "3(x2)\n")


def test_a_running_job_is_running_on_its_hosts(slurm: Slurm, work: Path) -> None:
    job = slurm.submit_command_line(
        ["bash", "-c", "touch ready; until [ -e go ]; do sleep 0.1; done"]
    )
    until(work / "ready")
    slurm.poller.hurry()
    assert job.state is JobState.RUNNING
    assert job.status.hosts in ("n1", "n2", "n3")
    (work / "go").touch()
    assert job.wait(60) is JobState.COMPLETED


def test_a_failing_job_has_its_exit_status(slurm: Slurm) -> None:
    job = slurm.submit_command_line(["bash", "-c", "echo oh no; exit 3"], cpus_per_task=1)
    assert job.wait(60) is JobState.FAILED
    assert job.exit_status == 3
    assert "oh no" in job.failure()


def test_a_killed_job_fails_by_the_accounting_alone(slurm: Slurm, work: Path) -> None:
    job = slurm.submit_command_line(["bash", "-c", 'kill -KILL "$PPID"'], cpus_per_task=1)
    assert job.wait(60) is JobState.FAILED
    assert job.exit_status == 137


def test_the_exit_record_alone_decides_too(slurm: Slurm) -> None:
    """As on a cluster without accounting whose controller has forgotten the job."""
    job = slurm.submit_command_line(["bash", "-c", "exit 4"], cpus_per_task=1)
    job.wait(60)
    forgetful = Slurm(configuration=Configuration(), runner=forget, file_patience_s=0)
    assert job.folder is not None
    job.folder.update_record(state="queued")
    again = forgetful.job(job.id)
    assert again.wait(5) is JobState.FAILED
    assert again.exit_status == 4


def test_cancelling_ends_all_processes_on_all_nodes(slurm: Slurm, work: Path) -> None:
    code = "echo $$ >pid-$SLURM_PROCID; sleep 4711.5"
    job = slurm.submit_command_line(["srun", "bash", "-c", code], nodes=3)
    for number in range(3):
        until(work / f"pid-{number}")
    job.cancel()
    assert job.wait(60) is JobState.CANCELLED
    assert job.status.reason == "The job was cancelled."
    deadline = time.monotonic() + 10
    while running("4711.5") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running("4711.5")
    job.cancel()


def test_a_queued_job_waits_with_a_reason_and_can_be_cancelled(slurm: Slurm, work: Path) -> None:
    first = slurm.submit_command_line(["bash", "-c", "touch ready; sleep 60"], nodes=3)
    until(work / "ready")
    second = slurm.submit_command_line(["true"], nodes=3)
    deadline = time.monotonic() + 30
    while not second.status.reason and time.monotonic() < deadline:
        time.sleep(0.1)
    assert second.state is JobState.QUEUED
    assert second.status.reason in (
        "It waits for nodes to become free.",
        "Jobs with a higher priority are before it.",
    )
    second.cancel()
    assert second.wait(60) is JobState.CANCELLED
    first.cancel()
    assert first.wait(60) is JobState.CANCELLED


def test_an_array(slurm: Slurm) -> None:
    code = 'echo "element $JOBQUEUE_ARRAY_INDEX"; exit $((JOBQUEUE_ARRAY_INDEX / 6))'
    job = slurm.submit_command_line(["bash", "-c", code], array="0-6:2%2", cpus_per_task=1)
    assert job.wait(60) is JobState.FAILED
    assert job.exit_statuses == {0: 0, 2: 0, 4: 0, 6: 1}
    assert job.exit_status == 1
    assert job.output(index=4) == "element 4\n"


def test_jobs_that_wait_for_others(slurm: Slurm, work: Path) -> None:
    good = slurm.submit_command_line(["bash", "-c", "sleep 1; echo 1 >>order"], cpus_per_task=1)
    after = slurm.submit_command_line(
        ["bash", "-c", "echo 2 >>order"], after_ok=good, cpus_per_task=1
    )
    bad = slurm.submit_command_line(["bash", "-c", "sleep 1; exit 1"], cpus_per_task=1)
    never = slurm.submit_command_line(["touch", "never"], after_ok=[bad.id], cpus_per_task=1)
    rescue = slurm.submit_command_line(["touch", "rescue"], after_not_ok=bad.id, cpus_per_task=1)
    jobs = [good, after, bad, never, rescue]
    assert wait_all(jobs, 90)
    assert [job.last_status.state.value for job in jobs] == [
        "completed",
        "completed",
        "failed",
        "cancelled",
        "completed",
    ]
    assert (work / "order").read_text() == "1\n2\n"
    assert (work / "rescue").exists()
    assert not (work / "never").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"queue": "nowhere"}, "`sinfo -s` lists them"),
        ({"nodes": 4000}, "fewer nodes|ask for less|Ask for fewer"),
        ({"cpus_per_task": 4000}, "ask for less|Ask for fewer"),
        ({"memory_per_node": "900TiB"}, "ask for less|less memory"),
        ({"constraint": "unobtainium"}, "--constraint"),
        ({"walltime": "10h"}, "Ask for less time"),
        ({"extra_directives": "--no-such-option"}, "see https://slurm"),
    ],
)
def test_refusals_say_what_to_do(slurm: Slurm, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(SubmitError, match=sentence) as caught:
        slurm.submit_command_line(["true"], **options)
    assert not caught.value.transient
    assert "\n" not in str(caught.value)
    assert caught.value.folder is not None
    assert (caught.value.folder / "do-not-run").exists()


ODD_NAMES = ["two words", "q'uo\"te", "$HOME `id`", "back\\slash", "#x", "50%j", "ü€"]


def test_odd_names_and_folders_arrive_as_they_are(slurm: Slurm, work: Path) -> None:
    folder = work / "odd \"'$HOME\n%j;#"
    folder.mkdir()
    jobs = [
        slurm.submit_command_line(
            ["pwd"], name=name, working_folder=folder, log_folder=folder / "jobs", cpus_per_task=1
        )
        for name in ODD_NAMES
    ]
    assert wait_all(jobs, 90)
    for name, job in zip(ODD_NAMES, jobs, strict=True):
        assert job.output() == f"{folder}\n"
        command = ["squeue", "--noheader", "--states=all", "--format=%j", f"--jobs={job.id}"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert shown == f"{name}\n"
        assert "batch" in job.roles()


def test_a_folder_that_the_nodes_cannot_see_is_named_as_the_reason(slurm: Slurm) -> None:
    job = slurm.submit_command_line(
        ["true"], extra_directives="--output=/proc/no/such/file", cpus_per_task=1
    )
    assert job.wait(60) is JobState.FAILED
    assert "log folder" in job.status.reason


def test_variables_of_sbatch_do_not_override_a_job(
    slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    monkeypatch.setenv("SBATCH_OUTPUT", "/proc/no/such/file")
    job = slurm.submit_command_line(
        ["bash", "-c", "echo $SLURM_JOB_PARTITION"], queue="short", cpus_per_task=1
    )
    assert job.wait(60) is JobState.COMPLETED
    assert job.output() == "short\n"


def test_a_python_script_and_a_function(slurm: Slurm, work: Path) -> None:
    (work / "analysis.py").write_text("import sys; print(sys.argv[1:])")
    launch = [sys.executable]
    script = slurm.submit("analysis.py", "--year", 2026, launch=launch, cpus_per_task=1)
    function = slurm.submit(lambda a, b: {"sum": a + b}, 40, 2, launch=launch, cpus_per_task=1)
    assert function.result(60) == {"sum": 42}
    script.wait(60)
    assert script.output() == "['--year', '2026']\n"


def test_the_command_line(cluster: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "mpicluster.toml").write_text(
        "[jobqueue]\npoll_interval_s_min = 0.2\npoll_interval_s_max = 0.3\n"
    )
    words = ["submit", "--cpus-per-task", "1", "--time", "5m", "--command"]
    assert main([*words, "bash", "-c", "echo hello; exit 9"]) == 0
    job_id = capsys.readouterr().out.strip()
    assert main(["wait", job_id]) == 9
    assert main(["logs", job_id]) == 0
    assert capsys.readouterr().out == "hello\n"
    assert main(["status", job_id]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row == [job_id, "slurm", "bash", "failed", "9"]
    assert main(["submit", "--queue", "nowhere", "--command", "true"]) == 1
    with pytest.raises(SpecError):
        Slurm().submit("missing.py")


def forget(command: Command, timeout_s: float) -> Output:
    return Output(command, 1, "", "slurm_load_jobs error: Invalid job id specified")
