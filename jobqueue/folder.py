"""What does a job leave on disk, and where?

Each job has a folder of its own: the script (`job.sh`), what is known about it (`job.json`), the
output of the command (`output.log`), what the batch system adds (`batch.log`), the logs of other
roles that the program writes (`<role>.log`), the exit status. This file must never leave a
half-written file behind: it writes beside and renames, which is atomic on local and network file
systems alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobqueue.errors import SubmitError
from jobqueue.states import ExitRecord

SCRIPT = "job.sh"
RECORD = "job.json"
#: what the job itself has called its id
ID = "job-id"
NOT_SUBMITTED = "do-not-run"
#: the role whose log is the output of the job's command
MAIN_ROLE = "output"
#: the role whose log is what the batch system writes itself
BATCH_ROLE = "batch"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folder of one job; it need not exist yet."""

    path: Path

    @classmethod
    def plan(cls, log_folder: Path, name: str) -> JobFolder:
        """Return a folder that no other job has, named so that a listing is in the order of
        submission.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return cls(log_folder / f"{slug(name)}-{stamp}-{secrets.token_hex(2)}")

    def create(self, script: str) -> None:
        """Make the folder with its script; raise `SubmitError` if that is not possible."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()
            self.write(SCRIPT, script.encode())
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.rmdir()  # what could be made of it; nobody would know what it is
            raise SubmitError(
                f"The folder of the job could not be made: {self.path}: {error.strerror or error}. "
                "Name a folder on a file system that login and compute nodes share and that you "
                "can write to, with --log-folder."
            ) from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file so that whoever reads it finds either all of it or the one before."""
        beside = self.path / f"{name}.{os.getpid()}.{secrets.token_hex(2)}.new"
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path / name)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def read_record(self) -> dict[str, Any]:
        """Return what `job.json` says, or nothing if it cannot be read."""
        try:
            record = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def update_record(self, **values: Any) -> None:
        """Add to what `job.json` says."""
        record = {**self.read_record(), **values}
        self.write(RECORD, (json.dumps(record, indent=2) + "\n").encode())

    def forbid_start(self) -> None:
        """Let a job that may have been submitted all the same end before it runs anything."""
        self.write(NOT_SUBMITTED, b"This job was reported as not submitted.\n")

    def told_id(self) -> str:
        """Return the id that the job has told, which has begun to run then; "" if it has not."""
        self._names()
        try:
            return (self.path / ID).read_text().strip()
        except (OSError, ValueError):
            return ""

    def exit_records(self, indices: Iterable[int | None]) -> dict[int | None, ExitRecord]:
        """Return the exit records that exist; `None` is the index of a job without an array."""
        found = {}
        # Listing a folder makes a network file system look for new files; opening a name that was
        # missing does not.
        self._names()
        for index in indices:
            try:
                words = (self.path / f"exit-status{suffix(index)}").read_text().split()
                found[index] = ExitRecord(int(words[0]), words[1] if len(words) > 1 else "")
            except (OSError, ValueError, IndexError):
                continue
        return found

    def roles(self, indices: range | None = None) -> list[str]:
        """Return the roles that have a log, the command's first, then by name; `indices` are those
        of the array.
        """
        names = {name.removesuffix(".log") for name in self._names() if name.endswith(".log")}
        if indices is not None:
            names = {name.rpartition("-")[0] for name in names if _index(name) in indices}
        return sorted(
            names, key=lambda name: (name != MAIN_ROLE, name == BATCH_ROLE, len(name), name)
        )

    def log(self, role: str = MAIN_ROLE, index: int | None = None) -> Path:
        """Return the path of a role's log."""
        return self.path / f"{slug(role)}{suffix(index)}.log"

    def _names(self) -> list[str]:
        try:
            return [entry.name for entry in self.path.iterdir()]
        except OSError:
            return []


def _index(name: str) -> int | None:
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else None


def read_log(path: Path) -> str:
    """Return a log so far; one that is not there yet is empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def suffix(index: int | None) -> str:
    """Return what distinguishes the files of an element of an array."""
    return "" if index is None else f"-{index}"


def slug(text: str) -> str:
    """Return a text that is harmless as a file name and as a job's name on every batch system.

    >>> slug("my $(analysis).py")
    'my-analysis-.py'
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).lstrip("-.0123456789")[:60].rstrip("-.")
    return plain or "job"
