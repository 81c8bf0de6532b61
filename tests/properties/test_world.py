"""Does the cluster keep its promises in simulated runs with faults?

See `tests/simulation`. A failure prints the command that shows the run again.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.choices import DrawnChoices, SeededChoices
from tests.simulation.planted import BUGS, Bug, plant
from tests.simulation.world import SimulationError, World

SEEDS = range(1, 201)
#: Seeds that share a test, so that a failure names few.
SEEDS_PER_TEST = 20
#: Each planted bug is found within so many seeds.
PLANTED_SEEDS_MAX = 1500
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("first", SEEDS[::SEEDS_PER_TEST])
def test_seeds(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        try:
            World(SeededChoices(seed)).run()
        except SimulationError as error:
            pytest.fail(f"scripts/simulate.py --seed {seed} --trace\n{error}", pytrace=False)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_choices_of_hypothesis(data: st.DataObject) -> None:
    World(DrawnChoices(data)).run()


def test_one_seed_gives_one_trace_under_any_hash_seed() -> None:
    digests = [trace_of_child(hash_seed) for hash_seed in ("1", "2")]
    assert digests[0] == digests[1]


def trace_of_child(hash_seed: str) -> str:
    """Return what a child process prints about a few seeds."""
    done = subprocess.run(
        [sys.executable, "scripts/simulate.py", "--seed", "11", "--seeds", "4"],
        cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("seed "))


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_planted_bug_is_found(bug: Bug) -> None:
    with plant(bug):
        for seed in range(1, PLANTED_SEEDS_MAX + 1):
            try:
                World(SeededChoices(seed)).run()
            except SimulationError:
                return
    pytest.fail(f"{PLANTED_SEEDS_MAX} seeds do not find: {bug.name}", pytrace=False)
