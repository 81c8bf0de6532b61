"""Does `slurm/testcluster` start hosts that are really apart, and leave nothing behind?"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from batch_harness import processes, run_testcluster
from slurm_harness import TESTCLUSTER

pytestmark = [pytest.mark.real_slurm, pytest.mark.slow]
tool = partial(run_testcluster, TESTCLUSTER)


def of_cluster(folder: Path) -> list[str]:
    """Return the command lines that live and name this folder."""
    lines = processes(lambda path: str(folder).encode() in (path / "cmdline").read_bytes())
    return [line for line in lines if "testcluster" not in line]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    if os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "munged"))):
        pytest.skip("needs root and the packages slurm-wlm and munge")
    return tmp_path / "cluster"


@pytest.mark.parametrize("apart", [False, True])
def test_a_cluster_starts_and_stops_without_a_trace(place: Path, apart: bool) -> None:
    if apart and not shutil.which("ip"):
        pytest.skip("needs the package iproute2")
    interfaces = sorted(path.name for path in Path("/sys/class/net").iterdir())
    started = tool(
        "start", *(["--netns"] if apart else []), "--nodes", 2, "--cpus", 3, place
    )
    if apart and "Operation not permitted" in started.stderr:
        pytest.skip("network namespaces are not permitted here")
    assert started.returncode == 0, started.stderr
    assert started.stdout == f"export SLURM_CONF='{place}/slurm.conf'\n"
    try:
        if apart and Path("/dev/net/tun").exists():
            for milliseconds in (1, 2):  # a second wire takes the place of the first
                slow = tool("delay", "--ms", milliseconds, place, "n2")
                assert slow.returncode == 0, slow.stderr
        code = "hostname; setsid sleep 4712.5 >/dev/null 2>&1 </dev/null &"
        variables = os.environ | {"SLURM_CONF": f"{place}/slurm.conf"}
        words = ["srun", "--nodes=2", "--ntasks=2", "bash", "-c", code]
        done = subprocess.run(words, env=variables, capture_output=True, text=True, check=True)
        hosts = set(done.stdout.split())
        assert hosts == ({"n1", "n2"} if apart else {os.uname().nodename})
        subprocess.run(
            ["sbatch", "--output=/dev/null", "--wrap", "trap '' TERM; sleep 60"],
            env=variables,
            cwd="/",
            capture_output=True,
            check=True,
        )
    finally:
        stopped = tool("stop", place)
    assert stopped.returncode == 0, stopped.stderr
    assert not place.exists()
    assert of_cluster(place) == []
    assert sorted(path.name for path in Path("/sys/class/net").iterdir()) == interfaces


def test_what_is_no_cluster_is_not_stopped(place: Path) -> None:
    place.mkdir()
    (place / "valuable").touch()
    assert tool("stop", place).returncode == 1
    assert tool("start", place).returncode == 1
    assert (place / "valuable").exists()
    assert tool("env", place).returncode == 1
    assert tool("delay", place, "n1").returncode == 1
