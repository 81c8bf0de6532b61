"""What does `mpicluster bench` do?

On a login shell or in a job script it starts ranks, as `mpicluster run` does; in the ranks
themselves it measures. `--scale` needs neither.
"""

import argparse
import os
from typing import TYPE_CHECKING, Any

from mpicluster.cli import run
from mpicluster.ids import CLIENT_RANK

if TYPE_CHECKING:
    from mpicluster.bench.program import Request

#: Ranks where no batch system says how many hosts there are: two workers, so that values move.
RANKS_OF_ONE_HOST = 4
MINUTES_HELP = "about how long the cases may take; with less, fewer runs, then fewer cases"


def add_command(commands: Any) -> None:
    """Add `bench` to the commands of `mpicluster`."""
    parser = commands.add_parser(
        "bench", help="measure what tasks and values cost on this cluster",
        description="Start ranks as `mpicluster run` does and measure what tasks and values cost, "
        "beside mpi4py alone. Without options it takes less than a minute.",
    )  # fmt: skip
    group = parser.add_argument_group("what is measured")
    level = group.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "the short table, in less than a minute (the default)"),
        ("all", "every case at every size, five times"),
        ("tiny", argparse.SUPPRESS),
    ):
        level.add_argument(f"--{name}", dest="level", action="store_const", const=name, help=text)
    group.add_argument(
        "--only", default="", metavar="NAMES", help="these cases, with commas between them"
    )
    group.add_argument("--repeat", type=run.positive, help="runs of each case")
    group.add_argument("--minutes", type=run.positive, help=MINUTES_HELP)
    group.add_argument(
        "--scale", action="store_true",
        help="one scheduler against thousands of simulated workers, without MPI",
    )  # fmt: skip
    group.add_argument(
        "--zero-workers", action="store_true",
        help="workers answer at once, without slots: what scheduler, client and MPI cost",
    )  # fmt: skip
    group = parser.add_argument_group("where the figures go, beside the terminal")
    for name, text in (
        ("json", "every run of every case"), ("markdown", "the table"),
        ("plot", "cost against size, as SVG, PNG or PDF; needs matplotlib"),
    ):  # fmt: skip
        group.add_argument(f"--{name}", metavar="FILE", help=text)
    group = run.add_launch_options(parser)
    group.add_argument("--dry-run", action="store_true", help="print the command, start nothing")
    run.add_worker_options(parser)
    parser.set_defaults(run=bench, level="quick")


def bench(arguments: argparse.Namespace) -> int:
    """Measure, or start the ranks that do."""
    from mpicluster.bench.case import choose
    from mpicluster.bench.catalogue import CASES
    from mpicluster.bench.outputs import check_drawn, check_files
    from mpicluster.cluster.allocation import find_allocation
    from mpicluster.cluster.roles import read_promise

    request = _request(arguments)
    cases = choose(CASES, request.level, request.only)
    promise = read_promise(os.environ)
    if arguments.scale:
        from mpicluster.bench.scale import run_grid

        check_files(request)
        return run_grid(request)
    check_drawn(request, cases)
    in_rank = promise is not None and promise.size > 1
    # Of the ranks one writes the files, perhaps on a host where only it finds their folder.
    if promise is None or not in_rank or promise.rank == CLIENT_RANK:
        check_files(request)
    if in_rank:
        from mpicluster.bench.program import run_in_rank

        return run_in_rank(run.job_options(arguments), request)
    if not find_allocation(os.environ).hosts and arguments.ranks is None:
        arguments.ranks = RANKS_OF_ONE_HOST
    return run.start_ranks(arguments, ["bench", *_words(arguments), *run.worker_words(arguments)])


def _request(arguments: argparse.Namespace) -> "Request":
    from mpicluster.bench.program import Request

    return Request(
        level=arguments.level,
        only=[name for name in arguments.only.replace(" ", "").split(",") if name],
        repeat=arguments.repeat,
        minutes=arguments.minutes,
        json=arguments.json,
        markdown=arguments.markdown,
        plot=arguments.plot,
        zero_workers=arguments.zero_workers,
    )


def _words(arguments: argparse.Namespace) -> list[str]:
    """Return the options that the ranks must hear."""
    words = [f"--{arguments.level}"]
    for name in ("only", "repeat", "minutes", "json", "markdown", "plot"):
        value = getattr(arguments, name)
        if value:
            words += [f"--{name}", str(value)]
    return [*words, "--zero-workers"] if arguments.zero_workers else words
