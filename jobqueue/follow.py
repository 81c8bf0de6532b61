"""What have the jobs printed, and what do they print now?

Copies logs to standard output as they grow. This file must never read a log from its beginning
twice: logs of long jobs are large.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jobqueue.display import say
from jobqueue.errors import JobNotFound
from jobqueue.folder import BATCH_ROLE
from jobqueue.job import Job

#: new lines should appear at once for a human, and a file system should hardly notice
FOLLOW_INTERVAL_S = 0.5
_PIECE_BYTES = 1 << 20


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


def follow(
    jobs: Sequence[Job], role: str, index: int | None, sleep: Callable[[float], None]
) -> None:
    """Print the logs as they grow, until all jobs have ended."""
    tails = _tails(jobs, role, index)
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
        say(
            " ".join(
                f"Job {job.id}: {job.last_status.state.value}. {job.last_status.reason}".split()
            )
        )


def _tails(jobs: Sequence[Job], role: str, index: int | None) -> list[_Tail]:
    tails = []
    for job in jobs:
        job.output(role, index)  # says so when there is no such job or role
        assert job.folder is not None
        indices: list[int | None] = [index]
        if job.array is not None and index is None:
            indices = list(job.array.indices)
        for one in indices:
            title = f"job {job.id}" if one is None else f"job {job.id}, element {one}"
            tails.append(_Tail(title, job.folder.log(role, one)))
    return tails


def _copy(tail: _Tail) -> None:
    while piece := tail.read():
        sys.stdout.write(piece.decode(errors="replace"))
        sys.stdout.flush()


def _tell_if_silent(job: Job, role: str) -> None:
    """Say what the batch system wrote when the job itself has written nothing: why it could not
    start, say.
    """
    if job.folder is None or role == BATCH_ROLE or any(t.read() for t in _tails([job], role, None)):
        return
    try:
        said = job.output(BATCH_ROLE).strip()
    except JobNotFound:
        return
    if said:
        say(f"Job {job.id} has printed nothing; {job.system.title} wrote:\n{said}")
