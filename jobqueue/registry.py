"""Which jobs has this user submitted, and where are their folders?

One symbolic link per job, named after batch system and id, in the user's state folder; the links
lead to the jobs' folders, which hold everything else. A link to a folder that was deleted is
removed. This file must never fail a submission: a home that cannot be written to costs only the
memory of the job.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobqueue.folder import JobFolder

logger = logging.getLogger("jobqueue")


#: System and id; temporary links begin with a dot.
_NAME = re.compile(r"[a-z]+-.+")


@dataclass(frozen=True, slots=True)
class KnownJob:
    """A job that this user has submitted."""

    system: str
    job_id: str
    folder: JobFolder


def registry_folder() -> Path:
    """Return the folder of the links; raise `OSError` for a user who has no home."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    except RuntimeError as error:
        raise OSError(
            errno.ENOENT, "no home folder is known: set HOME or XDG_STATE_HOME"
        ) from error
    return state / "mpicluster" / "jobs"


def remember(system: str, job_id: str, folder: JobFolder) -> None:
    """Note a job's folder under its id; a newer job of the same id replaces an older one."""
    try:
        links = registry_folder()
        links.mkdir(parents=True, exist_ok=True)
        beside = links / f".{secrets.token_hex(4)}"
        beside.symlink_to(folder.path)
        beside.replace(links / f"{system}-{job_id}")
    except OSError as error:
        logger.warning(
            "The folder %s of job %s could not be noted among your jobs (%s): look for the job's "
            "output in that folder.",
            folder.path,
            job_id,
            error,
        )


def known_jobs() -> Iterator[KnownJob]:
    """Yield the jobs whose folders still exist, the oldest first."""
    for _, link in sorted(_aged(_links())):
        known = _follow(link)
        if known is not None:
            yield known


def find(job_id: str, system: str | None = None) -> KnownJob | None:
    """Return the job of this id, the newest if there are several, or None. PBS's ids may be
    shortened: `1234` stands for `1234.server`.
    """
    exact, short = [], []
    for link in _links():
        name, _, its_id = link.name.partition("-")
        if system in (None, name) and its_id.partition(".")[0] == job_id.partition(".")[0]:
            if its_id == job_id:
                exact.append(link)
            elif "." not in job_id:
                short.append(link)
    for links in (exact, short):
        for _, link in sorted(_aged(links), reverse=True):
            known = _follow(link)
            if known is not None:
                return known
    return None


def _links() -> list[Path]:
    """Return the links, whatever they lead to."""
    try:
        return [link for link in registry_folder().iterdir() if _NAME.fullmatch(link.name)]
    except OSError:
        return []


def _aged(links: Iterable[Path]) -> Iterator[tuple[tuple[int, int, str], Path]]:
    """Yield links with what sorts them: by time, and within a tick of the clock by id, as numbers
    grow.
    """
    for link in links:
        # Another process may replace a link while we look.
        with contextlib.suppress(OSError):
            yield (link.lstat().st_mtime_ns, len(link.name), link.name), link


def _follow(link: Path) -> KnownJob | None:
    """Return the job of a link; the link to a folder that was deleted is removed."""
    try:
        path = link.readlink()
        if not path.is_dir():
            if path.parent.is_dir():  # deleted, and not merely a file system that is away
                link.unlink(missing_ok=True)
            return None
    except OSError:
        return None
    system, _, job_id = link.name.partition("-")
    return KnownJob(system, job_id, JobFolder(path))
