"""What do the tests on a real Slurm share? A cluster of three nodes on this machine, for the whole
session.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_harness import Script, activated, work_folder, writer_of_scripts
from harness import ENVIRONMENTS, Environment
from slurm_harness import TESTCLUSTER

from jobqueue import Configuration, Slurm

NODES = 3
CPUS = 4


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start Slurm by `slurm/testcluster` and stop it after the last test; return its folder."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start Slurm's daemons")
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    options = ["--nodes", str(NODES), "--cpus", str(CPUS)]
    command = [sys.executable, str(TESTCLUSTER)]
    subprocess.run([*command, "start", *options, str(folder)], check=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield folder
    finally:
        subprocess.run([*command, "stop", str(folder)], check=True)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    return work_folder(tmp_path, monkeypatch)


@pytest.fixture
def slurm(cluster: Path, work: Path) -> Slurm:
    """The real Slurm, asked often, since tests wait for it."""
    return Slurm(
        configuration=Configuration(),
        poll_interval_s_min=0.1,
        poll_interval_s_max=0.3,
        file_patience_s=5,
    )


@pytest.fixture
def script(work: Path) -> Script:
    """Return a function that writes a script and returns its path."""
    return writer_of_scripts(work)


@pytest.fixture(params=ENVIRONMENTS, ids=lambda found: found.name)
def environment(request: pytest.FixtureRequest, cluster: Path, work: Path) -> Iterator[Environment]:
    """Run with each MPI first in PATH."""
    found: Environment = request.param
    with activated(found, work):
        yield found
