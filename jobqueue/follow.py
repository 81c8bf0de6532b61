"""What have the jobs printed, and what do they print now?

Copies logs to standard output as they grow. This file must never read a log from its beginning
twice: logs of long jobs are large.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jobqueue.display import say
from jobqueue.folder import BATCH_ROLE, MAIN_ROLE
from jobqueue.job import Job

#: new lines should appear at once for a human, and a file system should hardly notice
FOLLOW_INTERVAL_S = 0.5
_PIECE_BYTES = 1 << 20
#: so many of the other logs are named
_ROLES_SHOWN = 8


class _Tail:
    """A log that is read from where it was left."""

    def __init__(self, title: str, path: Path) -> None:
        self.title = title
        self.path = path
        self.position = 0

    def read(self) -> bytes:
        """Return what was added since the last time, at most a piece; nothing while there is no
        file.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.position)
                piece = file.read(_PIECE_BYTES)
        except FileNotFoundError:
            return b""
        self.position += len(piece)
        return piece


def show_logs(jobs: Sequence[Job], role: str, index: int | None) -> None:
    """Print the logs so far, with a title on standard error where there are several."""
    tails = _tails(jobs, role, index)
    for tail in tails:
        if len(tails) > 1:
            say(f"==> {tail.title} <==")
        _copy(tail)
    for job in jobs:
        _tell_if_silent(job, role)
        _tell_of_others(job, role)


def follow(
    jobs: Sequence[Job], role: str, index: int | None, sleep: Callable[[float], None]
) -> None:
    """Print the logs as they grow, until all jobs have ended."""
    tails = _tails(jobs, role, index, to_come=True)
    last: _Tail | None = None
    while True:
        for job in jobs:
            if not job.ended:
                job.system.poller.update()
        # Asked before reading: what is written before the end is read after it.
        ended = all(job.ended for job in jobs)
        for tail in tails:
            if len(tails) > 1 and tail is not last and tail.path.exists():
                if tail.path.stat().st_size == tail.position:
                    continue
                say(f"==> {tail.title} <==")
                last = tail
            _copy(tail)
        if ended:
            break
        sleep(FOLLOW_INTERVAL_S)
    for job in jobs:
        _tell_if_silent(job, role)
        _tell_of_others(job, role)
        if job.folder is not None and not job.folder.path.is_dir():
            say(f"Job {job.id}: its folder {job.folder.path} is gone, so some output is missing.")
        say(
            " ".join(
                f"Job {job.id}: {job.last_status.state.value}. {job.last_status.reason}".split()
            )
        )


def _tails(
    jobs: Sequence[Job], role: str, index: int | None, *, to_come: bool = False
) -> list[_Tail]:
    return [
        _Tail(f"job {job.id}" if element is None else f"job {job.id}, element {element}", path)
        for job in jobs
        for element, path in job.logs(role, index, to_come=to_come and not job.ended).items()
    ]


def _copy(tail: _Tail) -> None:
    """Copy bytes: what a job printed need not be text."""
    sys.stdout.flush()
    while piece := tail.read():
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _tell_if_silent(job: Job, role: str) -> None:
    """Say what the batch system wrote when the job itself has written nothing: why it could not
    start, say.
    """
    if role == BATCH_ROLE or any(tail.read() for tail in _tails([job], role, None)):
        return
    said = job.output(BATCH_ROLE).strip()
    if said:
        say(f"Job {job.id} has printed nothing; {job.system.title} wrote:\n{said}")


def _tell_of_others(job: Job, role: str) -> None:
    """Say where more was printed, by tasks on workers say."""
    if role != MAIN_ROLE or job.folder is None:
        return
    others = [one for one in job.roles() if one not in (MAIN_ROLE, BATCH_ROLE)]
    printed = [one for one in others if any(log.stat().st_size for log in job.logs(one).values())]
    if printed:
        many = f" and {len(printed) - _ROLES_SHOWN} more" if len(printed) > _ROLES_SHOWN else ""
        say(
            f"Job {job.id} has printed more, which --role shows: "
            f"{', '.join(printed[:_ROLES_SHOWN])}{many}."
        )
