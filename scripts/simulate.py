#!/usr/bin/env python3
"""Run the simulator with one seed or many, or see one run again step by step.

scripts/simulate.py --seed 8123
scripts/simulate.py --seed 1 --seeds 1000
scripts/simulate.py --seed 8123 --until-step 412 --trace
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.simulation.choices import SeededChoices
from tests.simulation.world import SimulationError, World


def simulate(seed: int, until_step: int | None, trace: bool) -> bool:
    """Run one seed and print what came of it; return whether all was right."""
    world = World(SeededChoices(seed), keep_trace=trace)
    failure = None
    try:
        world.run(until_step)
    except SimulationError as error:
        failure = error
    if trace:
        print(f"options: {world.options}", *world.history, sep="\n")
    if failure is None:
        print(f"seed {seed}: {world.step_number} steps, trace {world.digest}")
        return True
    print(f"seed {seed} FAILED\n{failure}\nTo see it again:")
    print(f"  scripts/simulate.py --seed {seed} --until-step {world.step_number + 1} --trace")
    return False


def main() -> int:
    """Return 1 if a run went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--until-step", type=int, help="stop there")
    parser.add_argument("--trace", action="store_true", help="print every step")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    options = parser.parse_args()
    begin, failed = time.perf_counter(), 0
    for seed in range(options.seed, options.seed + options.seeds):
        if not simulate(seed, options.until_step, options.trace):
            failed += 1
            if not options.keep_going:
                return 1
    if options.seeds > 1:
        seconds = time.perf_counter() - begin
        print(f"{options.seeds} seeds in {seconds:.1f} s, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
