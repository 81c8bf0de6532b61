"""Do `mpicluster submit`, `status`, `wait`, `logs` and `cancel` take a script from end to end?

The scripts are real ones: a scheduler, a client and workers on the nodes of a real Slurm.
"""

from pathlib import Path

import pytest
from batch_harness import ANALYSIS, ENDLESS, CommandLine, Script, until
from harness import Environment

pytestmark = [pytest.mark.real_slurm, pytest.mark.slow]


@pytest.fixture
def cli(environment: Environment, work: Path) -> CommandLine:
    """The commands of mpicluster."""
    return CommandLine(environment, work, "")


def test_a_script_from_submission_to_its_log(cli: CommandLine, script: Script) -> None:
    job = cli.submit("--nodes", 3, script(ANALYSIS))
    followed = cli("logs", "--follow", job)
    assert "workers 3 sum 332833500" in followed.stdout, followed
    assert "mpicluster: 5 ranks on" in followed.stdout, followed
    assert cli("wait", job).status == 0
    row = cli.status_of(job)
    assert (row["state"], row["exit_status"]) == ("completed", 0)


def test_what_tasks_print_is_in_the_log_of_their_worker(cli: CommandLine, script: Script) -> None:
    says = "from mpicluster import Client\nwith Client() as client:\n    print('from the script')\n"
    says += "    [client.submit(print, rank, 'prints', workers=rank).result() for rank in (2, 3)]\n"
    job = cli.submit("--nodes", 2, script(says, "says.py"))
    assert cli("wait", job).status == 0
    logs = cli("logs", job)
    assert "from the script\n" in logs.stdout, logs
    assert "prints" not in logs.stdout, logs
    assert "worker-2, worker-3" in logs.stderr, logs
    for rank in (2, 3):
        assert cli("logs", job, "--role", f"worker-{rank}").stdout == f"{rank} prints\n"


def test_a_script_that_fails(cli: CommandLine, script: Script) -> None:
    raises = ANALYSIS.replace("sys.exit", "raise ValueError('no such year')\nsys.exit")
    words = ["--nodes", 1, "--tasks-per-node", 1, "--cpus-per-task", 2]
    exits = cli.submit(*words, script(ANALYSIS, "exits.py"), 7)
    raised = cli.submit(*words, script(raises, "raises.py"))
    ended = cli("wait", exits)
    assert ended.status == 7, ended
    ended = cli("wait", raised)
    assert ended.status == 1, ended
    assert "ValueError: no such year" in ended.stderr, ended
    row = cli.status_of(exits)
    assert (row["state"], row["exit_status"]) == ("failed", 7)
    logs = cli("logs", raised).stdout
    assert logs.count("ValueError: no such year") == 1, logs


def test_a_script_that_is_cancelled(cli: CommandLine, script: Script, work: Path) -> None:
    job = cli.submit("--nodes", 3, script(ENDLESS), "begun")
    until((work / "begun").exists, "all workers are busy")
    assert cli.status_of(job)["state"] == "running"
    assert cli("cancel", job).status == 0
    assert cli("wait", job).status != 0
    assert cli.status_of(job)["state"] == "cancelled"


def test_an_array_and_a_job_that_waits_for_it(cli: CommandLine, script: Script, work: Path) -> None:
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
    parts = cli.submit(*core, "--array", "3-4", square)
    whole = cli.submit(*core, "--after-ok", parts, add)
    ended = cli("wait", whole)
    assert ended.status == 0, ended
    assert "sum 25 of 2" in cli("logs", whole).stdout
    assert cli.status_of(parts)["state"] == "completed"
