"""What does one task cost in the scheduler's core, in CPU time and in memory?

The same as `mpicluster bench --scale`, for one graph and some numbers of workers:

    python tests/benchmarks/scheduler_core.py --graph tree --workers 2 1000 --tasks 200000
"""

import argparse

from mpicluster.bench import report, scale


def main() -> None:
    """Print one line per graph and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 100, 1000, 10000])
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--graph", nargs="+", default=["map", "merge", "tree"])
    options = parser.parse_args()
    rows = [
        scale.measure(graph, workers, options.tasks, options.slots)
        for graph in options.graph
        for workers in options.workers
    ]
    lines = [list(row.cells().values()) for row in rows]
    print(report.to_text(list(rows[0].cells()), lines))


if __name__ == "__main__":
    main()
