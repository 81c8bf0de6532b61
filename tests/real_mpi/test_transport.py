"""Does the MPI transport keep the contract, on real ranks?"""

from pathlib import Path

import pytest
from harness import Runner

pytestmark = pytest.mark.real_mpi

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from mpicluster.transport.mpi import connect
from tests.contracts.transport_checks import CHECKS

transport = connect()
for check in CHECKS:
    check(transport)
    transport.communicator.Barrier()
    if transport.rank == 0:
        print(check.__name__, flush=True)
transport.close()
"""


def test_contract(runner: Runner, program) -> None:
    root = Path(__file__).parent.parent.parent
    script = program(PROGRAM)
    ended = runner.raw_mpi(3, runner.environment.python, str(script), str(root), timeout=120)
    assert ended.status == 0, ended
    assert ended.stdout.split() == [
        "order_within_a_pair", "many_both_ways", "large_values", "places_for_buffers",
        "odd_contents", "a_rank_that_is_given_up",
    ], ended  # fmt: skip


WAITING = """
import sys
from threading import Thread
from mpicluster import Client
from mpicluster.cluster.base import current_job

def ask(client, number, found):
    for step in range(30):
        found.append(client.submit(sum, [number, step], pure=False).result(timeout=30))

with Client() as client:
    found = [[] for _ in range(4)]
    threads = [Thread(target=ask, args=(client, number, found[number])) for number in range(4)]
    for thread in threads:
        thread.start()
    ask(client, 9, mine := [])
    for thread in threads:
        thread.join()
    print(mine == [9 + step for step in range(30)])
    print(found == [[number + step for step in range(30)] for number in range(4)])
    print(current_job()._transport.waking.name)
"""


@pytest.mark.parametrize(("setting", "waking"), [("true", "RUNG"), ("false", "PARTLY")])
def test_threads_that_wait_together(runner: Runner, program, setting: str, waking: str) -> None:
    """Where ranks ring, no thread of the script misses what another one has been woken for."""
    words = runner.mpi_words(4, program(WAITING))
    ended = runner.run(*words[:-1], "--set", f"ring={setting}", words[-1], timeout=60)
    assert ended.status == 0, ended
    assert ended.stdout.split() == ["True", "True", waking], ended
