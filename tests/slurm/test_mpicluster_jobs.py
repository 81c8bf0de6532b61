"""Do real Slurm jobs run mpicluster on all their nodes, and end with the script's status?"""

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from batch_harness import (
    ANALYSIS,
    ENDLESS,
    MPICH,
    OPENMPI,
    Script,
    activated,
    skip_without_demo,
    until,
)
from harness import ENVIRONMENTS, Environment, Runner
from slurm_harness import ROOT, run_job, sbatch, wait_for

from jobqueue import JobState, Slurm

pytestmark = [pytest.mark.real_slurm, pytest.mark.slow]
RESULT = "workers 3 sum 332833500"

only_openmpi = [
    pytest.mark.skipif(not OPENMPI, reason="no Python here has mpi4py on Open MPI"),
    pytest.mark.parametrize("environment", OPENMPI, indirect=True, ids=lambda found: found.name),
]
only_mpich = [
    pytest.mark.skipif(not MPICH, reason="no Python here has mpi4py on MPICH, which speaks PMI2"),
    pytest.mark.parametrize("environment", MPICH, indirect=True, ids=lambda found: found.name),
]


def marked(marks: list[pytest.MarkDecorator]) -> Callable[..., Callable[..., None]]:
    def mark(test: Callable[..., None]) -> Callable[..., None]:
        for one in marks:
            test = one(test)
        return test

    return mark


@pytest.mark.parametrize("name", ["many_nodes_mpirun", "one_node"])
def test_ready_job_scripts(environment: Environment, script: Script, name: str) -> None:
    nodes = 3 if name == "many_nodes_mpirun" else 1
    job_script = str(ROOT / "slurm" / f"{name}.sbatch")
    ended = run_job(f"--nodes={nodes}", job_script, str(script(ANALYSIS)))
    assert ended.status == 0, ended
    assert f"workers {nodes} sum 332833500" in ended.log


@marked(only_mpich)
def test_the_job_script_with_srun(environment: Environment, script: Script) -> None:
    job_script = str(ROOT / "slurm" / "many_nodes_srun.sbatch")
    ended = run_job("--nodes=3", job_script, str(script(ANALYSIS)))
    assert ended.status == 0, ended
    assert RESULT in ended.log


@pytest.mark.parametrize("name", ["walkthrough", "flights"])
@marked(only_openmpi)
def test_the_demo_with_mpirun_of_open_mpi(environment: Environment, name: str) -> None:
    skip_without_demo(environment)
    command = f"exec mpirun -n 5 --bind-to none python -m mpicluster {ROOT}/scripts/{name}.py"
    ended = run_job("--nodes=3", "--ntasks-per-node=2", f"--wrap={command}")
    assert ended.status == 0, ended
    assert f"{name.capitalize()} finished" in ended.log


@pytest.mark.parametrize("name", ["walkthrough", "flights"])
@marked(only_mpich)
def test_the_demo_with_srun_under_mpich(environment: Environment, name: str) -> None:
    skip_without_demo(environment)
    command = f"exec srun -n 5 --mpi=pmi2 python -m mpicluster {ROOT}/scripts/{name}.py"
    ended = run_job("--nodes=3", "--ntasks-per-node=2", f"--wrap={command}")
    assert ended.status == 0, ended
    assert f"{name.capitalize()} finished" in ended.log


def test_inside_salloc(environment: Environment, work: Path, script: Script) -> None:
    """`mpicluster run` on the login node, while the allocation has three others."""
    words = ["salloc", "--nodes=3", "--exclusive", "mpicluster", "run", str(script(ANALYSIS)), "5"]
    ended = Runner(environment, work).run(*words, timeout=200)
    assert ended.status == 5, ended
    assert RESULT in ended.stdout


def test_gpus_are_a_resource(environment: Environment, script: Script) -> None:
    path = script(
        "from mpicluster import Client\n"
        "with Client() as client:\n"
        "    print(client.submit(max, 1, 2, resources={'GPU': 1}).result())\n"
        "    print({w['resources']['GPU'] for w in client.scheduler_info()['workers'].values()})\n"
    )
    ended = run_job("--nodes=2", str(ROOT / "slurm" / "gpus.sbatch"), str(path))
    assert ended.status == 0, ended
    assert "2\n{1.0}" in ended.log


def test_an_array_of_jobs(environment: Environment, script: Script) -> None:
    path = script(
        "import os\nfrom mpicluster import Client\n"
        "with Client() as client:\n"
        "    number = int(os.environ['SLURM_ARRAY_TASK_ID'])\n"
        "    open(f'result-{number}', 'w').write(str(client.submit(pow, number, 2).result()))\n"
    )
    ended = run_job(str(ROOT / "slurm" / "array.sbatch"), str(path))
    assert ended.states == ["COMPLETED"] * 3, ended
    assert [Path(f"result-{n}").read_text() for n in (1, 2, 3)] == ["1", "4", "9"]


def test_the_status_of_the_script_is_the_jobs(environment: Environment, script: Script) -> None:
    job_script = str(ROOT / "slurm" / "many_nodes_mpirun.sbatch")
    ended = run_job("--nodes=2", job_script, str(script(ANALYSIS)), "3")
    assert (ended.states, ended.status) == (["FAILED"], 3), ended


def test_submitted_by_jobqueue(environment: Environment, slurm: Slurm, script: Script) -> None:
    path = script(ANALYSIS)
    job = slurm.submit(str(path), nodes=3, walltime="0:05:00", python=environment.python)
    assert job.wait(200) is JobState.COMPLETED, job.output()
    assert RESULT in job.output()


def test_scancel_ends_all_ranks_and_slots(environment: Environment, script: Script) -> None:
    path = script(ENDLESS)
    job = sbatch("--nodes=3", str(ROOT / "slurm" / "many_nodes_mpirun.sbatch"), str(path), "begun")
    until(Path("begun").exists, "all workers are busy")
    subprocess.run(["scancel", job], check=True)
    ended = wait_for(job)
    assert ended.states == ["CANCELLED"], ended  # and the fixture looks for what is left


def test_the_walltime_ends_all_ranks_and_slots(
    cluster: Path, slurm: Slurm, script: Script, work: Path
) -> None:
    """Jobs of each MPI and one that is warned before, all at once: a walltime is a minute."""
    path = script(ENDLESS)
    code = "trap 'echo warned' USR1; while :; do sleep 0.2; done"
    # A job that does not say how much memory it needs gets all of its nodes.
    warned = slurm.submit_command_line(
        ["bash", "-c", code], walltime="1m", signal_before_s=50, cpus_per_task=1,
        memory_per_node="1GiB",
    )  # fmt: skip
    size = ["--nodes=3", "--cpus-per-task=1", "--mem=1G", "--time=1"]
    jobs = []
    with ExitStack() as stack:
        for found in ENVIRONMENTS:
            stack.enter_context(activated(found, work))
            command = f"exec mpicluster run --slots 1 {path} begun-{found.name}"
            jobs.append(sbatch(*size, f"--wrap={command}"))
        for job in jobs:
            ended = wait_for(job)
            assert ended.states == ["TIMEOUT"], ended
    for found in ENVIRONMENTS:
        assert Path(f"begun-{found.name}").exists(), "The job had not begun before its end."
    assert warned.wait(180) is JobState.FAILED
    assert "time limit" in warned.status.reason
    assert warned.exit_status == 143
    assert warned.output() == "warned\n"
    assert "DUE TO TIME LIMIT" in warned.output("batch")
