"""What must every transport do? Each check runs on all ranks of a world of three at once.

A check gets this rank's end, drives it until it has seen what it needs, and asserts. The same
checks run on threads of one process and on real ranks: see the two test files beside this one.
"""

import time
from collections.abc import Callable

from mpicluster.ids import Rank
from mpicluster.messages import (
    AskScheduler,
    FreeKeys,
    LargeValueSent,
    Message,
    PutLargeValue,
    SubmitTasks,
    ValuesSent,
)
from mpicluster.transport.base import LargeMessage, Transport
from mpicluster.transport.mpi import MPITransport

RANKS = 3
TIMEOUT_S = 60.0


class Collected:
    """Receives on one end until something is true."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.messages: list[tuple[Rank, Message]] = []
        #: How often a look did not show that nothing is left.
        self.looks_with_rest = 0

    def until(self, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + TIMEOUT_S
        while not done():
            for source, messages in self.transport.receive():
                self.messages += [(source, message) for message in messages]
            self.looks_with_rest += not self.transport.drained
            assert time.monotonic() < give_up, f"still waiting; have {len(self.messages)} messages"
            time.sleep(0)

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for _, message in self.messages if isinstance(message, kind)]

    def all_left(self) -> None:
        self.until(lambda: not self.transport.sending())


def others(transport: Transport) -> list[Rank]:
    return [rank for rank in range(RANKS) if rank != transport.rank]


def order_within_a_pair(transport: Transport) -> None:
    """Messages of all classes from one rank arrive in the order of sending."""
    found = Collected(transport)
    for number in range(300):
        messages: list[Message] = [FreeKeys([number])]
        if number % 3 == 0:
            messages.append(SubmitTasks([number], [1], [b"x" * (number * 50)], [], b"\1", None))
        if number % 5 == 0:
            messages.append(ValuesSent(number, [number], [b"v" * number]))
        for rank in others(transport):
            transport.send(rank, messages)
    expected = 2 * (300 + 100 + 60)
    found.until(lambda: len(found.messages) >= expected)
    for rank in others(transport):
        numbers = [number_of(m) for source, m in found.messages if source == rank]
        assert numbers == sorted(numbers)
        assert len(numbers) == expected // 2
    found.all_left()


def number_of(message: Message) -> int:
    keys: list[int] = message.keys  # type: ignore[attr-defined]
    return keys[0]


def many_both_ways(transport: Transport) -> None:
    """No send waits for its receiver, so nothing locks when all send before they receive."""
    found = Collected(transport)
    payload = b"y" * 5000
    for number in range(2000):
        for rank in others(transport):
            transport.send(rank, [ValuesSent(number, [number], [payload])])
    found.until(lambda: len(found.messages) >= 4000)
    found.all_left()
    assert len(found.messages) == 4000
    assert transport.receive() == []
    assert transport.drained
    if isinstance(transport, MPITransport):
        assert found.looks_with_rest  # others take all that is there


def large_values(transport: Transport) -> None:
    """Buffers of any size arrive whole, also none and empty ones, and several at a time."""
    found = Collected(transport)
    sizes = [[0], [1], [10, 0, 3_000_000], [8_000_000]]
    sent: list[int] = []
    for number, pieces in enumerate(sizes):
        for rank in others(transport):
            views = [memoryview(pattern(transport.rank, number, size)) for size in pieces]
            transport.send(rank, [FreeKeys([number]), LargeValueSent(
                number, number, pieces, pieces, views, on_sent=lambda: sent.append(1)
            )])  # fmt: skip
    found.until(lambda: len(found.of(LargeValueSent)) == 2 * len(sizes))
    for source, message in found.messages:
        if isinstance(message, LargeValueSent):
            for size, buffer in zip(message.pieces, message.buffers, strict=True):
                assert bytes(buffer) == pattern(source, message.request, size)
    found.all_left()
    assert len(sent) == 2 * len(sizes)
    assert len(found.of(FreeKeys)) == 2 * len(sizes)


def pattern(rank: Rank, number: int, size: int) -> bytes:
    unit = f"{rank}-{number};".encode()
    return (unit * (size // len(unit) + 1))[:size]


def places_for_buffers(transport: Transport) -> None:
    """The receiver says where buffers go, and they are received there."""
    places: list[bytearray] = []

    def allocate(message: LargeMessage) -> list[memoryview]:
        places.append(bytearray(sum(message.pieces)))
        return [memoryview(places[-1])]

    before, transport.allocate = transport.allocate, allocate
    found = Collected(transport)
    content = memoryview(b"z" * 200_000)
    for rank in others(transport):
        transport.send(rank, [PutLargeValue(7, [200_000], [200_000], [content])])
    found.until(lambda: len(found.of(PutLargeValue)) == 2)
    found.all_left()
    transport.allocate = before
    assert [bytes(place) for place in places] == [bytes(content)] * 2


def odd_contents(transport: Transport) -> None:
    """What msgpack can say comes through: large numbers, text, nothing, nested lists."""
    found = Collected(transport)
    arguments = [2**64 - 1, -(2**63), "ü", None, [1, [2, [b"\0"]]], {"a": 1.5}, True]
    for rank in others(transport):
        transport.send(rank, [AskScheduler(2**63, "", arguments)])
    found.until(lambda: len(found.messages) == 2)
    for message in found.of(AskScheduler):
        assert message == AskScheduler(2**63, "", arguments)
    found.all_left()


def a_rank_that_is_given_up(transport: Transport) -> None:
    """Nothing is sent to it, what it sends is dropped, lent buffers come back, it is not named.

    Rank 0 gives rank 2 up, which lives and sends to it; rank 1 passes on that this has left.
    """
    found = Collected(transport)
    content = [memoryview(bytes(3_000_000))]
    returned: list[int] = []
    large = LargeValueSent(
        1, 1, [3_000_000], [3_000_000], content, on_sent=lambda: returned.append(1)
    )
    if transport.rank == 0:
        transport.lose(2)
        transport.send(2, [FreeKeys([1]), large])
        assert returned == [1]
        assert not transport.sending()
        transport.send(1, [FreeKeys([2])])
        found.until(lambda: len(found.messages) == 1)
        assert found.messages == [(1, FreeKeys([3]))]
        assert transport.lost_ranks() == []
    elif transport.rank == 1:
        found.until(lambda: len(found.messages) == 1)
        transport.send(2, [FreeKeys([2])])
        found.until(lambda: len(found.messages) == 2)
        transport.send(0, [FreeKeys([3])])
    else:
        found.until(lambda: len(found.messages) == 1)
        assert found.messages == [(1, FreeKeys([2]))]
        transport.send(0, [FreeKeys([4]), large])
        found.until(lambda: returned == [1])
        transport.send(1, [FreeKeys([5])])
    found.all_left()


CHECKS: list[Callable[[Transport], None]] = [
    order_within_a_pair,
    many_both_ways,
    large_values,
    places_for_buffers,
    odd_contents,
    a_rank_that_is_given_up,  # the last one: it stays so
]
