"""Who waits for the launcher of a job, and with which status does the job end?

Launchers end a job that is interrupted with a status of their own, and what the ranks still print
is lost. So a process waits between the shell and the launcher: it passes signals on, says what has
ended the job, and leaves with the status that shells expect of a signal (128 and its number;
bash(1), EXIT STATUS).
"""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

#: Tells the script's rank that it need not speak of an interrupt, since this process does.
SPEAKS: Final = "_MPICLUSTER_RUN_SPEAKS"
_ENDING: Final = {
    signal.SIGINT: "interrupted by Ctrl-C or SIGINT",
    signal.SIGTERM: "told to end by SIGTERM: it was cancelled, or its time limit has come",
    signal.SIGHUP: "told to end by SIGHUP: its terminal is gone",
}
_PASSED_ON: Final = {*_ENDING, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
#: `si_code` of a signal from the terminal, which the launcher has got as well (sigaction(2)).
_SI_KERNEL: Final = 0x80
_PR_SET_PDEATHSIG: Final = 1


def run_launcher(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a launcher to its end; return its status, or that of the signal that ended the job."""
    sys.stdout.flush()
    sys.stderr.flush()
    # One that the caller ignores, as nohup does with SIGHUP, stays ignored.
    passed_on = {n for n in _PASSED_ON if signal.getsignal(n) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        _become_launcher(command, environment, before)
    ended_by: signal.Signals | None = None
    while True:
        found = signal.sigwaitinfo({*passed_on, signal.SIGCHLD})
        number = signal.Signals(found.si_signo)
        if number is not signal.SIGCHLD:
            if number in _ENDING:
                ended_by = ended_by or number
            if found.si_code != _SI_KERNEL:
                os.kill(pid, number)
            continue
        done, wait_status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = os.waitstatus_to_exitcode(wait_status)
    # Whatever the launcher says: Hydra may say 0 when its own processes got the signal as well.
    if ended_by is not None:
        print(f"mpicluster: the job was {_ENDING[ended_by]}.", file=sys.stderr, flush=True)
        return 128 + ended_by
    return status if status >= 0 else 128 - status


def _become_launcher(
    command: Sequence[str], environment: Mapping[str, str], mask: set[int | signal.Signals]
) -> NoReturn:
    """Be the launcher, which ends when the process that waits for it is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler does not survive execve
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execve(command[0], list(command), {**environment, SPEAKS: "1"})
    except OSError as error:
        print(f"mpicluster: {command[0]} cannot be started: {error}", file=sys.stderr, flush=True)
        os._exit(127)
