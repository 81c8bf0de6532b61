"""Do scripts of mpicluster run as jobs of a real Grid Engine, and end as they should?"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Ended, Environment, Runner
from slurm_harness import ANALYSIS, ENDLESS, until

pytestmark = [pytest.mark.real_sge, pytest.mark.slow]
Script = Callable[..., Path]
Cli = Callable[..., Ended]


@pytest.fixture
def cli(environment: Environment, work: Path) -> Cli:
    """Return a function that runs a command of mpicluster to its end."""
    (work / "mpicluster.toml").write_text(
        "[jobqueue]\nsystem = 'sge'\npoll_interval_s_min = 0.2\npoll_interval_s_max = 0.5\n"
        "[jobqueue.sge]\nparallel_environment = 'mpi'\nparallel_environment_one_node = 'smp'\n"
    )

    def run(*words: object) -> Ended:
        command = [environment.python, "-m", "mpicluster", *map(str, words)]
        return Runner(environment, work).run(*command, timeout=250)

    return run


def submit(cli: Cli, *words: object) -> str:
    ended = cli("submit", "--system", "sge", "--time", "10m", *words)
    assert ended.status == 0, ended
    return ended.stdout.strip()


def status_of(cli: Cli, job: str) -> dict[str, Any]:
    ended = cli("status", "--json", job)
    assert ended.status == 0, ended
    (row,) = json.loads(ended.stdout)
    return dict(row)


def test_scripts_from_submission_to_their_logs(cli: Cli, script: Script) -> None:
    path = script(ANALYSIS)
    good = submit(cli, "--nodes", 1, "--cpus-per-task", 3, path)
    bad = submit(cli, "--nodes", 1, "--cpus-per-task", 2, path, 7)
    ended = cli("wait", good)
    assert ended.status == 0, ended
    logs = cli("logs", good)
    assert "workers 1 sum 332833500" in logs.stdout, logs
    assert "mpicluster: 3 ranks on" in logs.stdout, logs
    ended = cli("wait", bad)
    assert ended.status == 7, ended
    row = status_of(cli, bad)
    assert (row["state"], row["exit_status"]) == ("failed", 7)


def test_a_script_that_is_cancelled(cli: Cli, script: Script, work: Path) -> None:
    job = submit(cli, "--cpus-per-task", 4, script(ENDLESS), "begun")
    until((work / "begun").exists, "the worker is busy")
    assert status_of(cli, job)["state"] == "running"
    assert cli("cancel", job).status == 0
    assert cli("wait", job).status != 0
    assert status_of(cli, job)["state"] == "cancelled"
