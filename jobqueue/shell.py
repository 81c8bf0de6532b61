"""How is a command of the batch system run, and what came out of it?

The only file of the package that starts a process. It never uses a shell to build a command: words
go to the program as they are. Every command has a timeout, since batch systems under load hang, and
a hanging command is killed with all its children.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobqueue.errors import CommandError


@dataclass(frozen=True, slots=True)
class Command:
    """One command line, as a value that tests can compare."""

    words: tuple[str, ...]
    #: this file is the command's standard input; none: it reads nothing
    stdin: Path | None = None
    #: the folder in which it runs; none: the current one
    folder: Path | None = None
    #: variables it must not see, because they would override what the job asks for
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """What a command left: its exit status and its two texts."""

    command: Command
    status: int
    stdout: str = ""
    stderr: str = ""

    @property
    def said(self) -> str:
        """What the command printed, on one line, shortened: for sentences in errors."""
        return one_line(self.stderr) or one_line(self.stdout) or "nothing"


#: Runs a command within a number of seconds. Tests and other transports (ssh) can put their own in
#: place of `run`.
Runner = Callable[[Command, float], Output]


def one_line(text: str, length_max: int = 400) -> str:
    """Return a text as one line without control characters, cut after `length_max` characters."""
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    line = " ".join(words)
    return line if len(line) <= length_max else line[: length_max - 3] + "..."


def run(command: Command, timeout_s: float) -> Output:
    """Run a command to its end and return its output; any exit status is an answer, not an error.

    Raises `CommandError` when the program is missing, cannot be started, or has not ended after
    `timeout_s` seconds; in the last case it was killed together with what it had started.
    """
    program = command.words[0]
    environment = {name: value for name, value in os.environ.items() if name not in command.without}
    try:
        with Path(command.stdin or os.devnull).open("rb") as stdin:
            process = subprocess.Popen(
                command.words,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=command.folder,
                env=environment,
                start_new_session=True,  # so that a wrapper dies with the program it waits for
            )
    except OSError as error:
        raise CommandError(_not_started(program, error), started=False) from error
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except BaseException as error:
        _kill(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise CommandError(
            f"The command {program!r} did not answer within {timeout_s:g} s and was ended. The "
            "batch system is busy or down: try again later, or ask its administrators.",
            started=True,
            printed=(error.stdout or b"").decode(errors="replace"),
        ) from error
    return Output(
        command=command,
        status=process.returncode,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
    )


def _not_started(program: str, error: OSError) -> str:
    """Return the sentence for a command that the system did not start."""
    if error.errno == errno.E2BIG:
        return (
            f"The command {program!r} could not be started: its words are more than this machine "
            "allows. Make the array shorter, or name fewer jobs at once."
        )
    return (
        f"The command {program!r} could not be started: {error.strerror or error}. It belongs to "
        "the batch system, so it is there on a login node of the cluster: run this there, or name "
        "another --system."
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and its children, and leave neither a zombie nor an open pipe."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
