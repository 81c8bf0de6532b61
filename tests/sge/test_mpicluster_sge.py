"""Do scripts of mpicluster run as jobs of a real Grid Engine, and end as they should?"""

from pathlib import Path

import pytest
from batch_harness import ANALYSIS, ENDLESS, CommandLine, Script, until
from harness import Environment

pytestmark = [pytest.mark.real_sge, pytest.mark.slow]
SETTINGS = """system = "sge"
[jobqueue.sge]
parallel_environment = "mpi"
parallel_environment_one_node = "smp"
"""


@pytest.fixture
def cli(environment: Environment, work: Path) -> CommandLine:
    """The commands of mpicluster."""
    return CommandLine(environment, work, SETTINGS)


def test_scripts_from_submission_to_their_logs(cli: CommandLine, script: Script) -> None:
    path = script(ANALYSIS)
    good = cli.submit("--nodes", 1, "--cpus-per-task", 3, path)
    bad = cli.submit("--nodes", 1, "--cpus-per-task", 2, path, 7)
    ended = cli("wait", good)
    assert ended.status == 0, ended
    logs = cli("logs", good)
    assert "workers 1 sum 332833500" in logs.stdout, logs
    assert "mpicluster: 3 ranks on" in logs.stdout, logs
    ended = cli("wait", bad)
    assert ended.status == 7, ended
    row = cli.status_of(bad)
    assert (row["state"], row["exit_status"]) == ("failed", 7)


def test_a_script_that_is_cancelled(cli: CommandLine, script: Script, work: Path) -> None:
    job = cli.submit("--cpus-per-task", 4, script(ENDLESS), "begun")
    until((work / "begun").exists, "the worker is busy")
    assert cli.status_of(job)["state"] == "running"
    assert cli("cancel", job).status == 0
    assert cli("wait", job).status != 0
    assert cli.status_of(job)["state"] == "cancelled"
