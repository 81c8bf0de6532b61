"""Who is measured, one after the other, and how is each started?

    python -m mpicluster.bench.contenders [options]

is what `scripts/bench` runs. Each contender is a job of its own with the same number of worker
processes; nothing else of this program runs meanwhile. All must be installed beside this Python.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from mpicluster.bench import machine, report, scale
from mpicluster.bench.catalogue import LAUNCH
from mpicluster.bench.launching import RANKS, measure_launches
from mpicluster.bench.outputs import check_files
from mpicluster.bench.program import NAME, NAME_SENT, Request, say, write
from mpicluster.bench.rows import Row
from mpicluster.bench.watching import Watcher, run_and_watch
from mpicluster.cli.bench import MINUTES_HELP
from mpicluster.cli.run import positive
from mpicluster.cluster.allocation import find_allocation
from mpicluster.cluster.launch import Launch, build_command, find_launcher, find_library
from mpicluster.errors import MpiclusterError
from mpicluster.ids import FIRST_WORKER_RANK

#: A contender that has not ended after this time is ended; what it measured until then is lost.
CONTENDER_S_MAX: Final = {"tiny": 300.0, "quick": 600.0, "all": 5400.0}


@dataclass(frozen=True, slots=True)
class Contender:
    """A system, what must be installed for it, and how its ranks are laid out."""

    name: str
    #: The module that must be there; "" for what this package brings itself.
    module: str
    #: Ranks that are no worker; None if it is started without MPI.
    other_ranks: int | None
    #: The cases in which it differs from the one before; none: all.
    cases: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether it is this package, with some settings."""
        return not self.module


#: The others begin as their makers' launchers do.
STARTED_AS_JOBS: Final = (NAME, "dask-mpi")
CONTENDERS: Final = (
    Contender(NAME, "", FIRST_WORKER_RANK),
    Contender(
        NAME_SENT, "", FIRST_WORKER_RANK, ("fetch", "scatter", "gather", "broadcast"),
        ("--set", "share_memory=false"),
    ),
    Contender("dask-mpi", "dask_mpi", FIRST_WORKER_RANK),
    Contender("mpi4py.futures", "mpi4py", 1),
    Contender("ray", "ray", None),
    Contender("parsl", "parsl", None),
)


def launcher_words(ranks: int) -> list[str]:
    """Return the words that start so many ranks of a program on this machine or allocation."""
    library, allocation = find_library(), find_allocation(os.environ)
    launcher = find_launcher(library, "auto", allocation)
    return build_command(
        Launch(library, launcher, allocation, ranks, 1, [], as_root=os.geteuid() == 0)
    )


def command_of(contender: Contender, workers: int, options: Sequence[str]) -> list[str]:
    """Return the command that runs a contender with so many workers."""
    python = sys.executable
    if contender.is_ours:
        ranks = str(workers + FIRST_WORKER_RANK)
        return [python, "-m", "mpicluster", "bench", "-n", ranks, *options, *contender.options]
    program = ["-m", "mpicluster.bench.peers", contender.name, "--slots", str(workers), *options]
    if contender.other_ranks is None:
        return [python, *program]
    if contender.name == "mpi4py.futures":
        program = ["-m", "mpi4py.futures", *program]
    return [*launcher_words(workers + contender.other_ranks), python, *program]


def options_of(contender: Contender, request: Request, part: Path) -> list[str]:
    """Return the options that tell a contender what to measure."""
    options = ["--json", str(part)]
    options += [f"--{request.level}"] if contender.is_ours else ["--level", request.level]
    if request.only:
        options += ["--only", ",".join(request.only)]
    if request.repeat:
        options += ["--repeat", str(request.repeat)]
    if request.minutes:
        options += ["--minutes", str(request.minutes)]
    return options


def choose_contenders(names: Sequence[str], only: Sequence[str]) -> dict[Contender, list[str]]:
    """Return who takes part, each with the cases to name to it: none for all of them.

    >>> both = ["mpicluster", "mpicluster-sent"]
    >>> [cases for cases in choose_contenders(both, ["map", "fetch"]).values()]
    [['map', 'fetch'], ['fetch']]
    >>> [cases for cases in choose_contenders(both, ["map"]).values()]
    [['map']]
    """
    inside = [name for name in only if name != LAUNCH]
    chosen: dict[Contender, list[str]] = {}
    for contender in CONTENDERS:
        able = [case for case in inside if case in contender.cases] if contender.cases else inside
        if contender.name in names and (able or not only):
            chosen[contender] = able or list(contender.cases)
    return chosen


def run(request: Request, names: Sequence[str], workers: int) -> int:
    """Measure all contenders that are installed and write the table."""
    about = machine.describe()
    about["absent"] = {}
    chosen = choose_contenders(names, request.only)
    rows: list[Row] = []
    status = 0
    made = tempfile.TemporaryDirectory(prefix="mpicluster-bench-")
    with made as folder, _watcher(len(chosen)) as watcher:
        for contender, cases in chosen.items():
            if not contender.is_ours and find_spec(contender.module) is None:
                about["absent"][contender.name] = "not installed"
                continue
            part = Path(folder) / f"{contender.name}.json"
            options = options_of(contender, replace(request, only=cases), part)
            command = command_of(contender, workers, options)
            watcher.begin(contender.name)
            limit_s = max(CONTENDER_S_MAX[request.level], 120.0 * (request.minutes or 0))
            trouble = run_and_watch(command, limit_s, watcher, folder)
            if part.is_file():
                part_about, part_rows = report.read_rows(part)
                # Each of ours begins with MPI alone: what the first has measured is enough.
                known = {(row.contender, row.case, row.size) for row in rows}
                rows += [r for r in part_rows if (r.contender, r.case, r.size) not in known]
                about.setdefault("cluster", part_about.get("cluster", ""))
            if trouble:
                about["absent"][contender.name] = trouble
                status = 1 if contender.is_ours else status
        if (request.level != "quick" and not request.only) or LAUNCH in request.only:
            ranks = RANKS[request.level]
            for name in STARTED_AS_JOBS:
                if name in names and name not in about["absent"]:
                    rows += measure_launches(name, ranks, watcher, folder)
    points: list[Any] = []
    if not request.only and NAME in names:
        points = [_point(*point) for point in scale.GRIDS[request.level]]
    write(request, about, _raw_last(rows), points)
    return status


def _point(graph: str, workers: int, tasks: int) -> scale.ScaleRow:
    say(f"scheduler alone: {graph}, {workers} workers, {tasks} tasks ...")
    return scale.measure(graph, workers, tasks)


def _raw_last(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the physical limit behind those who are compared with it."""
    return sorted(rows, key=lambda row: row.contender.startswith("raw"))


@contextmanager
def _watcher(contenders: int) -> Iterator[Watcher]:
    watcher = Watcher(contenders)
    try:
        yield watcher
    finally:
        watcher.close()


def _terminate(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main(words: Sequence[str] | None = None) -> int:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure mpicluster, mpi4py alone and the other systems that are installed, "
        "one after the other.",
    )
    level = parser.add_mutually_exclusive_group()
    for name in ("tiny", "quick", "all"):
        text = argparse.SUPPRESS if name == "tiny" else f"the {name} cases and sizes"
        level.add_argument(f"--{name}", dest="level", action="store_const", const=name, help=text)
    parser.set_defaults(level="all")
    parser.add_argument("--only", default="", help="cases, with commas between them")
    parser.add_argument("--repeat", type=positive, help="runs of each case")
    parser.add_argument("--minutes", type=positive, help=f"for each of them, {MINUTES_HELP}")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of each")
    names = ",".join(contender.name for contender in CONTENDERS)
    parser.add_argument("--contenders", default=names, help=f"who takes part ({names})")
    parser.add_argument("--json", default="docs/performance/results.json")
    parser.add_argument("--markdown", default="docs/performance/results.md")
    parser.add_argument("--plot", default="docs/performance/results.svg")
    arguments = parser.parse_args(words)
    request = Request(
        arguments.level, [name for name in arguments.only.split(",") if name], arguments.repeat,
        arguments.minutes, arguments.json, arguments.markdown, arguments.plot,
    )  # fmt: skip
    check_files(request)
    chosen = arguments.contenders.split(",")
    unknown = [name for name in chosen if name not in names.split(",")]
    if unknown or not (choose_contenders(chosen, request.only) or LAUNCH in request.only):
        raise MpiclusterError(
            f"Nobody is left to measure with --contenders {arguments.contenders} and --only "
            f"{arguments.only or 'nothing'}. Known contenders are {names}, of which "
            f"{NAME_SENT} has only the cases {', '.join(CONTENDERS[1].cases)}."
        )
    signal.signal(signal.SIGTERM, _terminate)  # what was started must end with this program
    started = time.monotonic()
    status = run(request, chosen, arguments.workers)
    say(f"measured in {time.monotonic() - started:.0f} s")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MpiclusterError as error:
        sys.exit(f"bench: {error}")
    except subprocess.SubprocessError as error:
        sys.exit(f"bench: a contender could not be started: {error}")
