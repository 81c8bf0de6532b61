"""How does a slot wait for its worker?"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpicluster.worker.slot_protocol import PacketReader
from mpicluster.worker.slot_waiting import Waiting


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


Ends = tuple[socket.socket, socket.socket]


def test_what_is_there_ends_the_wait(ends: Ends) -> None:
    slot, worker = ends
    worker.sendall(b"x")
    waiting = Waiting(slot)
    waiting.wait()
    waiting.wait()
    assert slot.recv(10) == b"x"


def test_what_comes_later_ends_the_wait(ends: Ends) -> None:
    slot, worker = ends
    timer = threading.Timer(0.2, worker.sendall, [b"x"])
    timer.start()
    Waiting(slot).wait()
    assert slot.recv(10, socket.MSG_DONTWAIT) == b"x"
    timer.join()


@pytest.mark.parametrize("unread", [b"", b"x"])
def test_the_end_of_the_worker_ends_the_wait(ends: Ends, unread: bytes) -> None:
    slot, worker = ends
    slot.sendall(unread)
    worker.close()
    waiting, reader = Waiting(slot), PacketReader(slot)
    waiting.wait()
    assert reader.read() is None


def test_long_waits_take_no_time_of_a_core_not_even_after_a_short_one(ends: Ends) -> None:
    slot, worker = ends
    waiting = Waiting(slot)
    worker.sendall(b"x")
    waiting.wait()  # ended at once, so that the next one begins without sleeping
    slot.recv(10)
    timer = threading.Timer(1.0, worker.sendall, [b"x"])
    timer.start()
    before = time.thread_time()
    waiting.wait()
    assert time.thread_time() - before < 0.1
    timer.join()


def test_what_the_worker_reads_does_not_wake_the_slot(ends: Ends) -> None:
    """A process that sleeps in recv(2) is woken by that, 100 times here."""
    slot, worker = ends
    for _ in range(100):
        slot.sendall(b"r")
    pid = os.fork()
    if pid == 0:
        try:
            Waiting(slot).wait()
        finally:
            os._exit(0)
    give_up = time.monotonic() + 10
    while status_of(pid, "State") != "S":
        assert time.monotonic() < give_up
        time.sleep(0.01)
    before = int(status_of(pid, "voluntary_ctxt_switches"))
    for _ in range(100):
        worker.recv(1)
        time.sleep(0.001)
    after = int(status_of(pid, "voluntary_ctxt_switches"))
    worker.sendall(b"x")
    os.waitpid(pid, 0)
    assert after - before < 5


def status_of(pid: int, name: str) -> str:
    """Return a field of a process's status, see proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return line.split()[1]
