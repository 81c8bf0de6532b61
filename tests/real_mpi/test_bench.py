"""Does `mpicluster bench` run on real ranks? What it measures is no matter of a test."""

import json
from pathlib import Path

import pytest
from harness import Runner

pytestmark = [pytest.mark.real_mpi, pytest.mark.slow]
ONLY = "map,first,latency,payload,idle,busy,fetch,scatter,gather"
RAW = {"map", "latency", "fetch", "scatter", "gather"}


def read(path: Path) -> dict[str, set[str]]:
    """Return {contender: cases with figures}, and fail if a case has none."""
    found: dict[str, set[str]] = {}
    for row in json.loads(path.read_text())["rows"]:
        assert row["values"], row
        found.setdefault(row["contender"], set()).add(row["case"])
    return found


def test_started_by_the_command(runner: Runner) -> None:
    ended = runner.run(
        runner.environment.python, "-m", "mpicluster", "bench", "-n", "4", "--tiny", "--only", ONLY,
        "--json", "rows.json", "--markdown", "rows.md",
    )  # fmt: skip
    assert ended.status == 0, ended
    found = read(runner.folder / "rows.json")
    assert found["mpicluster"] == set(ONLY.split(",")), ended
    assert found["raw MPI"] == RAW
    assert "raw MPI" in ended.stdout
    assert (runner.folder / "rows.md").read_text().startswith("# Measured figures")


def test_workers_that_answer_at_once_in_ranks_that_are_there(runner: Runner) -> None:
    words = ["bench", "--zero-workers", "--tiny", "--only", "map,latency", "--json", "rows.json"]
    ended = runner.raw_mpi(4, runner.environment.python, "-m", "mpicluster", *words)
    assert ended.status == 0, ended
    assert list(read(runner.folder / "rows.json").values()) == [{"map", "latency"}]
