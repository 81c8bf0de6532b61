"""What if a slot is sent more than its socket holds?"""

import random
import select
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from mpicluster.config import Config
from mpicluster.transport.local import LocalFabric
from mpicluster.transport.waiting import Ladder
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.slots import SlotLink, SlotPool

LARGE = b"x" * 5_000_000


class Pool(SlotPool):
    """A pool whose only slot is a socket of the test."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.link = SlotLink(0, ours, ours, {}, 0)
        self.links = {0: self.link}


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.link.tasks.close()
    pool.theirs.close()


def test_room_is_awaited_until_all_has_been_sent(pool: Pool) -> None:
    fd = pool.link.tasks.fileno()
    pool.send(pool.link, p.SetUp([LARGE]))
    assert pool.flush_all() == [(fd, True)]
    assert pool.flush_all() == []
    reader = p.PacketReader(pool.theirs)
    messages: list[object] = []
    changed: list[tuple[int, bool]] = []
    while not messages:
        messages += reader.read() or []
        changed += pool.flush_all()
    assert messages == [p.SetUp([LARGE])]
    assert changed == [(fd, False)]


def test_a_control_thread_that_does_not_read_holds_up_nobody(pool: Pool) -> None:
    """A slot that sent much itself read nothing meanwhile, and worker and slot both waited."""
    for number in range(2000):
        pool.send_control(pool.link, p.RoomForValue(number, 0))
    assert pool.flush_all() == [(pool.link.control.fileno(), True)]
    reader = p.PacketReader(pool.theirs)
    messages: list[object] = []
    while len(messages) < 2000:
        messages += reader.read() or []
        pool.flush_all()
    assert messages == [p.RoomForValue(number, 0) for number in range(2000)]


def test_packets_are_cut_wherever_what_is_received_ends(pool: Pool) -> None:
    choose = random.Random(7)
    fitting = p.RECEIVE_BYTES - len(p.pack([p.SetUp([bytes(70_000)])])) + 70_000
    sizes = [0, 1, 100, fitting - 1, fitting, fitting + 1, 3_000_000]
    sent = [p.SetUp([choose.randbytes(choose.choice(sizes))]) for _ in range(60)]
    stream = b"".join(p.pack([message]) for message in sent)
    pool.link.tasks.setblocking(True)

    def send(position: int = 0) -> None:
        while position < len(stream):
            length = choose.choice([1, 3, 4, 5, 1000, 100_000, 200_000])
            pool.link.tasks.sendall(stream[position : position + length])
            position += length

    sender = threading.Thread(target=send)
    sender.start()
    reader = p.PacketReader(pool.theirs)
    received: list[object] = []
    while len(received) < len(sent):
        messages = reader.read()
        assert messages is not None
        received += messages + reader.read_all()
    sender.join()
    assert received == sent


def test_memory_of_a_large_packet_is_given_back(pool: Pool) -> None:
    reader = p.PacketReader(pool.theirs)
    pool.link.tasks.setblocking(True)
    packet = p.pack([p.SetUp([b"x" * (100 << 20)])])
    process = psutil.Process()
    before = process.memory_info().rss
    sender = threading.Thread(target=pool.link.tasks.sendall, args=(packet,))
    sender.start()
    messages: list[object] | None = []
    while not messages:
        messages = reader.read()
        assert messages is not None
    sender.join()
    messages.clear()
    assert process.memory_info().rss < before + (50 << 20)


def test_slot_that_ends_meanwhile_is_not_waited_for(pool: Pool) -> None:
    fd = pool.link.tasks.fileno()
    pool.send(pool.link, p.SetUp([LARGE]))
    assert pool.flush_all() == [(fd, True)]
    pool.theirs.close()
    assert pool.flush_all() == [(fd, False)]


def test_room_ends_a_pause_only_while_it_is_awaited(pool: Pool) -> None:
    end = LocalFabric(1).ends[0]
    ladder = Ladder(Config(), end)
    fd = pool.link.tasks.fileno()
    ladder.watch(fd)
    assert ladder.ready() == []
    ladder.await_room(fd, True)
    now = time.monotonic()
    ladder.pause(now, now + 60.0)
    assert ladder.ready() == [fd]
    pool.send(pool.link, p.SetUp([LARGE]))
    assert not select.select([], [fd], [], 0)[1]
    assert ladder.ready() == []
    ladder.await_room(fd, False)
    assert p.PacketReader(pool.theirs).read() == []
    assert ladder.ready() == []
    ladder.close()
    end.close()
