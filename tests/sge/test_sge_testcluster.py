"""Does `tests/sge/testcluster` start a Grid Engine of its own, and leave nothing behind?"""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
from batch_harness import processes, run_testcluster, running
from sge_harness import TESTCLUSTER, cluster_variables, why_no_grid_engine

pytestmark = [pytest.mark.real_sge, pytest.mark.slow]


tool = partial(run_testcluster, TESTCLUSTER)


def of_cluster(folder: Path) -> list[str]:
    """Return the command lines of processes that live and have this folder as SGE_ROOT."""
    variable = f"SGE_ROOT={folder}".encode()
    return processes(lambda path: variable in (path / "environ").read_bytes().split(b"\0"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    why = why_no_grid_engine()
    if why:
        pytest.skip(why)
    return tmp_path / "cluster"


def test_a_cluster_starts_and_stops_without_a_trace(place: Path, tmp_path: Path) -> None:
    started = tool("start", "--slots", 3, place)
    assert started.returncode == 0, started.stderr
    shown = cluster_variables(place)
    assert started.stdout == "".join(f"export {name}={value}\n" for name, value in shown.items())
    assert tool("env", place).stdout == started.stdout
    assert tool("start", place).returncode == 1
    variables = os.environ | shown
    try:
        for code in (
            "setsid sleep 4714.5 >/dev/null 2>&1 </dev/null &",
            "trap '' TERM; while true; do sleep 1; done",
        ):
            subprocess.run(
                ["qsub", "-terse", "-j", "y", "-o", "/dev/null", "-S", "/bin/bash"],
                input=code,
                text=True,
                env=variables,
                cwd="/",
                capture_output=True,
                check=True,
            )
        command = ["qsub", "-terse", "-sync", "y", "-o", "/dev/null", "-j", "y", "-b", "y", "true"]
        subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, check=True)
    finally:
        stopped = tool("stop", place)
    assert stopped.returncode == 0, stopped.stderr
    assert not place.exists()
    assert of_cluster(place) == []
    assert not running("4714.5")


def test_what_is_no_cluster_is_not_stopped(place: Path) -> None:
    place.mkdir()
    (place / "valuable").touch()
    assert tool("stop", place).returncode == 1
    assert tool("start", place).returncode == 1
    assert (place / "valuable").exists()
    assert tool("env", place).returncode == 1
