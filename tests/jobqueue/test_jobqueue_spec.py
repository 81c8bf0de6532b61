"""Are jobs described as users mean them, and is a bad value refused with a sentence?"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobqueue import Array, JobSpec, Resources, SpecError
from jobqueue.spec import launch_words
from jobqueue.units import clock, hours_and_minutes, mebibytes, parse_memory, parse_walltime


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1:30:00", 5400),
        ("2-12:00:00", 216000),
        ("90m", 5400),
        ("2h", 7200),
        ("1.5d", 129600),
        ("45 s", 45),
    ],
)
def test_walltimes(text: str, seconds: int) -> None:
    assert parse_walltime(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("bad", ["1:30", "30", 30, "", "-1h", "0s", "1:75:00", None, "1h\n#SBATCH"])
def test_walltimes_that_systems_read_differently_are_refused(bad: object) -> None:
    with pytest.raises(SpecError, match="walltime"):
        parse_walltime(bad)


def test_memory() -> None:
    assert [parse_memory(size) for size in ("64GiB", "64G", "1GB", "512", 7)] == [
        64 * 1024**3,
        64 * 1024**3,
        10**9,
        512,
        7,
    ]
    for bad in ("lots", "-1G", "1Q", 0, True, None, 1.5):
        with pytest.raises(SpecError, match="memory"):
            parse_memory(bad)


def test_what_systems_are_told_is_rounded_up() -> None:
    assert mebibytes(1) == 1
    assert clock(timedelta(seconds=0.5)) == "0:00:01"
    assert hours_and_minutes(timedelta(seconds=61)) == "0:02"


def test_arrays() -> None:
    assert list(Array.parse("0-9:3%2").indices) == [0, 3, 6, 9]
    assert Array.parse("5").indices == range(5, 6)
    for bad in ("5-1", "1,2", "a", "1-2;rm", "1-4%0", "1-4:0", ""):
        with pytest.raises(SpecError, match="array"):
            Array.parse(bad)


def test_without_cores_a_job_gets_whole_nodes() -> None:
    assert Resources().whole_nodes
    assert not Resources(cpus_per_task=4).whole_nodes
    assert Resources(cpus_per_task=4, exclusive=True).whole_nodes
    assert Resources(tasks_per_node=2, cpus_per_task=8).cores_per_node == 16


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nodes": 0}, "nodes is 0; it must be from 1"),
        ({"nodes": "four"}, "whole number"),
        ({"nodes": True}, "whole number"),
        ({"cpus_per_task": -1}, "at least 1"),
        ({"name": "two\nlines"}, "would end its line"),
        ({"queue": ""}, "empty"),
        ({"account": 7}, "text in quotes"),
        ({"extra_directives": "--a\n--b"}, "would end its line"),
        ({"environment": {"A B": "1"}}, "no name that a shell accepts"),
        ({"environment": {"A": "\0"}}, "must not contain"),
        ({"environment": "A=1"}, "must map names to values"),
        ({"after_ok": ["1; rm"]}, "job id"),
        ({"mail_when": "sometimes"}, "begin, end, fail"),
        ({"signal_name": "STOP"}, "not one of"),
        ({"exclusive": "yes"}, "true or false"),
        ({"prologue": 7}, "list of texts"),
        ({"working_folder": 3}, "must be a path"),
        ({"environment": {"A": True}}, "text in quotes"),
        ({"memory_per_node": 10**400}, "of so many digits"),
        ({"nodse": 4}, "'nodse' does not exist. Valid are: account"),
    ],
)
def test_bad_values_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        JobSpec.from_options(["x"], options)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [[], [""], ["a\0b"]])
def test_bad_commands_are_refused(command: list[str]) -> None:
    with pytest.raises(SpecError):
        JobSpec.from_options(command, {})


def test_none_leaves_an_option_to_its_default() -> None:
    assert JobSpec.from_options(["x"], {"nodes": None, "array": None}).resources.nodes == 1


def test_folders_are_absolute(home: Path) -> None:
    assert JobSpec.from_options(["x"], {"log_folder": "logs"}).log_folder == home / "logs"


def test_a_script_is_started_by_mpicluster_run_unless_told_otherwise() -> None:
    assert launch_words({"python": "/py", "run_options": ["--slots", "4"]}) == (
        *("/py", "-m", "mpicluster", "run"),
        *("--slots", "4"),
    )
    assert launch_words({"launch": ["srun", "python"]}) == ("srun", "python")


def test_what_starts_a_script_is_a_path_or_a_list_of_words() -> None:
    for options, sentence in (
        ({"python": 3}, "path of a Python"),
        ({"launch": "srun python"}, r"such as \['srun', 'python'\]"),
    ):
        with pytest.raises(SpecError, match=sentence):
            launch_words(options)
    assert launch_words({"launch": "my-launcher"}) == ("my-launcher",)
