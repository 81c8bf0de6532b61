"""What do MPICH and Slurm's `pmi2` hear of each other while MPI is initialised?"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from mpicluster.transport.pmi import announce_less, shorter_values

MAXES = b"cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024\n"


@dataclass(frozen=True)
class Wire:
    """The two ends of a rank's connection, and the variables that name the rank's end."""

    rank: socket.socket
    slurm: socket.socket
    environment: dict[str, str]

    def answer(self, question: bytes, answer: bytes) -> bytes:
        """Ask as the rank, answer as Slurm does; return what the rank is told."""
        self.rank.sendall(question)
        assert self.slurm.recv(1 << 16) == question
        self.slurm.sendall(answer)
        return self.rank.recv(1 << 16)


@pytest.fixture
def wire() -> Iterator[Wire]:
    rank, slurm = socket.socketpair()
    for end in (rank, slurm):
        end.settimeout(60)
    variables = {"SLURM_MPI_TYPE": "pmi2", "PMI_FD": str(rank.fileno())}
    with rank, slurm:
        yield Wire(rank, slurm, variables)


def test_only_the_announced_length_changes(wire: Wire) -> None:
    with shorter_values(wire.environment, 896):
        maxes = wire.answer(b"cmd=get_maxes\n", MAXES)
        value = b"cmd=get_result rc=0 value=vallen_max=1024\n"
        assert wire.answer(b"cmd=get kvsname=1.0 key=a\n", value) == value
    assert maxes == MAXES.replace(b"1024", b"896")


def children() -> set[int]:
    """Return the child processes of this one; other tests have some too."""
    return {child.pid for child in psutil.Process().children()}


def test_afterwards_they_speak_directly(wire: Wire) -> None:
    """No process stays between them, and the connection is the one that Slurm has opened."""
    inode, before = os.fstat(wire.rank.fileno()).st_ino, children()
    os.set_inheritable(wire.rank.fileno(), True)
    with shorter_values(wire.environment, 896):
        assert os.fstat(wire.rank.fileno()).st_ino != inode
        assert len(children() - before) == 1
    assert children() - before == set()
    assert os.fstat(wire.rank.fileno()).st_ino == inode
    assert os.get_inheritable(wire.rank.fileno())
    assert wire.answer(b"cmd=get_maxes\n", MAXES) == MAXES


def test_the_rank_hears_when_slurm_has_ended(wire: Wire) -> None:
    with shorter_values(wire.environment, 896):
        wire.slurm.shutdown(socket.SHUT_RDWR)
        assert wire.rank.recv(1) == b""


@pytest.mark.parametrize(
    ("variables", "value_max"),
    [
        ({}, 0),
        ({"SLURM_MPI_TYPE": "none"}, 896),
        ({"PMI_FD": ""}, 896),
        ({"PMI_FD": "987654"}, 896),
    ],
    ids=["switched off", "another plugin", "no connection", "a connection that is closed"],
)
def test_nothing_happens_where_it_is_not_needed(
    wire: Wire, variables: dict[str, str], value_max: int
) -> None:
    before = children()
    with shorter_values(wire.environment | variables, value_max):
        assert children() - before == set()
        assert wire.answer(b"cmd=get_maxes\n", MAXES) == MAXES


def test_the_length_is_even_and_never_grows() -> None:
    assert announce_less(MAXES, 897) == MAXES.replace(b"1024", b"896")
    assert announce_less(MAXES, 2000) == MAXES
