"""Does a job script run what it was given, and nothing else, and tell how that ended?"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue import SGE, Configuration, JobSpec, Local, Slurm

ODD = [
    "plain",
    "two words",
    "q'uo\"te",
    "$HOME `id` $(id)",
    "new\nline",
    "-n",
    "*",
    "\\",
    "#!",
    "ü€",
    ";",
    "a&b|c",
]
#: any text that a process can be given; surrogates and NUL cannot be passed at all
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def write(folder: Path, command: list[str], **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    spec = JobSpec.from_options(command, {"working_folder": folder, **options})
    script = folder / "job.sh"
    script.write_text(Local(configuration=Configuration()).script(spec, folder), newline="")
    return script


def execute(folder: Path, command: list[str], **options: Any) -> int:
    script = write(folder, command, **options)
    return subprocess.run(["bash", script], cwd=folder, check=False).returncode


def test_odd_words_folders_and_variables_arrive_as_they_are(home: Path) -> None:
    folder = home / "odd \"'$HOME\n%j;#"
    code = 'printf "%s\\0" "$VALUE" "$PWD" "$@" >words'
    value = 'it\'s "$HOME"\n`id`'
    assert execute(folder, ["bash", "-c", code, *ODD], environment={"VALUE": value}) == 0
    # `bash -c` takes the first word after the code for its own name.
    words = (folder / "words").read_bytes().decode().split("\0")
    assert words[:-1] == [value, str(folder), *ODD[1:]]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(TEXTS, max_size=4), value=TEXTS)
def test_no_text_breaks_out_of_a_script(home: Path, words: list[str], value: str) -> None:
    command = ["bash", "-c", 'printf "%s\\0" "$VALUE" "$@" >words', "bash", *words]
    command = [word or "-" for word in command]
    assert execute(home / "any", command, environment={"VALUE": value}) == 0
    assert (home / "any" / "words").read_bytes().decode().split("\0")[:-1] == [value, *command[4:]]


@settings(max_examples=40, deadline=None)
@given(name=TEXTS.filter(lambda text: bool(text) and text.isprintable()))
def test_a_name_stays_on_the_line_of_its_directive(name: str) -> None:
    spec = JobSpec(command=("true",), name=name)
    script = Slurm(configuration=Configuration()).script(spec, Path("/jobs/1"))
    other = Slurm(configuration=Configuration()).script(JobSpec(command=("true",)), Path("/jobs/1"))
    assert script.split("\n")[2:] == other.split("\n")[2:]
    assert subprocess.run(["bash", "-n"], input=script.encode(), check=False).returncode == 0


@pytest.mark.parametrize("status", [0, 3, 127])
def test_the_status_is_stored_and_returned(home: Path, status: int) -> None:
    assert execute(home, ["bash", "-c", f"exit {status}"]) == status
    assert (home / "exit-status").read_text() == f"{status} \n"


@pytest.mark.parametrize(("status", "returned"), [(99, 1), (100, 1), (98, 98)])
def test_statuses_that_a_batch_system_takes_for_orders_are_stored_alone(
    home: Path, status: int, returned: int
) -> None:
    spec = JobSpec.from_options(["bash", "-c", f"exit {status}"], {"working_folder": home})
    script = SGE(configuration=Configuration()).script(spec, home)
    assert subprocess.run(["bash", "-c", script], cwd=home, check=False).returncode == returned
    assert (home / "exit-status").read_text() == f"{status} \n"


def test_a_missing_program_is_status_127_with_a_message(home: Path) -> None:
    assert execute(home, ["no-such-program"]) == 127
    assert "no-such-program: command not found" in (home / "output.log").read_text()


def test_prologue_and_epilogue_run_around_the_command(home: Path) -> None:
    epilogue = 'echo "after $A $JOBQUEUE_EXIT_STATUS"'
    assert (
        execute(
            home, ["bash", "-c", 'echo "in $A"; exit 4'], prologue="export A=1", epilogue=epilogue
        )
        == 4
    )
    assert (home / "output.log").read_text() == "in 1\nafter 1 4\n"


def test_a_prologue_that_gives_up_is_the_end_of_the_job(home: Path) -> None:
    assert execute(home, ["touch", "ran"], prologue="exit 5") == 5
    assert (home / "exit-status").read_text() == "5 \n"
    assert not (home / "ran").exists()


def test_a_second_run_after_a_requeue_starts_afresh(home: Path) -> None:
    execute(home, ["bash", "-c", "echo first; exit 1"])
    (home / "exit-status").write_text("143 TERM\n")
    assert execute(home, ["bash", "-c", "test ! -e exit-status && echo second"]) == 0
    assert (home / "output.log").read_text() == "first\nsecond\n"


def start(home: Path, code: str, **options: Any) -> subprocess.Popen[bytes]:
    script = write(
        home, ["bash", "-c", f"{code}; touch ready; while :; do sleep 0.02; done"], **options
    )
    process = subprocess.Popen(["bash", script], cwd=home, start_new_session=True)
    deadline = time.monotonic() + 10
    while not (home / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def test_a_job_that_is_told_to_end_says_so_first(home: Path) -> None:
    process = start(home, "true")
    os.killpg(process.pid, signal.SIGTERM)  # as batch systems do: all processes of the job
    assert process.wait(5) == 143
    assert (home / "exit-status").read_text() == "143 TERM\n"


def test_the_record_is_written_before_a_slow_command_ends(home: Path) -> None:
    process = start(home, "trap '' TERM")
    os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + 5
    while not (home / "exit-status").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (home / "exit-status").read_text() == "143 TERM\n"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def test_a_warning_signal_is_passed_to_the_command(home: Path) -> None:
    process = start(home, "trap 'echo saved; exit 6' USR1", signal_name="USR1")
    process.send_signal(signal.SIGUSR1)  # to the script alone, as Slurm does
    assert process.wait(5) == 6
    assert (home / "output.log").read_text() == "saved\n"
    assert (home / "exit-status").read_text() == "6 \n"
