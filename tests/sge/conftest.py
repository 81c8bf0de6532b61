"""What do the tests on a real Grid Engine share? A cluster of one host, this machine, for the whole
session.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_harness import OPENMPI, Script, activated, work_folder, writer_of_scripts
from harness import Environment
from sge_harness import PROGRAMS, SLOTS, TESTCLUSTER, cluster_variables, why_no_grid_engine

from jobqueue import SGE, Configuration


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start Grid Engine by `tests/sge/testcluster` and stop it after the last test; return its
    folder.
    """
    why = why_no_grid_engine()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("sge") / "cluster"
    command = [sys.executable, str(TESTCLUSTER)]
    subprocess.run([*command, "start", "--slots", str(SLOTS), str(folder)], check=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in cluster_variables(folder).items():
                patch.setenv(name, value)
            # Debian's wrappers in /usr/bin take twenty times as long as the programs: 0.4 s.
            patch.setenv("PATH", f"{PROGRAMS}:{os.environ['PATH']}")
            yield folder
    finally:
        subprocess.run([*command, "stop", str(folder)], check=True)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    return work_folder(tmp_path, monkeypatch)


@pytest.fixture
def sge(cluster: Path, work: Path) -> SGE:
    """The real Grid Engine, asked often, since tests wait for it."""
    return SGE(
        configuration=Configuration(),
        parallel_environment="mpi",
        parallel_environment_one_node="smp",
        poll_interval_s_min=0.1,
        poll_interval_s_max=0.3,
        file_patience_s=2,
    )


@pytest.fixture
def script(work: Path) -> Script:
    """Return a function that writes a script and returns its path."""
    return writer_of_scripts(work)


@pytest.fixture(params=OPENMPI, ids=lambda found: found.name)
def environment(request: pytest.FixtureRequest, cluster: Path, work: Path) -> Iterator[Environment]:
    """Run with Open MPI first in PATH; afterwards nothing may be left."""
    assert os.environ["SGE_ROOT"] == str(cluster)
    found: Environment = request.param
    with activated(found, work):
        yield found
