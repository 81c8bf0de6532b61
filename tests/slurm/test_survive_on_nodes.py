"""With `--survive ranks` in a job of several nodes: what follows when a worker is killed?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_harness import MPICH, Script, activated
from harness import ENVIRONMENTS, Environment
from slurm_harness import run_job

pytestmark = [pytest.mark.real_slurm, pytest.mark.slow]

#: Small, so that the silence of a rank is noticed within a test.
SETTINGS = "--slots 1 --survive ranks --set lost_after_s=4 --set status_interval_s=0.3"

#: The worker that runs `end_worker` is killed as a lack of memory would: the slot's parent is the
#: zygote, and the zygote's the worker.
SCRIPT = """
import os, platform, signal, sys, time
from mpicluster import Client

def end_worker():
    fields = open(f"/proc/{os.getppid()}/stat").read().rpartition(") ")[2].split()
    os.kill(int(fields[1]), signal.SIGKILL)
    time.sleep(60)

def square(number):
    time.sleep(0.01)
    return number * number

with Client() as client:
    futures = client.map(square, range(600))
    futures[100].result()
    doomed = client.submit(end_worker, workers=[3], priority=10)
    print("right", client.gather(futures) == [number * number for number in range(600)])
    print("doomed", type(doomed.exception()).__name__)
    print("left", sorted(client.scheduler_info()["workers"]))
    print("again", sum(client.gather(client.map(square, range(100), pure=False))))
sys.exit(int(sys.argv[1]))
"""

RUN = f"mpicluster run {SETTINGS}"
RUN_SRUN = f"mpicluster run --launcher srun {SETTINGS}"
SRUN = f"srun -n 5 --mpi=pmi2 --kill-on-bad-exit=0 python -m mpicluster {SETTINGS}"
WAYS = [pytest.param(found, RUN, id=f"{found.name}-mpirun") for found in ENVIRONMENTS]
WAYS += [pytest.param(found, RUN_SRUN, id=f"{found.name}-run-srun") for found in MPICH]
WAYS += [pytest.param(found, SRUN, id=f"{found.name}-srun") for found in MPICH]


@pytest.fixture
def command(request: pytest.FixtureRequest, cluster: Path, work: Path) -> Iterator[str]:
    """Run with an MPI first in PATH, after which nothing may be left; return the command."""
    with activated(request.getfixturevalue("found"), work):
        yield request.getfixturevalue("words")


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize(("found", "words"), WAYS)
def test_a_worker_is_killed(
    command: str, script: Script, found: Environment, words: str, status: int
) -> None:
    words = f"exec {command} {script(SCRIPT)} {status}"
    ended = run_job("--nodes=3", "--ntasks-per-node=2", f"--wrap={words}")
    for line in ("right True", "doomed NoValidWorkerError", "left [2, 4]", "again 328350"):
        assert f"{line}\n" in ended.log, ended
    assert ended.log.count("worker rank 3 on ") == 1, ended
    assert (ended.states, ended.status) == (["FAILED" if status else "COMPLETED"], status), ended
