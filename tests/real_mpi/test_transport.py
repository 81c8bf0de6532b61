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
