"""Does `tests/sge/testcluster` start a Grid Engine of its own, and leave nothing behind?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sge_harness import TESTCLUSTER, cluster_variables, running, why_no_grid_engine

pytestmark = [pytest.mark.real_sge, pytest.mark.slow]


def testcluster(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTCLUSTER), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


testcluster.__test__ = False  # type: ignore[attr-defined]


def processes(folder: Path) -> list[str]:
    """Return the command lines of processes that live and have this folder as SGE_ROOT."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"SGE_ROOT={folder}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    why = why_no_grid_engine()
    if why:
        pytest.skip(why)
    return tmp_path / "cluster"


def test_a_cluster_starts_and_stops_without_a_trace(place: Path, tmp_path: Path) -> None:
    started = testcluster("start", "--slots", 3, place)
    assert started.returncode == 0, started.stderr
    shown = cluster_variables(place)
    assert started.stdout == "".join(f"export {name}={value}\n" for name, value in shown.items())
    assert testcluster("env", place).stdout == started.stdout
    assert testcluster("start", place).returncode == 1
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
        stopped = testcluster("stop", place)
    assert stopped.returncode == 0, stopped.stderr
    assert not place.exists()
    assert processes(place) == []
    assert not running("4714.5")


def test_what_is_no_cluster_is_not_stopped(place: Path) -> None:
    place.mkdir()
    (place / "valuable").touch()
    assert testcluster("stop", place).returncode == 1
    assert testcluster("start", place).returncode == 1
    assert (place / "valuable").exists()
    assert testcluster("env", place).returncode == 1
