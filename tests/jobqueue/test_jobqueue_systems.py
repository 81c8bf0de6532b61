"""Do the batch systems' own formats hold? Scripts against golden files, parsers against recorded
outputs.

With JOBQUEUE_WRITE_GOLDEN=1 the golden files are written anew: read the difference before you keep
it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from jobqueue import (
    LSF,
    PBS,
    SGE,
    BatchSystem,
    Configuration,
    JobSpec,
    JobState,
    Local,
    Slurm,
    SpecError,
    StatusError,
    SubmitError,
)
from jobqueue.shell import Command, Output

HERE = Path(__file__).parent
MINIMAL: dict[str, Any] = {"name": "minimal", "working_folder": "/work", "log_folder": "/logs"}
FULL: dict[str, Any] = {
    "name": "full",
    "nodes": 4,
    "tasks_per_node": 2,
    "cpus_per_task": 16,
    "memory_per_node": "100GiB",
    "gpus_per_node": 2,
    "walltime": "1-02:30:00",
    "exclusive": True,
    "queue": "batch",
    "account": "climate",
    "constraint": "rome",
    "array": "1-9:2%3",
    "after_any": ["17", "18"],
    "mail_user": "user@example.org",
    "mail_when": ["begin", "end", "fail"],
    "environment": {"TITLE": "it's $HOME"},
    "working_folder": "/work",
    "log_folder": "/logs",
    "extra_directives": ["--site-option=1"],
    "prologue": ["module load openmpi", 'echo "on $(hostname)"'],
    "epilogue": "echo done",
    "requeue": True,
}
EXTRA: dict[str, dict[str, Any]] = {
    "slurm": {
        "after_ok": ["19"],
        "signal_name": "USR2",
        "signal_before_s": 300,
        "skip_directives": ["--mem"],
    },
    "pbs": {"after_not_ok": ["19"], "skip_directives": ["-V"]},
    "sge": {"parallel_environment": "mpi-{cores}", "memory_resource": "mem_free"},
    "lsf": {"after_ok": ["19"], "signal_name": "USR2", "signal_before_s": 300},
    "local": {},
}
CLASSES: dict[str, type[BatchSystem]] = {
    "slurm": Slurm,
    "pbs": PBS,
    "sge": SGE,
    "lsf": LSF,
    "local": Local,
}


def make(name: str, **options: Any) -> BatchSystem:
    return CLASSES[name](configuration=Configuration(), **options)


def answer(text: str, status: int = 0, stderr: str = "", program: str = "x") -> Output:
    return Output(Command((program,)), status, text, stderr)


def recorded(name: str) -> str:
    return (HERE / "recorded" / name).read_text()


@pytest.mark.parametrize("kind", ["minimal", "full"])
@pytest.mark.parametrize("name", CLASSES)
def test_golden_script(name: str, kind: str) -> None:
    options = dict(MINIMAL)
    own: dict[str, Any] = {}
    if kind == "full":
        options = FULL | EXTRA[name]
        own = {
            key: options.pop(key)
            for key in ("parallel_environment", "memory_resource")
            if key in options
        }
        if name == "local":
            options = {k: v for k, v in options.items() if k not in ("nodes", "after_any")}
    spec = JobSpec.from_options(["python", "a script.py", "$HOME"], options)
    script = make(name, **own).script(spec, Path("/logs/job-1"))
    golden = HERE / "golden" / f"{name}-{kind}.sh"
    if os.environ.get("JOBQUEUE_WRITE_GOLDEN"):
        golden.write_text(script)
    assert script == golden.read_text()


@pytest.mark.parametrize(
    ("name", "printed", "job_id"),
    [
        ("slurm", "17\n", "17"),
        ("slurm", "17;second\n", "17"),
        ("slurm", "A greeting of the site\n17\n", "17"),
        ("pbs", "17.server.domain\n", "17.server.domain"),
        ("pbs", "17[].server\n", "17[].server"),
        ("sge", "17\n", "17"),
        ("sge", "17.1-9:2\n", "17"),
        ("lsf", "Job <17> is submitted to queue <batch>.\n", "17"),
        ("lsf", "Note: x\nJob <17> is submitted to default queue <batch>.\n", "17"),
        ("local", "17.4711\n", "17.4711"),
    ],
)
def test_job_id(name: str, printed: str, job_id: str) -> None:
    assert make(name).parse_job_id(answer(printed)) == job_id


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("printed", ["", "ok", "Job 17", "-3", "x0", "17\nbut then this\n"])
def test_what_is_no_job_id_is_an_error_in_one_sentence(name: str, printed: str) -> None:
    with pytest.raises(SubmitError, match="did not name the job's id") as caught:
        make(name).parse_job_id(answer(printed))
    assert not caught.value.transient


@pytest.mark.parametrize("name", ["slurm", "pbs", "sge", "lsf"])
def test_refusals_say_what_to_do(name: str) -> None:
    *lasting, passing = recorded(f"{name}/errors.txt").split("--\n")
    for text in lasting:
        with pytest.raises(SubmitError) as caught:
            make(name).parse_job_id(answer("", 1, text))
        assert not caught.value.transient
        assert "Correct the job, or see" not in str(caught.value), text
    with pytest.raises(SubmitError, match="submit again") as caught:
        make(name).parse_job_id(answer("", 1, passing))
    assert caught.value.transient


def states(name: str, output: Output, ids: str) -> dict[str, tuple[str, int | None]]:
    found = make(name).parse_status(ids.split(), output)
    return {job_id: (status.state.value, status.exit_status) for job_id, status in found.items()}


def test_slurm_status() -> None:
    output = answer(recorded("slurm/squeue.txt"))
    found = make("slurm").parse_status(
        ["12", "13", "14", "15", "16", "17", "18", "19", "20", "99"], output
    )
    assert {job_id: status.state.value for job_id, status in found.items()} == {
        "12": "running",
        "13": "queued",
        "14": "queued",
        "15": "running",
        "16": "queued",
        "17": "failed",
        "18": "queued",
        "19": "unknown",
        "20": "queued",
    }
    assert found["12"].hosts == "n[1-2]"
    assert found["13"].reason == "It waits for nodes to become free."
    assert found["16"].reason == "Nodes that it needs are out of service or reserved."
    assert found["17"].reason.startswith("Slurm ended the job when it reached its time limit")
    assert "QOSMaxMemoryPerUser" in found["18"].reason
    assert found["20"].reason == "Nodes that it needs are reserved or out of service."


def test_slurm_accounting() -> None:
    output = answer(recorded("slurm/sacct.txt"), program="sacct")
    found = make("slurm").parse_accounting(
        ["12", "13", "14", "15", "16", "17", "18", "19", "20"], output
    )
    assert {i: (s.state.value, s.exit_status) for i, s in found.items()} == {
        "12": ("completed", 0),
        "13": ("cancelled", None),
        "14": ("failed", 3),
        "15": ("failed", None),
        "16": ("failed", 253),
        "18": ("failed", 1),
        "19": ("failed", 181),
        "20": ("failed", 137),
    }
    assert "log folder" in found["19"].reason


def test_slurm_without_a_database() -> None:
    slurm = make("slurm")
    disabled = answer("", 1, "Slurm accounting storage is disabled", program="sacct")
    assert slurm.parse_accounting(["31"], disabled) == {}
    one = answer(recorded("slurm/scontrol.txt"), program="scontrol")
    assert slurm.parse_accounting(["31"], one)["31"].exit_status == 7
    array = answer(recorded("slurm/scontrol_array.txt"), program="scontrol")
    assert slurm.parse_accounting(["38"], array)["38"].state is JobState.CANCELLED


def test_slurm_says_that_a_condition_can_no_longer_be_met() -> None:
    line = "JobId=9 JobName=x JobState=CANCELLED Reason=DependencyNeverSatisfied ExitCode=0:0\n"
    found = make("slurm").parse_accounting(["9"], answer(line, program="scontrol"))["9"]
    assert found.state is JobState.CANCELLED
    assert "one that it waits for has not ended in the way" in found.reason


@pytest.mark.parametrize(
    ("job_id", "text"),
    [
        ("38_2", "Write 38: .* scancel 38_2"), ("abc", "are numbers"), ("0", "are numbers"),
        (str(2**32), "from 1 to 4294967295"), (0, "are numbers"),
    ],
)  # fmt: skip
def test_slurm_is_asked_about_numbers_only(job_id: str | int, text: str) -> None:
    """One other id, and squeue tells of none of the jobs that it was asked about."""
    with pytest.raises(SpecError, match=text):
        make("slurm").job(job_id)


def test_pbs_status() -> None:
    output = answer(recorded("pbs/qstat.json"), 153, "qstat: Unknown Job Id 999.pbs\n")
    ids = (
        "101.pbs 102.pbs 103.pbs 104.pbs 105.pbs 106.pbs 107[].pbs 108.pbs 109.pbs 110.pbs 999.pbs"
    )
    assert states("pbs", output, ids) == {
        "101.pbs": ("running", None),
        "102.pbs": ("queued", None),
        "103.pbs": ("completed", 0),
        "104.pbs": ("failed", 3),
        "105.pbs": ("failed", None),
        "106.pbs": ("cancelled", 143),
        "107[].pbs": ("running", None),
        "108.pbs": ("queued", None),
        "109.pbs": ("failed", 137),
        "110.pbs": ("unknown", None),
    }
    found = make("pbs").parse_status(ids.split(), output)
    assert found["102.pbs"].reason == "PBS says: Insufficient amount of resource: ncpus."
    assert "time limit" in found["105.pbs"].reason


def test_pbs_that_forgets_to_escape_is_understood() -> None:
    assert states("pbs", answer(recorded("pbs/qstat_invalid.json")), "101.pbs") == {
        "101.pbs": ("failed", 4)
    }


def test_sge_status() -> None:
    output = answer(recorded("sge/qstat.xml"))
    assert states("sge", output, "201 202 203 204 205 206") == {
        "201": ("running", None),
        "202": ("running", None),
        "203": ("queued", None),
        "204": ("queued", None),
        "205": ("queued", None),
    }
    found = make("sge").parse_status(["201", "203", "204"], output)
    assert found["201"].hosts == "node01"
    assert "held" in found["203"].reason
    assert "qstat -explain E -j 204" in found["204"].reason


def test_sge_8_1_9_status() -> None:
    output = answer(recorded("sge/qstat_8.1.9.xml"))
    assert states("sge", output, "1 2 5 6 7 8 9 10") == {
        "2": ("queued", None),
        "5": ("running", None),
        "6": ("queued", None),
        "7": ("queued", None),
        "8": ("running", None),
        "9": ("queued", None),
        "10": ("running", None),
    }
    found = make("sge").parse_status(["7", "9"], output)
    assert "another job to end" in found["7"].reason
    assert "`qalter -w p 9`" in found["9"].reason


def test_sge_accounting() -> None:
    def end(file: str, job_id: str) -> tuple[str, int | None]:
        (status,) = make("sge").parse_accounting([job_id], answer(recorded(file))).values()
        return status.state.value, status.exit_status

    assert end("sge/qacct.txt", "301") == ("failed", 3)
    assert end("sge/qacct_killed.txt", "302") == ("cancelled", 137)
    assert end("sge/qacct_limit.txt", "303") == ("failed", 137)
    assert end("sge/qacct_killed_8.1.9.txt", "5") == ("failed", 137)
    assert end("sge/qacct_limit_8.1.9.txt", "4") == ("failed", 137)
    # The job's own record stands after that of a program that it started by `qrsh -inherit`.
    assert end("sge/qacct_parallel.txt", "3") == ("completed", 0)


def test_sge_accounting_says_how_many_elements_it_knows() -> None:
    text = recorded("sge/qacct_array.txt")
    whole = make("sge").parse_accounting(["1"], answer(text))["1"]
    assert (whole.state, whole.exit_status, whole.n_elements) == (JobState.FAILED, 137, 3)
    first, second = text.split("=" * 62 + "\n")[1:3]
    early = make("sge").parse_accounting(["1"], answer(f"==\n{first}==\n{second}"))["1"]
    assert (early.exit_status, early.n_elements) == (1, 2)


def test_sge_run_that_is_to_be_repeated_is_no_end() -> None:
    again = recorded("sge/qacct_rerun.txt")
    assert make("sge").parse_accounting(["2"], answer(again)) == {}
    last = again.replace("25  : rescheduling", "0").replace("exit_status  0", "exit_status  4")
    found = make("sge").parse_accounting(["2"], answer(again + last))["2"]
    assert (found.state, found.exit_status, found.n_elements) == (JobState.FAILED, 4, 1)


def test_sge_refusal_is_told_without_the_leave_taking() -> None:
    text = recorded("sge/errors.txt").split("--\n")[0]
    with pytest.raises(SubmitError) as caught:
        make("sge").parse_job_id(answer("", 1, text, program="qsub"))
    assert str(caught.value) == (
        "Grid Engine did not take the job: `qsub` ended with status 1 and said: Unable to run job: "
        'Job was rejected because job requests unknown queue "nowhere". Name another queue with '
        "--queue; `qconf -sql` lists them."
    )


@pytest.mark.parametrize(
    ("folder", "words"),
    [("/a b;ü", ()), ("/a$HOME", ("-wd", "/", "-o", "/dev/null"))],
)
def test_sge_fills_in_no_variables_in_a_folder(folder: str, words: tuple[str, ...]) -> None:
    command = make("sge").submit_command(Path(folder, "job.sh"), JobSpec(command=("x",)))
    assert command.words == ("qsub", "-terse", *words, "job.sh")


def test_lsf_status() -> None:
    output = answer("Cannot connect to LSF. Please wait ...\n" + recorded("lsf/bjobs.json"))
    assert states("lsf", output, "401 402 403 404 405 406 407 499") == {
        "401": ("running", None),
        "402": ("queued", None),
        "403": ("completed", 0),
        "404": ("failed", 3),
        "405": ("cancelled", 130),
        "406": ("failed", 140),
        "407": ("running", None),
    }
    reason = make("lsf").parse_status(["402"], output)["402"].reason
    assert reason == "LSF says: New job is waiting for scheduling."


def test_lsf_accounting() -> None:
    found = make("lsf").parse_accounting(
        ["501", "502", "503", "504"], answer(recorded("lsf/bhist.txt"))
    )
    assert {i: (s.state.value, s.exit_status) for i, s in found.items()} == {
        "501": ("completed", 0),
        "502": ("failed", 3),
        "503": ("failed", 140),
    }
    assert "time limit" in found["503"].reason


GONE = {
    "slurm": answer("", 1, "slurm_load_jobs error: Invalid job id specified"),
    "pbs": answer("", 153, "qstat: Unknown Job Id 1.pbs"),
    "sge": answer("<?xml version='1.0'?><job_info><queue_info/><job_info/></job_info>"),
    "lsf": answer("", 255, "Job <1> is not found"),
    "local": answer(""),
}


@pytest.mark.parametrize("name", CLASSES)
def test_jobs_that_are_gone_are_no_error(name: str) -> None:
    assert make(name).parse_status(["1"], GONE[name]) == {}


@pytest.mark.parametrize("name", ["slurm", "pbs", "sge", "lsf"])
@pytest.mark.parametrize(
    "output",
    [
        answer("%%% 0x7f"),
        answer("", 1, "cannot connect"),
        answer("<html></html>"),
        answer('{"a": 1, "b": '),
    ],
)
def test_unreadable_answers_are_errors_and_no_states(name: str, output: Output) -> None:
    with pytest.raises(StatusError, match="did not say how its jobs are"):
        make(name).parse_status(["1"], output)


@pytest.mark.parametrize("name", ["pbs", "sge", "lsf"])
@pytest.mark.parametrize("bad", ["my job", "a'b", 'a"b', "$HOME", "1st", "é", "a" * 300])
def test_names_that_a_system_refuses_are_refused_first(name: str, bad: str) -> None:
    with pytest.raises(SpecError, match="Rename the job"):
        make(name).directives(JobSpec(command=("x",), name=bad))


@pytest.mark.parametrize("name", ["pbs", "sge", "lsf"])
@pytest.mark.parametrize("what", ["queue", "account", "constraint", "mail_user"])
def test_values_that_could_break_a_directive_are_refused(name: str, what: str) -> None:
    with pytest.raises(SpecError, match=what):
        make(name).directives(JobSpec(command=("x",), **{what: 'a b"; rm -rf $HOME'}))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("sge", {"after_ok": "7"}, "use after_any"),
        ("sge", {"signal_before_s": 60}, "-notify"),
        ("sge", {"nodes": 2, "tasks_per_node": 4}, "parallel environment"),
        ("sge", {"array": "0-3"}, "begin with 1"),
        ("lsf", {"array": "0-3"}, "begin with 1"),
        ("pbs", {"signal_before_s": 60}, "TERM at the limit"),
        ("local", {"nodes": 2}, "one node"),
        ("local", {"after_any": "7"}, "no queue"),
    ],
)
def test_what_a_system_cannot_do_is_refused(
    name: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence):
        make(name).directives(JobSpec.from_options(["x"], options))


def test_slurm_hides_variables_that_would_override_the_script() -> None:
    spec = JobSpec.from_options(["x"], {"queue": "batch"})
    command = make("slurm").submit_command(Path("/jobs/1/job.sh"), spec)
    assert command.words == ("sbatch", "--parsable", "job.sh")
    assert command.folder == Path("/jobs/1")
    assert "SBATCH_PARTITION" in command.without
    assert "SBATCH_ACCOUNT" not in command.without
    assert {"SBATCH_WAIT", "SBATCH_ARRAY_INX"} <= set(command.without)


@pytest.mark.parametrize(
    ("folder", "words"),
    [("/a b", ()), ("/50%j", ("--output=/50%%j/batch.log",)), ("/a\\b", ("--output=/dev/null",))],
)
def test_slurm_takes_no_sign_of_a_folder_for_its_own(folder: str, words: tuple[str, ...]) -> None:
    command = make("slurm").submit_command(Path(folder, "job.sh"), JobSpec(command=("x",)))
    assert command.words == ("sbatch", "--parsable", *words, "job.sh")


def test_skipped_directives_are_whole_options() -> None:
    spec = JobSpec.from_options(
        ["x"], {"skip_directives": ["--mem", "--exclusive"], "memory_per_node": "1G"}
    )
    lines = re.findall(r"^#SBATCH (.*)$", make("slurm").script(spec, Path("/j")), re.MULTILINE)
    assert lines == ["--job-name=job", "--output=batch.log", "--open-mode=append", "--nodes=1"]
