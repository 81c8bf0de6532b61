"""Which jobs has this user submitted, and where are their folders?

One symbolic link per job, named after batch system and id, in the user's state folder; the links
lead to the jobs' folders, which hold everything else. A link to a folder that was deleted is
removed. This file must never fail a submission: a home that cannot be written to costs only the
memory of the job.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobqueue.folder import JobFolder

logger = logging.getLogger("jobqueue")


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job that this user has submitted."""

    system: str
    job_id: str
    folder: JobFolder


def registry_folder() -> Path:
    """Return the folder of the links."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "mpicluster" / "jobs"


def remember(system: str, job_id: str, folder: JobFolder) -> None:
    """Note a job's folder under its id; a newer job of the same id replaces an older one."""
    links = registry_folder()
    beside = links / f".{secrets.token_hex(4)}"
    try:
        links.mkdir(parents=True, exist_ok=True)
        beside.symlink_to(folder.path)
        beside.replace(links / f"{system}-{job_id}")
    except OSError as error:
        logger.warning(
            "The folder %s of job %s could not be noted in %s (%s): name that folder to find the "
            "job's output.",
            folder.path,
            job_id,
            links,
            error.strerror or error,
        )


def known_jobs() -> Iterator[KnownJob]:
    """Yield the jobs whose folders still exist, the oldest first."""
    try:
        links = sorted(registry_folder().iterdir(), key=_age)
    except OSError:
        return
    for link in links:
        system, dash, job_id = link.name.partition("-")
        if not system or not dash:
            continue
        try:
            path = link.readlink()
        except OSError:
            continue
        if path.is_dir():
            yield KnownJob(system, job_id, JobFolder(path))
        elif path.parent.is_dir():  # deleted, and not merely a file system that is away
            link.unlink(missing_ok=True)


def _age(link: Path) -> tuple[int, int, str]:
    """Return what sorts jobs: by time, and within a tick of the clock by id, as numbers grow."""
    return (link.lstat().st_mtime_ns, len(link.name), link.name)


def find(job_id: str, system: str | None = None) -> KnownJob | None:
    """Return the job of this id, or None. PBS's ids may be shortened: `1234` stands for
    `1234.server`.
    """
    newest_first = [known for known in known_jobs() if system in (None, known.system)][::-1]
    exact = [known for known in newest_first if known.job_id == job_id]
    short = [known for known in newest_first if known.job_id.partition(".")[0] == job_id]
    return next(iter(exact + short), None)
