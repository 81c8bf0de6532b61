"""What do people see of their jobs in a terminal?

Tables and a progress line, by rich where there is a terminal and as plain text where there is none.
This file must never ask the batch system for anything; it shows what is known.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from jobqueue.job import Job
from jobqueue.states import JobState

_COLOURS = {
    JobState.RUNNING: "cyan",
    JobState.COMPLETED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "magenta",
    JobState.UNKNOWN: "yellow",
}
_TITLES = ("job", "system", "name", "state", "exit", "remark")
#: wide enough for sentences, where no terminal says how wide it is
_PLAIN_WIDTH = 200


def show_table(jobs: Sequence[Job]) -> None:
    """Print one line per job on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False)
    # Where a line is too narrow, names give way first; what one types again stays whole.
    whole = {
        "job": max(len(job.id) for job in jobs),
        "system": max(len("system"), *(len(job.system.name) for job in jobs)),
        "state": max(len(job.last_status.state.value) for job in jobs),
        "exit": len("exit"),
    }
    left = console.width - sum(whole.values()) - len(_TITLES) + 1
    longest = max(len(job.name) for job in jobs)
    name_width = max(len("name"), min(longest, left // 2))
    for title in _TITLES:
        if title in whole:
            table.add_column(title, min_width=max(whole[title], len(title)), no_wrap=True)
        elif title == "name":
            table.add_column(title, width=name_width, no_wrap=True, overflow="ellipsis")
        else:
            table.add_column(title, overflow="fold")
    for job in jobs:
        status = job.last_status
        # Texts, not markup: a job may be called "[red]".
        table.add_row(
            Text(job.id),
            Text(job.system.name),
            Text(job.name),
            Text(status.state.value, style=_COLOURS.get(status.state, "")),
            Text("" if status.exit_status is None else str(status.exit_status)),
            Text(_remark(job)),
        )
    console.print(table)


def show_json(jobs: Sequence[Job]) -> None:
    """Print the jobs as a JSON list on standard output, for scripts."""
    rows: list[dict[str, Any]] = []
    for job in jobs:
        status = job.last_status
        rows.append(
            {
                "id": job.id,
                "system": job.system.name,
                "name": job.name,
                "state": status.state.value,
                "native_state": status.native,
                "exit_status": status.exit_status,
                "reason": status.reason,
                "hosts": status.hosts,
                "folder": None if job.folder is None else str(job.folder.path),
            }
        )
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")


def _remark(job: Job) -> str:
    status = job.last_status
    if status.state is JobState.RUNNING and status.hosts:
        return f"on {status.hosts}"
    return status.reason


def say(text: str) -> None:
    """Print a line on standard error, where everything goes that is not the answer."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class ProgressLine:
    """A line on standard error that says how the jobs are, while the caller waits.

    Without a terminal each change of state is a line of its own.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self._began = time.monotonic()
        self._told: dict[str, JobState] = {}
        self._status: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        self.update()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def update(self) -> None:
        """Show how the jobs are now."""
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(self._line()))
            return
        for job in self.jobs:
            status = job.last_status
            if self._told.get(job.id) is not status.state:
                self._told[job.id] = status.state
                say(" ".join(f"job {job.id}: {status.state.value}. {_remark(job)}".split()))

    def _line(self) -> str:
        counts = Counter(job.last_status.state.value for job in self.jobs)
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        waiting = [job for job in self.jobs if not job.ended]
        seconds = int(time.monotonic() - self._began)
        subject = f"job {waiting[0].id}" if len(waiting) == 1 else f"{len(waiting)} jobs"
        remark = _remark(waiting[0]) if waiting else ""
        silent = next(
            (job.system.poller.failure for job in waiting if job.system.poller.failure), None
        )
        return f"{subject}: {states} ({seconds} s) {silent or remark}"
