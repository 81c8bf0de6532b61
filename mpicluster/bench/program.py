"""What does the benchmark do in the ranks of a job?

All ranks measure raw MPI, then take their roles as for any script; rank 1 runs the cases.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mpicluster.bench import catalogue, machine, outputs, raw_mpi, report
from mpicluster.bench.backends import FIRST, GRAPHS, SCHEDULER, Backend, ClientBackend
from mpicluster.bench.case import choose
from mpicluster.bench.measuring import Plan, make_plan, measure
from mpicluster.bench.rows import Row
from mpicluster.client.client import Client
from mpicluster.client.collect import as_completed
from mpicluster.cluster import roles
from mpicluster.cluster.job import Job, JobOptions, start
from mpicluster.errors import WorldError
from mpicluster.transport.mpi import library_text

NAME: Final = "mpicluster"
#: With share_memory = false: as on two hosts, values go through MPI.
NAME_SENT: Final = "mpicluster-sent"
#: What slots import before the first task, as they would for a script with these words.
IMPORTS: Final = "numpy pandas dask"


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be measured and where the figures go."""

    level: str = "quick"
    only: Sequence[str] = ()
    repeat: int | None = None
    #: Time for all cases.
    minutes: int | None = None
    json: str | None = None
    markdown: str | None = None
    plot: str | None = None
    #: Workers answer at once, without slots.
    zero_workers: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Return how much is measured."""
        return make_plan(self.level, self.repeat, self.minutes)


def run_in_rank(options: JobOptions, request: Request) -> int:
    """Play this rank's role; rank 1 measures, prints, and returns the exit status."""
    started = time.monotonic()
    about = machine.describe()
    rows = _measure_raw(request)
    job: Job | None
    if request.zero_workers:
        from mpicluster.bench.zero_workers import start_without_slots

        job = start_without_slots(options)
    else:
        job = start(options, [], IMPORTS)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run_cases(job, request, about, rows, started)
    finally:
        signal.signal(signal.SIGTERM, previous)
        if job is not None:
            job.end()


def _terminate(number: int, _frame: Any) -> None:
    """Leave in order when the batch system ends the job."""
    raise SystemExit(128 + number)


def _measure_raw(request: Request) -> list[Row]:
    """Measure raw MPI, unless the ranks make no cluster: the start of the roles will say so."""
    promise = roles.read_promise(os.environ)
    if request.zero_workers or promise is None or promise.size == 1:
        return []
    try:
        roles.check_launcher(os.environ, library_text())
    except WorldError:
        return []
    if promise.rank == 1:
        say("raw MPI ...")
    rows = raw_mpi.measure(request.plan(), request.only)
    for row in rows:
        show(row)
    return rows


def _run_cases(
    job: Job | None, request: Request, about: dict[str, Any], rows: list[Row], started: float
) -> int:
    with Client() as client:
        name = NAME if client.config.share_memory else NAME_SENT
        backend = ClientBackend(name, client, as_completed)
        if request.zero_workers:
            backend.name = f"{NAME}, workers that answer at once"
            backend.exact = False
            backend.abilities = frozenset({GRAPHS, FIRST, SCHEDULER})
        hosts = len({worker["host"] for worker in client.scheduler_info()["workers"].values()})
        about["cluster"] = (
            f"{len(client.nthreads())} workers with {backend.slots} slots on {hosts} "
            f"{'host' if hosts == 1 else 'hosts'}, "
            + (library_text().split(",")[0] if job is not None else "without MPI")
        )
        about["ranks"] = len(client.nthreads()) + 2
        # The short table takes less than a minute in all; who names a time means the cases.
        spent_s = time.monotonic() - started if request.minutes is None else 0.0
        measured = measure_backend(backend, request, spent_s)
    # The ones who are compared come first, then the limit.
    rows = [*measured, *rows]
    write(request, about, rows)
    return 1 if any(row.note.startswith("failed") for row in measured) else 0


def measure_backend(backend: Backend, request: Request, spent_s: float = 0.0) -> list[Row]:
    """Measure the cases of a request on a backend, with a line for each row."""
    cases = choose(catalogue.CASES, request.level, request.only)
    return measure(backend, cases, request.plan(), show, spent_s)


def show(row: Row) -> None:
    """Print a line about a row that has just been measured."""
    size = report.format_size(row.size, row.size_unit)
    figure = f"{report.format_cell(row)} {row.unit}" if row.values else row.note
    say(f"{row.contender}: {row.case}, {size}: {figure}")


def say(text: str) -> None:
    """Print a line for who watches; the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def write(
    request: Request, about: dict[str, Any], rows: Sequence[Row], scale: Sequence[Any] = ()
) -> None:
    """Print the table and write the files that were asked for."""
    print(report.text_report(about, rows, scale), flush=True)
    if request.json:
        report.write_json(Path(request.json), about, rows, scale)
    drawn = False
    if request.plot:
        from mpicluster.bench.plot import draw

        drawn = draw(Path(request.plot), rows, scale)
        if not drawn:
            say(f"There is no {request.plot}: {outputs.UNDRAWN}.")
    if request.markdown:
        picture = ""
        if drawn and request.plot:
            picture = os.path.relpath(request.plot, Path(request.markdown).parent)
        Path(request.markdown).write_text(report.markdown_report(about, rows, scale, picture))
