"""Do jobs work on hosts that share nothing but a network?

Every node of this Slurm has a network namespace, an address and a host name of its own, so that
Slurm, the launchers and MPI must go through the network.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from batch_harness import MPICH, Script, activated, run_testcluster, skip_without_demo
from harness import ENVIRONMENTS, Environment
from slurm_harness import ROOT, TESTCLUSTER, run_job

pytestmark = [pytest.mark.real_slurm, pytest.mark.slow]
DELAY_MS = 20
tool = partial(run_testcluster, TESTCLUSTER)

TRANSFER = """
import hashlib, platform
from mpicluster import Client

def make(seed):
    import numpy
    return platform.node(), numpy.random.default_rng(seed).bytes(200_000_000)

def look(value):
    host, data = value
    return host, platform.node(), hashlib.sha256(data).hexdigest()

with Client() as client:
    value = client.submit(make, 2026, workers=[4])
    made, used, digest = client.submit(look, value, workers=[3]).result()
    right = digest == hashlib.sha256(make(2026)[1]).hexdigest()
    print(f"made on {made}, used on {used}, right: {right}")
"""

BROADCAST = """
import numpy
from mpicluster import Client

def look(array):
    return float(array[0] + array[-1])

with Client() as client:
    workers = list(client.nthreads())
    value = client.scatter(numpy.arange(25_000_000.0), broadcast=True)
    tasks = [client.submit(look, value, workers=[worker], pure=False) for worker in workers]
    print(f"seen by {len(workers)} workers: {set(client.gather(tasks))}")
"""


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start three hosts for this module and remove them after it; return the cluster's folder."""
    programs = ("slurmctld", "slurmd", "munged", "ip", "nsenter", "unshare")
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge iproute2")
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces and start Slurm's daemons")
    folder = tmp_path_factory.mktemp("apart") / "cluster"
    started = tool("start", "--netns", "--nodes", "3", str(folder))
    refused = re.search(r".*(not permitted|not supported|Permission denied).*", started.stderr)
    if started.returncode != 0 and refused:
        pytest.skip(f"network namespaces cannot be made here: {refused[0]}")
    assert started.returncode == 0, started.stderr
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield folder
    finally:
        stopped = tool("stop", str(folder))
    assert stopped.returncode == 0, stopped.stderr


#: Every MPI with its own launcher, and MPICH with that of Slurm.
WAYS = [pytest.param(found, "mpirun", id=f"{found.name}-mpirun") for found in ENVIRONMENTS]
WAYS += [pytest.param(found, "srun", id=f"{found.name}-srun") for found in MPICH]


@pytest.fixture
def way(request: pytest.FixtureRequest, apart: Path, work: Path) -> Iterator[str]:
    """Run with an MPI first in PATH; return the job script for its launcher."""
    found, launcher = request.getfixturevalue("found"), request.getfixturevalue("launcher")
    with activated(found, work):
        yield str(ROOT / "slurm" / f"many_nodes_{launcher}.sbatch")


@pytest.fixture(scope="module")
def distant(apart: Path) -> str:
    """Give the third host a slow network from here on; return its name."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EPERM, errno.EACCES, errno.ENODEV):
            raise
        pytest.skip(f"a network cannot be made slow here: {error}")
    done = tool("delay", "--ms", str(DELAY_MS), str(apart), "n3")
    assert done.returncode == 0, done.stderr
    return "n3"


def network_of(apart: Path) -> dict[str, Any]:
    return dict(json.loads((apart / "network.json").read_text()))


def bytes_from(apart: Path, host: str) -> int:
    """Return how many bytes a host has sent through its card."""
    return _read_link(apart, host, "rx_bytes")


def bytes_to(apart: Path, host: str) -> int:
    """Return how many bytes have come to a host's card."""
    return _read_link(apart, host, "tx_bytes")


def _read_link(apart: Path, host: str, name: str) -> int:
    """Return what our end of a host's link has counted."""
    link = network_of(apart)["links"][host]
    return int(Path(f"/sys/class/net/{link}/statistics/{name}").read_text())


def fastest_connection_ms(apart: Path, host: str) -> float:
    """Return how long it takes to open a connection to a host's slurmd, at best."""
    found = re.search(rf"NodeName={host} .*Port=(\d+)", (apart / "slurm.conf").read_text())
    assert found is not None
    address = network_of(apart)["addresses"][host], int(found[1])
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        socket.create_connection(address, timeout=10).close()
        times.append((time.perf_counter() - begin) * 1000)
    return min(times)


def check_walk(way: str) -> None:
    ended = run_job("--nodes=3", way, str(ROOT / "scripts" / "walkthrough.py"))
    assert ended.status == 0, ended
    assert "Walkthrough finished." in ended.log, ended
    assert "mpicluster: 5 ranks on 3 hosts: " in ended.log, ended
    assert "\n  n1: scheduler, client, 1 worker with " in ended.log, ended
    assert "\n  each of n[2-3]: 1 worker with " in ended.log, ended


@pytest.mark.parametrize(("found", "launcher"), WAYS)
def test_200_mb_from_one_host_to_another(
    apart: Path, way: str, script: Script, found: Environment, launcher: str
) -> None:
    before = bytes_from(apart, "n3")
    ended = run_job("--nodes=3", way, str(script(TRANSFER)))
    assert ended.status == 0, ended
    assert "made on n3, used on n2, right: True" in ended.log, ended
    assert bytes_from(apart, "n3") - before >= 200_000_000


@pytest.mark.parametrize(("found", "launcher"), WAYS)
def test_a_broadcast_of_200_mb_comes_to_each_host_once(
    apart: Path, way: str, script: Script, found: Environment, launcher: str
) -> None:
    before = {host: bytes_to(apart, host) for host in ("n1", "n2", "n3")}
    options = "--workers-per-node", "3"
    ended = run_job("--nodes=3", way, *options, str(script(BROADCAST)))
    assert ended.status == 0, ended
    assert "seen by 9 workers: {24999999.0}" in ended.log, ended
    came = {host: (bytes_to(apart, host) - start) / 200e6 for host, start in before.items()}
    # The script's host gets it, too, if the first worker that has it is on another one.
    assert came["n1"] < 1.1, came
    assert 1.0 <= came["n2"] < 1.1, came
    assert 1.0 <= came["n3"] < 1.1, came


@pytest.mark.parametrize(("found", "launcher"), WAYS)
def test_the_main_job(way: str, found: Environment, launcher: str) -> None:
    skip_without_demo(found)
    check_walk(way)


@pytest.mark.parametrize(("found", "launcher"), WAYS)
def test_the_main_job_with_a_distant_host(
    apart: Path, distant: str, way: str, found: Environment, launcher: str
) -> None:
    skip_without_demo(found)
    assert fastest_connection_ms(apart, "n2") < DELAY_MS <= fastest_connection_ms(apart, distant)
    check_walk(way)
