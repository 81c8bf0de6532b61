"""How does a rank report although MPI may never answer, or end its process?

The process that the launcher has started stays outside of MPI. It forks one that plays the rank
and tells through a pipe how far it has come; when that one is late or gone, the first still has
what it was told, and ends in order with the status that it wants.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import FrameType
from typing import Final, NoReturn

from mpicluster.doctor.findings import Finding
from mpicluster.doctor.silence import Stage, ending
from mpicluster.transport.shared_files import remove_shared_files
from mpicluster.worker.zygote import die_with_parent

#: A process that has closed its pipe is about to end; an MPI library may do something first.
END_S: Final = 5.0
_NAP_S: Final = 0.01


@dataclass(slots=True)
class Heard:
    """What the process in MPI has told."""

    stage: Stage = Stage.LOOK
    findings: list[Finding] = field(default_factory=list)
    #: The findings are all that there will be.
    complete: bool = False
    #: What it said went wrong, or how it ended; "" if it ended in order.
    trouble: str = ""
    #: It was still there when the time was over.
    late: bool = False


class Reporter:
    """The pipe's end in the process that plays the rank."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def reach(self, stage: Stage) -> None:
        """Tell how far this rank has come."""
        self._connection.send(stage)

    def report(self, findings: list[Finding], *, complete: bool) -> None:
        """Tell what was found until now, or at all."""
        self._connection.send((findings, complete))

    def fail(self, sentence: str) -> None:
        """Tell what went wrong."""
        self._connection.send(sentence)


def supervise(work: Callable[[Reporter], None], deadline: float) -> Heard:
    """Have a child process do the work until `deadline` (of time.monotonic); return its words."""
    ours, theirs = Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _work(work, Reporter(theirs))
    theirs.close()
    heard, ended = Heard(), False
    with leaving_in_order():
        try:
            ended = _listen(ours, heard, deadline) and _await_end(pid, heard)
            heard.late = not ended
        finally:
            if not ended:
                _end(pid)
            ours.close()
    return heard


@contextmanager
def leaving_in_order() -> Iterator[None]:
    """Have SIGTERM end this process by an exception, so that what it started is ended too."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _work(work: Callable[[Reporter], None], reporter: Reporter) -> NoReturn:
    """Do the work in the child, and leave it the way that MPI libraries want (an exit handler)."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    try:
        work(reporter)
    except Exception as error:  # noqa: BLE001  (whatever it is, the report must name it)
        traceback.print_exc()
        reporter.fail(f"{type(error).__name__}: {error}")
        remove_shared_files()  # MPI_Finalize, which would do it, may be out of reach
        raise SystemExit(1) from None
    raise SystemExit(0)


def _listen(connection: Connection, heard: Heard, deadline: float) -> bool:
    """Take what the child tells; return whether it closed the pipe in time."""
    while (left := deadline - time.monotonic()) > 0:
        if not connection.poll(left):
            break
        try:
            message = connection.recv()
        except EOFError:
            return True
        if isinstance(message, Stage):
            heard.stage = message
        elif isinstance(message, str):
            heard.trouble = message
        else:
            heard.findings, heard.complete = message
    return False


def _await_end(pid: int, heard: Heard) -> bool:
    """Wait for a child that has closed its pipe; return whether it is gone."""
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        done, wait_status = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(wait_status)
            if status and not heard.trouble:
                heard.trouble = ending(status)
            return True
        time.sleep(_NAP_S)
    return False


def _end(pid: int) -> None:
    """End a child that does not end by itself, with the files of its MPI library."""
    with suppress(OSError):  # it may end at this moment
        remove_shared_files(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
