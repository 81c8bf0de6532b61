"""What stands between MPICH's launcher and a worker that may be lost?

Hydra ends all ranks of a host as soon as one of its own processes there ends by a signal, whatever
its option -disable-auto-cleanup says, and its status, like that of srun, is that of the signal. So
a worker that may be lost runs as the child of a process that the launcher takes for the rank: it
ends in order when its child does not.
"""

import os
import signal
from dataclasses import dataclass
from types import FrameType

from mpicluster.worker.zygote import die_with_parent


@dataclass(frozen=True, slots=True)
class Supervised:
    """The child's end."""

    pipe: int

    def started(self) -> None:
        """Say that from now on the cluster can go on without this rank."""
        os.write(self.pipe, b"1")


def supervise() -> Supervised:
    """Return in a child of this process; this process waits for it and leaves here."""
    # Hydra tells all processes of its hosts with it that one of them has ended. The zygote and the
    # slots inherit that they are not to care.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        os.close(ours)
        return Supervised(theirs)
    os.close(theirs)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status >= 0:
        os._exit(status)
    if os.read(ours, 1):
        os._exit(0)  # the scheduler notices the loss, and the job's status is the script's
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    os._exit(128 - status)
