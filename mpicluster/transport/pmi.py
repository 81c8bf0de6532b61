"""How do ranks of MPICH start when Slurm's PMI announces longer values than it can read?

Slurm's plugin `pmi2` says that values may have 1024 characters (`vallen_max`), but reads a request
as a line of 1024 characters, in which the words around the value must have room too. MPICH cuts
what it has to tell into values of the announced length and fails in MPI_Init when one of them needs
it all. While MPI is initialised, a child process stands between the two and announces less; it
passes on everything else as it is. Afterwards MPICH speaks with Slurm directly, as before.
"""

import os
import re
import select
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NoReturn

_ANNOUNCED = re.compile(rb"(?<=\bvallen_max=)\d+")
_READ_BYTES: Final = 1 << 16


def is_needed(environment: Mapping[str, str]) -> bool:
    """Return whether Slurm's `pmi2` has started this rank.

    >>> is_needed({"SLURM_MPI_TYPE": "pmi2", "PMI_FD": "11"})
    True
    """
    started = environment.get("SLURM_MPI_TYPE") == "pmi2"
    return started and environment.get("PMI_FD", "").isdigit()


@contextmanager
def shorter_values(environment: Mapping[str, str], value_max: int) -> Iterator[None]:
    """Have MPI_Init, called inside, be told that values may have `value_max` characters at most.

    Nothing is changed where Slurm's `pmi2` has not started this rank, or if `value_max` is 0. A
    process and not a thread stands between: mpi4py keeps the interpreter's lock in MPI_Init.
    """
    slurm = _own_end(environment) if value_max and is_needed(environment) else None
    if slurm is None:
        yield
        return
    number = int(environment["PMI_FD"])
    inheritable = os.get_inheritable(number)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.close(number)
        _relay(theirs.detach(), slurm, value_max)
    theirs.close()
    os.dup2(ours.fileno(), number, inheritable)
    ours.close()
    try:
        yield
    finally:
        os.dup2(slurm, number, inheritable)  # the child sees the end of its socket, and leaves
        os.close(slurm)
        os.waitpid(pid, 0)


def _own_end(environment: Mapping[str, str]) -> int | None:
    """Return a descriptor of our own for the socket to Slurm, None if there is no socket."""
    try:
        return os.dup(int(environment["PMI_FD"]))
    except OSError:  # the variable was inherited without it
        return None


def _relay(rank: int, slurm: int, value_max: int) -> NoReturn:
    """Pass on what the two say until one of them ends, and leave."""
    # What ends the rank is for the rank, whose end is seen here.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    try:
        while True:
            readable, _, _ = select.select([rank, slurm], [], [])
            if rank in readable:
                _pass_on(os.read(rank, _READ_BYTES), slurm)
            if slurm in readable:
                _pass_on(announce_less(os.read(slurm, _READ_BYTES), value_max), rank)
    except OSError:
        os._exit(0)
    finally:
        os._exit(1)


def announce_less(answer: bytes, value_max: int) -> bytes:
    """Return an answer of the PMI with no longer values than these.

    Always an even number: MPICH takes its pieces to have (n - 2) // 2 bytes where it cuts them, and
    (n - 1) // 2 where it joins them.

    >>> announce_less(b"cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024", 896)
    b'cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=896'
    """
    if not answer.startswith(b"cmd=maxes "):
        return answer
    return _ANNOUNCED.sub(lambda found: b"%d" % (min(int(found[0]), value_max) // 2 * 2), answer)


def _pass_on(content: bytes, destination: int) -> None:
    if not content:
        raise OSError("The other end is closed.")
    while content:
        content = content[os.write(destination, content) :]
