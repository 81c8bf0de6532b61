"""Does what a worker needs of its host work, when it is really tried?

Uses the worker's own arena, zygote and slots, and ends all of them again.
"""

import os
import pickle
import select
import time
from typing import Final

from mpicluster.config import Config
from mpicluster.doctor.facts import SlotFacts
from mpicluster.ids import Rank
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.arena_file import open_arena_file
from mpicluster.worker.segments import Arena
from mpicluster.worker.slot import SlotSettings
from mpicluster.worker.slots import SlotPool, describe_end
from mpicluster.worker.spawning import PRELOAD, start_zygote

#: A slot comes in a second; a file system that is slow to give Python its modules needs more.
SLOT_TIMEOUT_S: Final = 30.0
#: Written into shared memory: several pages, so that addresses beyond the first are used.
_ARENA_TRIAL_BYTES: Final = 1 << 20


def try_arena(memory_limit: int, huge_pages: bool) -> tuple[str, str]:
    """Reserve the arena of a worker and write into it.

    Return what went wrong, and why values cannot lie in huge pages; "" for nothing.
    """
    try:
        fd, small_pages = open_arena_file(huge_pages)
        return _try_arena(memory_limit, fd), small_pages
    except OSError as error:
        return f"{type(error).__name__}: {error}", ""


def _try_arena(memory_limit: int, fd: int) -> str:
    try:
        arena = Arena(memory_limit, 0, fd)
    except (OSError, ValueError, OverflowError) as error:
        os.close(fd)
        return f"{type(error).__name__}: {error}"
    try:
        segment = arena.allocate(_ARENA_TRIAL_BYTES)
        view = segment.view()
        view[:] = b"\1" * len(view)
        view.release()
        segment.let_go()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        arena.close()
    return ""


ZYGOTE_ENDED = "the zygote that forks it has ended"


def try_slot(rank: Rank, config: Config) -> SlotFacts:
    """Start one slot, have it run a function, and end it."""
    started = time.monotonic()
    board_fd = os.memfd_create("mpicluster-board", os.MFD_CLOEXEC)
    os.truncate(board_fd, p.BOARD_SLOTS * p.TICKET.size)
    try:
        zygote = start_zygote(config.threads_per_slot, modules=PRELOAD[:1])
    except OSError as failure:
        os.close(board_fd)
        return SlotFacts(error=f"{type(failure).__name__}: {failure}")
    # The board stands in for the arena, which has a trial of its own: one cause, one finding.
    path = f"/proc/{os.getpid()}/fd/{board_fd}"
    settings = SlotSettings(
        index=0, rank=rank, host="", arena_path=path, board_path=path, client=0,
        config=config,
    )  # fmt: skip
    pool = SlotPool(zygote, settings, board_fd)
    try:
        pool.start(0)
        error = _await_answer(pool, started + SLOT_TIMEOUT_S)
    except (BrokenPipeError, ConnectionResetError):
        error = ZYGOTE_ENDED  # before it had our request
    except OSError as failure:
        error = f"{type(failure).__name__}: {failure}"
    finally:
        pool.close()
        os.close(board_fd)
    return SlotFacts(time.monotonic() - started, error)


def _await_answer(pool: SlotPool, deadline: float) -> str:
    """Have the slot run a function; return why no answer came, "" if one came."""
    link = pool.links[0]
    zygote = pool.zygote.socket
    pool.send_control(link, p.RunNow(0, pickle.dumps((os.getpid, (), {}))))
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([zygote, link.control], [], [], left)
        if link.control in ready:
            messages = pool.read(link.control.fileno())[1]
            if any(isinstance(message, p.RanNow) for message in messages or ()):
                return ""
        if zygote in ready:
            ended = pool.ended()
            if ended is None:
                return ZYGOTE_ENDED
            if ended:
                return describe_end(ended[0].status)
    return f"it has not answered within {SLOT_TIMEOUT_S:.0f} s"
