"""Do `mpicluster submit`, `status`, `wait`, `logs` and `cancel` take a script from end to end?

The scripts are real ones: a scheduler, a client and workers on the nodes of a real Slurm.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Ended, Environment, Runner
from slurm_harness import ANALYSIS, ENDLESS, until

pytestmark = [pytest.mark.real_slurm, pytest.mark.slow]
Script = Callable[..., Path]
Cli = Callable[..., Ended]


@pytest.fixture
def cli(environment: Environment, work: Path) -> Cli:
    """Return a function that runs a command of mpicluster to its end."""
    (work / "mpicluster.toml").write_text(
        "[jobqueue]\npoll_interval_s_min = 0.2\npoll_interval_s_max = 0.5\n"
    )

    def run(*words: object) -> Ended:
        command = [environment.python, "-m", "mpicluster", *map(str, words)]
        return Runner(environment, work).run(*command, timeout=250)

    return run


def submit(cli: Cli, *words: object) -> str:
    ended = cli("submit", "--time", "10m", *words)
    assert ended.status == 0, ended
    return ended.stdout.strip()


def status_of(cli: Cli, job: str) -> dict[str, Any]:
    ended = cli("status", "--json", job)
    assert ended.status == 0, ended
    (row,) = json.loads(ended.stdout)
    return dict(row)


def test_a_script_from_submission_to_its_log(cli: Cli, script: Script) -> None:
    job = submit(cli, "--nodes", 3, script(ANALYSIS))
    followed = cli("logs", "--follow", job)
    assert "workers 3 sum 332833500" in followed.stdout, followed
    assert "mpicluster: 5 ranks on" in followed.stdout, followed
    assert cli("wait", job).status == 0
    row = status_of(cli, job)
    assert (row["state"], row["exit_status"]) == ("completed", 0)


def test_a_script_that_fails(cli: Cli, script: Script) -> None:
    raises = ANALYSIS.replace("sys.exit", "raise ValueError('no such year')\nsys.exit")
    words = ["--nodes", 1, "--tasks-per-node", 1, "--cpus-per-task", 2]
    exits = submit(cli, *words, script(ANALYSIS, "exits.py"), 7)
    raised = submit(cli, *words, script(raises, "raises.py"))
    ended = cli("wait", exits)
    assert ended.status == 7, ended
    ended = cli("wait", raised)
    assert ended.status == 1, ended
    assert "ValueError: no such year" in ended.stderr, ended
    row = status_of(cli, exits)
    assert (row["state"], row["exit_status"]) == ("failed", 7)
    logs = cli("logs", raised).stdout
    assert logs.count("ValueError: no such year") == 1, logs


def test_a_script_that_is_cancelled(cli: Cli, script: Script, work: Path) -> None:
    job = submit(cli, "--nodes", 3, script(ENDLESS), "begun")
    until((work / "begun").exists, "all workers are busy")
    assert status_of(cli, job)["state"] == "running"
    assert cli("cancel", job).status == 0
    assert cli("wait", job).status != 0
    assert status_of(cli, job)["state"] == "cancelled"


def test_an_array_and_a_job_that_waits_for_it(cli: Cli, script: Script, work: Path) -> None:
    square = script(
        "import os\nfrom mpicluster import Client\n"
        "with Client() as client:\n"
        "    index = int(os.environ['JOBQUEUE_ARRAY_INDEX'])\n"
        "    open(f'part-{index}', 'w').write(str(client.submit(pow, index, 2).result()))\n",
        "square.py",
    )
    add = script(
        "from pathlib import Path\nfrom mpicluster import Client\n"
        "with Client() as client:\n"
        "    parts = [int(path.read_text()) for path in Path().glob('part-*')]\n"
        "    print('sum', client.submit(sum, parts).result(), 'of', len(parts))\n",
        "add.py",
    )
    core = ["--cpus-per-task", 1]
    parts = submit(cli, *core, "--array", "3-4", square)
    whole = submit(cli, *core, "--after-ok", parts, add)
    ended = cli("wait", whole)
    assert ended.status == 0, ended
    assert "sum 25 of 2" in cli("logs", whole).stdout
    assert status_of(cli, parts)["state"] == "completed"
