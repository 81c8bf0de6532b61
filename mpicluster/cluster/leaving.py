"""How does a rank leave, in order, broken, or because another rank is gone?

As long as all ranks live, in order is MPI_Finalize, and MPI_Abort ends all of them. Where ranks may
be lost (survive = "ranks") neither holds. MPI_Finalize waits for ever for a rank that is gone: that
of MPICH always, that of Open MPI where ranks are on several hosts. Under Open MPI's ULFM, MPI_Abort
and a status that is not 0 end nothing but their own rank and are not reported to the others; what
is reported is a process that ends by a signal.
"""

import faulthandler
import os
import platform
import signal
import sys
import time
from typing import NoReturn

from mpicluster.config import Config
from mpicluster.errors import LostRankError
from mpicluster.ids import CLIENT_RANK, FIRST_WORKER_RANK, SCHEDULER_RANK
from mpicluster.transport.mpi import MPITransport

#: A launcher ends all ranks when the first one fails, so the others leave rank 0 time to speak.
TIME_TO_SPEAK_S = 2.0
#: A rank that leaves without MPI_Finalize moves its last messages on for this long.
LAST_MESSAGES_S = 0.5
_PAUSE_S = 0.001


def leave_mpi(transport: MPITransport, config: Config, status: int = 1) -> None:
    """Give MPI up at the end of the job; `status` is for an end by force.

    Without MPI_Finalize if a rank is gone. Should another not come along, say where this one waits.
    """
    if transport.rank != CLIENT_RANK:
        # Rank 1 may be gone with a status for which srun ends the ranks that are still leaving; the
        # job's status is to be that one, not that of the signal.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    survives = config.survive == "ranks"
    if survives:
        # Hydra sends it to all when a rank ends; the interpreter's own end would not survive it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    met = not transport.gone and transport.meet(config.stop_timeout_s)
    if not met and not transport.gone:
        place = f"process {os.getpid()} on {platform.node()}"
        say(f"{place}: other ranks have not come to the end; leaving without them.")
        if not survives:
            end_now(status)
    if not met:
        _move_last_messages(transport)
        return
    # mpi4py keeps the interpreter's lock in MPI_Finalize, so no thread of Python could do this.
    faulthandler.dump_traceback_later(config.stop_timeout_s, exit=True)
    try:
        transport.close()
    except Exception as error:  # noqa: BLE001  (all is done; only MPI's own end has failed)
        say(f"rank {transport.rank} on {platform.node()}: MPI did not end in order: {error}")
        end_now(status)
    faulthandler.cancel_dump_traceback_later()


def _move_last_messages(transport: MPITransport) -> None:
    end = time.monotonic() + LAST_MESSAGES_S
    while time.monotonic() < end:
        transport.receive()
        time.sleep(_PAUSE_S)


def end_now(status: int) -> NoReturn:
    """End this process without MPI and without the interpreter's end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def say(text: str) -> None:
    """Print a sentence to the job's log."""
    print(f"mpicluster: {text}", file=sys.stderr, flush=True)


def abort(transport: MPITransport, config: Config, text: str) -> NoReturn:
    """End a broken rank, and with it the job if that cannot go on without it."""
    say(f"rank {transport.rank} on {platform.node()}: {text}")
    is_worker = transport.rank >= FIRST_WORKER_RANK
    if config.survive == "ranks" and (is_worker or transport.tells_losses):
        leave_as_lost()
    transport.abort(1)
    end_now(1)


def leave_as_lost() -> NoReturn:
    """End this rank such that everybody sees that it is gone."""
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


def end_for_loss(transport: MPITransport, error: LostRankError) -> NoReturn:
    """End the job, since rank 0 or rank 1 is gone: the one that is left says so."""
    speaker = CLIENT_RANK if error.rank == SCHEDULER_RANK else SCHEDULER_RANK
    if transport.rank != speaker:
        time.sleep(TIME_TO_SPEAK_S)
    if transport.rank == speaker or speaker in transport.gone or not transport.tells_losses:
        say(f"rank {transport.rank} on {platform.node()}: {error}")
    if not transport.tells_losses:
        transport.abort(1)
    end_now(1)  # Open MPI tells each rank of the loss, so each ends by itself
