"""Does jobqueue tell the truth about jobs of a real Grid Engine?"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_harness import running
from sge_harness import said

from jobqueue import SGE, Configuration, Job, JobState, SubmitError, wait_all
from jobqueue.cli import main

pytestmark = pytest.mark.real_sge
#: Has Grid Engine itself refuse what no queue could give to any job.
CHECKED = {"extra_directives": "-w e"}
READY = "touch ready; until [ -e go ]; do sleep 0.1; done"


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"This did not happen: {what}"
        time.sleep(0.05)


def jobs_known() -> list[str]:
    """Return the ids of all jobs in the queue, whoever submitted them."""
    lines = said("qstat", "-u", "*").splitlines()[2:]
    return [line.split()[0] for line in lines]


def look(sge: SGE, job: Job) -> JobState:
    sge.poller.hurry()
    return job.state


def ends_in_the_accounting(sge: SGE, job: Job, records: int) -> tuple[JobState, int | None]:
    """Return how a job ended when the accounting alone is believed, once it has its records."""
    (command,) = sge.accounting_commands([job.id])
    until(
        lambda: sge.runner(command, 60).stdout.count("jobnumber") == records,
        f"the accounting has {records} records",
    )
    found = sge.parse_accounting([job.id], sge.runner(command, 60))[job.id]
    return found.state, found.exit_status


def test_a_job_runs_on_the_slots_that_it_asked_for(sge: SGE) -> None:
    job = sge.submit_command_line(
        ["bash", "-c", 'echo "$NSLOTS $(cut -d" " -f2,3 "$PE_HOSTFILE")"'],
        nodes=2,
        cpus_per_task=2,
        walltime="5m",
        queue="main",
    )
    assert job.state in (JobState.QUEUED, JobState.RUNNING)
    assert job.wait(60) is JobState.COMPLETED
    assert job.exit_status == 0
    slots, granted, queue = job.output().split()
    assert (slots, granted, queue.partition("@")[0]) == ("4", "4", "main")
    assert SGE.attach(job.id).state is JobState.COMPLETED


def test_a_job_is_queued_then_running_then_ended(sge: SGE, work: Path) -> None:
    first = sge.submit_command_line(["bash", "-c", READY], nodes=2, queue="main")  # exclusive
    until((work / "ready").exists, "the first job runs")
    second = sge.submit_command_line(["true"], queue="main")
    assert look(sge, first) is JobState.RUNNING
    assert first.status.hosts
    assert look(sge, second) is JobState.QUEUED
    second.cancel()
    assert second.wait(60) is JobState.CANCELLED
    (work / "go").touch()
    assert first.wait(60) is JobState.COMPLETED


def test_a_failing_job_has_its_exit_status(sge: SGE) -> None:
    job = sge.submit_command_line(["bash", "-c", "echo oh no; exit 3"])
    assert job.wait(60) is JobState.FAILED
    assert job.exit_status == 3
    assert "oh no" in job.failure()


def test_statuses_that_grid_engine_takes_for_orders_end_the_job(sge: SGE, work: Path) -> None:
    """A script that ends with 99 is run again, one that ends with 100 is kept for ever."""
    jobs = [
        sge.submit_command_line(["bash", "-c", f"echo >>runs-{status}; exit {status}"])
        for status in (99, 100)
    ]
    assert wait_all(jobs, 60)
    assert [job.last_status.state for job in jobs] == [JobState.FAILED] * 2
    assert [job.exit_status for job in jobs] == [99, 100]
    assert (work / "runs-99").read_text() == "\n"


def test_a_killed_job_fails_by_the_accounting_alone(sge: SGE) -> None:
    job = sge.submit_command_line(["bash", "-c", 'kill -KILL "$PPID"'])
    assert job.wait(60) is JobState.FAILED
    assert job.exit_status == 137
    assert "signal" in job.status.reason


def test_cancelling_ends_the_processes(sge: SGE, work: Path) -> None:
    job = sge.submit_command_line(["bash", "-c", "sleep 4713.5 & touch ready; wait"])
    until((work / "ready").exists, "the job runs")
    job.cancel()
    assert job.wait(60) is JobState.CANCELLED
    assert job.status.reason == "The job was cancelled."
    until(lambda: not running("4713.5"), "the job's processes are gone")
    job.cancel()


def test_a_job_that_another_process_cancelled_is_cancelled(
    sge: SGE, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = sge.submit_command_line(["bash", "-c", "touch ready; sleep 100"])
    until((work / "ready").exists, "the job runs")
    assert main(["cancel", job.id]) == 0
    assert SGE.attach(job.id).wait(60) is JobState.CANCELLED


def test_the_time_limit_is_named_as_the_reason(sge: SGE) -> None:
    job = sge.submit_command_line(["sleep", "100"], walltime="3s")
    assert job.wait(60) is JobState.FAILED
    assert "limit of time" in job.status.reason
    assert job.exit_status == 137


def test_an_array(sge: SGE) -> None:
    code = 'echo "element $JOBQUEUE_ARRAY_INDEX"; exit $((JOBQUEUE_ARRAY_INDEX / 5))'
    job = sge.submit_command_line(["bash", "-c", code], array="1-5:2%2")
    assert job.wait(60) is JobState.FAILED
    assert job.exit_statuses == {1: 0, 3: 0, 5: 1}
    assert job.exit_status == 1
    assert job.output(index=3) == "element 3\n"


def test_an_array_fails_with_the_element_that_left_no_record(sge: SGE) -> None:
    """The accounting gets the records one after the other."""
    code = '[ "$JOBQUEUE_ARRAY_INDEX" -ne 3 ] || kill -KILL "$PPID"'
    job = sge.submit_command_line(["bash", "-c", code], array="1-3")
    assert job.wait(60) is JobState.FAILED
    assert job.exit_status == 137


def test_a_cancelled_array_is_cancelled(sge: SGE, work: Path) -> None:
    job = sge.submit_command_line(["bash", "-c", "touch ready; sleep 100"], array="1-3%1")
    until((work / "ready").exists, "the first element runs")
    job.cancel()
    assert job.wait(60) is JobState.CANCELLED


def test_a_job_that_waits_for_others(sge: SGE, work: Path) -> None:
    code = "until [ -e go ]; do sleep 0.1; done; echo 1 >>order; exit 3"
    first = sge.submit_command_line(["bash", "-c", code])
    after = sge.submit_command_line(["bash", "-c", "echo 2 >>order"], after_any=first)
    assert look(sge, after) is JobState.QUEUED
    assert "waits for another job" in after.status.reason
    (work / "go").touch()
    assert wait_all([first, after], 60)
    assert (first.state, after.state) == (JobState.FAILED, JobState.COMPLETED)
    assert (work / "order").read_text() == "1\n2\n"


def test_a_job_that_ran_twice_ends_as_its_last_run(sge: SGE, work: Path) -> None:
    code = "[ ! -e ready ] || exit 0; touch ready; sleep 100"
    job = sge.submit_command_line(["bash", "-c", code], requeue=True)
    until((work / "ready").exists, "the job runs")
    said("qmod", "-rj", job.id)
    assert job.wait(60) is JobState.COMPLETED
    assert job.exit_status == 0
    assert ends_in_the_accounting(sge, job, records=2) == (JobState.COMPLETED, 0)


def test_programs_that_a_job_starts_through_grid_engine_are_not_the_job(sge: SGE) -> None:
    """mpirun starts its daemons so, and each has a record of its own in the accounting."""
    code = "qrsh -inherit -nostdin $(hostname) /bin/false; echo slave $?"
    job = sge.submit_command_line(["bash", "-c", code], nodes=2, cpus_per_task=1)
    assert job.wait(60) is JobState.COMPLETED
    assert job.output() == "slave 1\n"
    assert ends_in_the_accounting(sge, job, records=2) == (JobState.COMPLETED, 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"queue": "nowhere"}, "unknown queue \"nowhere\". Name another queue .*`qconf -sql`"),
        ({"nodes": 2, "cpus_per_task": 4000, **CHECKED}, "no suitable queues. No queue has what"),
        ({"cpus_per_task": 9, **CHECKED}, "no suitable queues. No queue has what"),
        ({"queue": "short", "walltime": "1h", **CHECKED}, "no suitable queues. No queue has what"),
        ({"constraint": "unobtainium=1"}, 'unknown resource "unobtainium". Your site has other'),
        ({"gpus_per_node": 1}, 'unknown resource "gpu". Your site has other resources'),
        ({"account": "nobody"}, "Name your project with --account"),
        ({"extra_directives": "-pe nope 4"}, "\"nope\" does not exist. .*`qconf -spl` lists them"),
        ({"extra_directives": "-no-such-option"}, "see the manual page qsub"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(sge: SGE, options: dict[str, object], sentence: str) -> None:
    before = jobs_known()
    with pytest.raises(SubmitError, match=sentence) as caught:
        sge.submit_command_line(["true"], **options)
    assert not caught.value.transient
    assert "\n" not in str(caught.value)
    assert "Exiting" not in str(caught.value)
    assert caught.value.folder is not None
    assert (caught.value.folder / "do-not-run").exists()
    assert jobs_known() == before


def test_a_parallel_environment_that_is_unknown_is_refused(sge: SGE) -> None:
    other = SGE(configuration=Configuration(), parallel_environment="mpi-{cores}")
    before = jobs_known()
    with pytest.raises(SubmitError, match='environment "mpi-3" does not exist'):
        other.submit_command_line(["true"], nodes=2, cpus_per_task=3)
    assert jobs_known() == before


def test_a_job_that_no_queue_can_run_waits_with_a_way_to_find_out(sge: SGE) -> None:
    """Grid Engine's own check, `-w e`, is no default: while an exclusive job runs it would refuse
    jobs that are possible.
    """
    job = sge.submit_command_line(["true"], cpus_per_task=9)
    assert look(sge, job) is JobState.QUEUED
    command = re.findall("`(qalter -w p .*)` says whether", job.status.reason)
    until(lambda: 'cannot run in PE "smp"' in said(*command[0].split()), "qalter says why")
    job.cancel()
    assert job.wait(60) is JobState.CANCELLED


def test_load_values_can_be_asked_for(sge: SGE) -> None:
    own = SGE(configuration=Configuration(), memory_resource="mem_free")
    job = own.submit_command_line(["true"], memory_per_node="1M")
    assert job.wait(60) is JobState.COMPLETED


def test_a_shell_that_does_not_know_the_cluster(sge: SGE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGE_ROOT", "/no/such/root")
    with pytest.raises(SubmitError, match="load the module of Grid Engine") as caught:
        sge.submit_command_line(["true"])
    assert not caught.value.transient


def test_a_master_that_is_down_is_a_passing_trouble(
    sge: SGE, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sge.submit_command_line(["sleep", "100"])
    with monkeypatch.context() as patch:
        patch.setenv("SGE_QMASTER_PORT", "1")
        with pytest.raises(SubmitError, match="submit again in a minute") as caught:
            sge.submit_command_line(["true"])
        assert caught.value.transient
        assert look(sge, job) is JobState.QUEUED
        assert sge.poller.failure is not None
    job.cancel()
    assert job.wait(60) is JobState.CANCELLED


def test_odd_folders_arrive_as_they_are(sge: SGE, work: Path) -> None:
    folders = [work / "odd \"'$HOME;#", work / "odd \"'; #:,@ü€"]
    jobs = []
    for folder in folders:
        folder.mkdir()
        options = {"working_folder": folder, "log_folder": folder / "jobs"}
        jobs.append(sge.submit_command_line(["pwd"], **options))
    assert wait_all(jobs, 60)
    assert [job.output() for job in jobs] == [f"{folder}\n" for folder in folders]
    # Grid Engine would put a value for $HOME.
    assert ["batch" in job.roles() for job in jobs] == [False, True]


def test_a_python_script_and_a_function(sge: SGE, work: Path) -> None:
    (work / "analysis.py").write_text("import sys; print(sys.argv[1:])")
    launch = [sys.executable]
    script = sge.submit("analysis.py", "--year", 2026, launch=launch)
    function = sge.submit(lambda a, b: {"sum": a + b}, 40, 2, launch=launch)
    assert function.result(60) == {"sum": 42}
    script.wait(60)
    assert script.output() == "['--year', '2026']\n"


def test_the_command_line(cluster: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "mpicluster.toml").write_text(
        "[jobqueue]\npoll_interval_s_min = 0.2\npoll_interval_s_max = 0.3\n"
    )
    words = ["submit", "--system", "sge", "--time", "5m", "--command"]
    assert main([*words, "bash", "-c", "echo hello; exit 9"]) == 0
    job_id = capsys.readouterr().out.strip()
    assert main(["wait", job_id]) == 9
    assert main(["logs", job_id]) == 0
    assert capsys.readouterr().out == "hello\n"
    assert main(["status", job_id]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row == [job_id, "sge", "bash", "failed", "9"]
    assert main(["submit", "--system", "sge", "--queue", "nowhere", "--command", "true"]) == 1
    assert subprocess.run(["qstat", "-j", job_id], capture_output=True, check=False).returncode
