"""Where do slots come from?

The zygote is a clean process without MPI and without threads. It imports the packages that tasks
commonly need once per host, then forks a slot in milliseconds whenever its worker asks. It is
started by `spawning.start_zygote` before MPI is initialised, because forking a
process that runs MPI is not safe. It tells the worker how each slot ended, and ends with it. Where
the cluster survives the loss of a worker, it also ends a worker that hangs: the others have given
that up, and the launcher would wait for it for ever.

Requests are single packets on a Unix socket: a pickle of `ForkSlot` with the slot's two sockets as
ancillary data. Answers are pickles too.
"""

import contextlib
import ctypes
import importlib
import os
import pickle
import platform
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mpicluster.worker import slot
from mpicluster.worker.slot import SlotSettings
from mpicluster.worker.task_output import divert_output

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: So long a zygote tries to end what is below it, in seconds.
END_S = 1.0
#: A slot is the first that the kernel takes when memory is short, long before its rank.
OOM_SCORE_ADJ = 800
PACKET_BYTES = 1 << 20
#: How often a zygote looks whether its worker hangs, in seconds.
WATCH_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class ForkSlot:
    """Fork a slot with these settings; its sockets come along."""

    settings: SlotSettings


@dataclass(frozen=True, slots=True)
class SlotEnded:
    """A slot's process has ended: exit status, or minus the signal's number."""

    index: int
    pid: int
    status: int


@dataclass(frozen=True, slots=True)
class WorkerAlive:
    """The worker turns its loop; sent often where the zygote has to watch that."""


class Watch:
    """Notices that a worker hangs, without a clock of its own."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        #: How long nothing has been heard; None before the first sign of life.
        self._silent_s: float | None = None
        self._last_look = 0.0

    def heard(self) -> None:
        """Take note of a sign of life."""
        self._silent_s = 0.0

    def is_over(self, now: float) -> bool:
        """Return whether patience is at an end.

        Time in which this process was stopped itself does not count: so was the worker, perhaps.

        >>> watch = Watch(1.0)
        >>> watch.is_over(100.0), watch.heard(), watch.is_over(101.0), watch.is_over(102.0)
        (False, None, False, True)
        """
        passed_s = min(now - self._last_look, 2 * WATCH_INTERVAL_S)
        self._last_look = now
        if self._silent_s is None:
            return False
        self._silent_s += passed_s
        return self._silent_s > self._patience_s


class Zygote:
    """The process that forks slots."""

    def __init__(self, worker: socket.socket, patience_s: float = 0.0) -> None:
        self.worker = worker
        self._patience_s = patience_s
        self._watch = Watch(patience_s)
        self.children: dict[int, int] = {}
        self._told_to_end = False

    def run(self) -> None:
        """Serve the worker until it is gone, or until told to end; then end all slots."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._tell_to_end)
        worker_fd = self.worker.fileno()
        try:
            while True:
                seconds = WATCH_INTERVAL_S if self._patience_s else None
                ready, _, _ = select.select([worker_fd, wake_read], [], [], seconds)
                if wake_read in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
                    self._reap()
                if self._told_to_end:
                    return
                if worker_fd in ready and not self._serve():
                    return
                if self._patience_s and self._watch.is_over(time.monotonic()):
                    self._end_worker()
                    return
        finally:
            end_descendants()

    def _tell_to_end(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_end = True

    def _serve(self) -> bool:
        try:
            packet, fds, _, _ = socket.recv_fds(self.worker, PACKET_BYTES, 2)
        except ConnectionResetError:  # the worker left with news of a slot unread
            return False
        if not packet:
            return False
        request: ForkSlot | WorkerAlive = pickle.loads(packet)
        if isinstance(request, WorkerAlive):
            self._watch.heard()
            return True
        pid = os.fork()
        if pid == 0:
            self._become_slot(request, fds)
        for fd in fds:
            os.close(fd)
        self.children[pid] = request.settings.index
        return True

    def _end_worker(self) -> None:
        worker = os.getppid()
        print(
            f"mpicluster: the worker in process {worker} on {platform.node()} has done nothing for "
            f"{self._patience_s:.0f} s (lost_after_s) and is ended; the others go on.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os.kill(worker, signal.SIGKILL)

    def _become_slot(self, request: ForkSlot, fds: list[int]) -> None:
        status = 1
        try:
            die_with_parent()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            self.worker.close()
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
            divert_output(request.settings.rank, os.environ)
            renew_random_numbers()
            tasks, control = (socket.socket(fileno=fd) for fd in fds)
            slot.main(request.settings, tasks, control)
            status = 0
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while self.children:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            index = self.children.pop(pid, None)
            if index is not None:
                ended = SlotEnded(index, pid, os.waitstatus_to_exitcode(wait_status))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has just left
                    self.worker.send(pickle.dumps(ended))


def renew_random_numbers() -> None:
    """Let this slot draw other numbers than those that are forked from the same process.

    Python's own module does that by itself (os.register_at_fork), numpy's does not.
    """
    numpys = sys.modules.get("numpy.random")
    if numpys is not None:
        with contextlib.suppress(TypeError):  # a module has put another generator in its place
            numpys.seed()


def end_descendants() -> None:
    """End the slots, and what their tasks have started and left behind.

    A launcher waits for everybody who could still write into the job's output.
    """
    import psutil

    end = time.monotonic() + END_S
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < end:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.002)


def adopt_descendants() -> None:
    """Become the parent of what slots leave behind (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends (prctl(2),
    PR_SET_PDEATHSIG).
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def main(arguments: list[str]) -> None:
    """Import what tasks commonly need, then fork slots."""
    fd, parent, modules = int(arguments[0]), int(arguments[1]), arguments[2]
    patience_s = float(arguments[3])
    sys.argv[:] = ["-c"]  # tasks may look
    # Something that can be caught: there are processes to end then. The socket tells it too, unless
    # a child of the worker has it still open.
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return
    adopt_descendants()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in modules.split(","):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    Zygote(socket.socket(fileno=fd), patience_s).run()

