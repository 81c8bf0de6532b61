"""Does an ordinary installation with pip, in a user's own environment, run a job?"""

import os
import shutil
import sys
from pathlib import Path

import pytest
from harness import Runner

ROOT = Path(__file__).parents[2]
INSTALL_S = 400
#: What pip says where it reaches no package index.
NO_NETWORK = ("Failed to establish a new connection", "Temporary failure in name resolution")

pytestmark = [pytest.mark.real_mpi, pytest.mark.slow, pytest.mark.timeout(INSTALL_S + 100)]

SCRIPT = """
import dask.dataframe as dd, mpicluster, pandas as pd
from mpicluster import Client

with Client() as client:
    print(mpicluster.__file__.startswith(__import__("sys").prefix))
    print(len(client.scheduler_info()["workers"]), client.submit(max, 1, 2).result())
    print(int(dd.from_pandas(pd.DataFrame({"x": range(10)}), npartitions=2).x.sum().compute()))
"""


def test_install_with_pip_and_run(runner: Runner) -> None:
    source, folder = runner.folder / "source", runner.folder / "environment"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in ("mpicluster", "jobqueue"):
        shutil.copytree(ROOT / package, source / package)
    script = runner.folder / "script.py"
    script.write_text(SCRIPT)
    assert runner.run(sys.executable, "-m", "venv", str(folder)).status == 0
    wanted = f"{source}[{runner.environment.name},dask]"
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-input", "--quiet", wanted]
    installed = runner.run(*pip, timeout=INSTALL_S)
    if any(text in installed.stderr for text in NO_NETWORK):
        pytest.skip("no package index can be reached")
    assert installed.status == 0, installed
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    ended = runner.run("mpicluster", "run", "-n", "6", str(script), PATH=path)
    assert (ended.status, ended.stdout.splitlines()) == (0, ["True", "4 2", "45"]), ended
    helped = runner.run(str(folder / "bin" / "python"), "-m", "jobqueue", "--help")
    assert helped.status == 0, helped
