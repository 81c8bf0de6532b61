"""How does a client inside a task send large values?"""

from types import SimpleNamespace
from typing import Any

import pytest

from mpicluster import messages as m
from mpicluster.ids import SCHEDULER_RANK
from mpicluster.tasks import SlotTransport
from mpicluster.worker import slot_protocol as p

CLIENT = 1 << 30


class Slot:
    """What the transport needs of its slot."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(rank=2, host="here")
        self.handlers: dict[type[Any], Any] = {}
        self.sent: list[Any] = []
        self.written: list[tuple[list[bytes], int]] = []

    def send_control(self, message: Any) -> None:
        self.sent.append(message)

    def write(self, frames: Any, extents: list[int], place: int) -> None:
        if place == 13:
            raise OSError(28, "No space left on device")
        assert [len(frame) for frame in frames] == extents
        self.written.append(([bytes(frame) for frame in frames], place))

    def take(self) -> list[Any]:
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def slot() -> Slot:
    return Slot()


@pytest.fixture
def transport(slot: Slot) -> Any:
    made = SlotTransport(slot, CLIENT)  # type: ignore[arg-type]
    yield made
    made.close()


def put(key: int, content: bytes, left: list[int]) -> m.PutLargeValue:
    frames = [memoryview(content)]
    return m.PutLargeValue(key, [len(content)], [len(content)], frames, lambda: left.append(key))


def test_one_value_at_a_time_asks_for_room(slot: Slot, transport: SlotTransport) -> None:
    left: list[int] = []
    values = [put(7, b"seven", left), m.PutValues([6], [b"six"]), put(8, b"eighty", left)]
    transport.send(3, values)
    small, asked = slot.take()
    assert small.target == 3
    assert m.decode_bundle(small.bundle) == [m.PutValues([6], [b"six"])]
    assert asked == p.WantRoom(7, 5)
    assert transport.sending()
    slot.handlers[p.RoomForValue](p.RoomForValue(7, 4096))
    assert transport.arrived()
    assert transport.receive() == []
    assert slot.take() == [p.ValueWritten(3, 7, 4096, [5]), p.WantRoom(8, 6)]
    slot.handlers[p.RoomForValue](p.RoomForValue(8, 0))
    transport.receive()
    assert slot.take() == [p.ValueWritten(3, 8, 0, [6])]
    assert slot.written == [([b"seven"], 4096), ([b"eighty"], 0)]
    assert left == [7, 8]
    assert not transport.sending()


@pytest.mark.parametrize("offset", [-1, 13])
def test_a_value_without_room_is_an_error_of_its_future(
    slot: Slot, transport: SlotTransport, offset: int
) -> None:
    left: list[int] = []
    transport.send(3, [put(7, b"seven", left), put(8, b"eight", left)])
    slot.take()
    slot.handlers[p.RoomForValue](p.RoomForValue(7, offset))
    ((source, [erred]),) = transport.receive()
    *given_back, cancelled, asked = slot.take()
    assert given_back == ([p.ValueWritten(p.NOBODY, 7, 13, [])] if offset >= 0 else [])
    assert cancelled.target == SCHEDULER_RANK
    assert m.decode_bundle(cancelled.bundle) == [m.CancelKeys([7], False)]
    assert asked == p.WantRoom(8, 5)  # the next is sent nevertheless
    assert left == [7]
    assert source == SCHEDULER_RANK
    assert erred.keys == [7]  # type: ignore[attr-defined]
    assert "does not fit into the memory of rank 2 (here)" in erred.error[2]  # type: ignore[attr-defined]


def test_room_for_a_client_that_was_closed_is_given_back(
    slot: Slot, transport: SlotTransport
) -> None:
    slot.handlers[p.RoomForValue](p.RoomForValue(7, 4096))
    slot.handlers[p.RoomForValue](p.RoomForValue(8, -1))  # this is none
    assert transport.receive() == []
    assert slot.take() == [p.ValueWritten(p.NOBODY, 7, 4096, [])]
