"""Do real Slurm jobs run mpicluster on all their nodes, and end with the script's status?"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ENVIRONMENTS, Environment, Runner

from jobqueue import JobState, Slurm

pytestmark = [pytest.mark.real_slurm, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
OPENMPI = [found for found in ENVIRONMENTS if found.name == "openmpi"]
MPICH = [found for found in ENVIRONMENTS if found.name == "mpich"]

ANALYSIS = """
import sys
from mpicluster import Client
with Client() as client:
    squares = client.map(lambda x: x * x, range(1000))
    print("workers", len(client.scheduler_info()["workers"]), "sum", sum(client.gather(squares)))
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""
Script = Callable[[str], Path]


@pytest.fixture
def script(work: Path) -> Script:
    def write(text: str) -> Path:
        path = work / "analysis.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture(params=ENVIRONMENTS, ids=lambda found: found.name)
def environment(request: pytest.FixtureRequest, cluster: Path, work: Path) -> Iterator[Environment]:
    """Run with each MPI first in PATH, as after `module load` and `activate`."""
    found: Environment = request.param
    runner = Runner(found, work)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in runner.variables().items():
            patch.setenv(name, value)
        yield found
    runner.assert_nothing_left()


def sbatch(*words: str) -> tuple[int, str]:
    """Submit, wait for the end, and return the job's status and log."""
    done = subprocess.run(
        ["sbatch", "--wait", "--output=job-%j.log", *words],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    number = done.stdout.split()[-1] if done.stdout else ""
    log = Path(f"job-{number}.log")
    return done.returncode, log.read_text() if log.exists() else done.stderr


@pytest.mark.parametrize("name", ["many_nodes_mpirun", "one_node"])
def test_ready_job_scripts(environment: Environment, script: Script, name: str) -> None:
    path = script(ANALYSIS)
    nodes = ["--nodes=3"] if name == "many_nodes_mpirun" else []
    status, log = sbatch(*nodes, str(ROOT / "slurm" / f"{name}.sbatch"), str(path))
    assert status == 0, log
    assert f"workers {3 if nodes else 1} sum 332833500" in log


@pytest.mark.skipif(not MPICH, reason="srun needs an MPI that speaks PMI2: MPICH is not here")
@pytest.mark.parametrize("environment", MPICH, indirect=True, ids=lambda found: found.name)
def test_the_job_script_with_srun(environment: Environment, script: Script) -> None:
    path = script(ANALYSIS)
    words = ["--nodes=3", str(ROOT / "slurm" / "many_nodes_srun.sbatch"), str(path)]
    status, log = sbatch(*words)
    assert status == 0, log
    assert "workers 3 sum 332833500" in log


def test_gpus_are_a_resource(environment: Environment, script: Script) -> None:
    path = script(
        "from mpicluster import Client\n"
        "with Client() as client:\n"
        "    print(client.submit(max, 1, 2, resources={'GPU': 1}).result())\n"
        "    print({w['resources']['GPU'] for w in client.scheduler_info()['workers'].values()})\n"
    )
    status, log = sbatch("--nodes=2", str(ROOT / "slurm" / "gpus.sbatch"), str(path))
    assert status == 0, log
    assert "2\n{1.0}" in log


def test_an_array_of_jobs(environment: Environment, script: Script) -> None:
    path = script(
        "import os\nfrom mpicluster import Client\n"
        "with Client() as client:\n"
        "    number = int(os.environ['SLURM_ARRAY_TASK_ID'])\n"
        "    open(f'result-{number}', 'w').write(str(client.submit(pow, number, 2).result()))\n"
    )
    command = ["sbatch", "--wait", str(ROOT / "slurm" / "array.sbatch"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    logs = "".join(log.read_text() for log in Path().glob("*.log"))
    assert done.returncode == 0, logs
    assert [Path(f"result-{n}").read_text() for n in (1, 2, 3)] == ["1", "4", "9"]


def test_the_status_of_the_script_is_the_jobs(environment: Environment, script: Script) -> None:
    path = script(ANALYSIS)
    words = [str(ROOT / "slurm" / "many_nodes_mpirun.sbatch"), str(path), "3"]
    status, log = sbatch("--nodes=2", *words)
    assert status == 3, log


def test_submitted_by_jobqueue(environment: Environment, slurm: Slurm, script: Script) -> None:
    path = script(ANALYSIS)
    python = environment.python
    job = slurm.submit(str(path), nodes=3, walltime="0:05:00", python=python)
    assert job.wait(100) is JobState.COMPLETED, job.output()
    assert "workers 3 sum 332833500" in job.output()


def test_cancelling_ends_all_ranks_and_slots(environment: Environment, script: Script) -> None:
    path = script(
        "import time\nfrom mpicluster import Client\n"
        "with Client() as client:\n"
        "    futures = client.map(time.sleep, [100] * 10, pure=False)\n"
        "    open('begun', 'w').close()\n"
        "    client.gather(futures)\n"
    )
    words = [str(ROOT / "slurm" / "many_nodes_mpirun.sbatch"), str(path)]
    done = subprocess.run(
        ["sbatch", "--parsable", "--nodes=3", *words], capture_output=True, text=True, check=True
    )
    deadline = time.monotonic() + 60
    while not Path("begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    subprocess.run(["scancel", done.stdout.strip()], check=True)
    Runner(environment, Path()).assert_nothing_left()
    assert os.environ["MPICLUSTER_TEST_MARK"]
