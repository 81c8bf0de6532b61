"""How do messages travel in a simulated run?

As the contract of `transport/base.py` permits: in order within a pair, any delay between pairs,
large values on their own and so perhaps later than what was sent after them. All messages pass
through the real serializer.
"""

from collections import deque

from mpicluster.ids import Rank
from mpicluster.messages import Message, decode_bundle, encode_bundle
from mpicluster.transport.base import LargeMessage

#: One direction between two ranks; the last number is 0, or that of a large value.
Lane = tuple[Rank, Rank, int]


class Network:
    """Bundles that have been sent and not delivered."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, deque[bytes]] = {}
        #: {(source, target): step} of pairs on which nothing moves before that step.
        self.held_until: dict[tuple[Rank, Rank], int] = {}
        self._large_count = 0

    def send(self, source: Rank, target: Rank, messages: list[Message]) -> None:
        """Put messages on their way."""
        small: list[Message] = []
        for message in messages:
            if isinstance(message, LargeMessage):
                self._large_count += 1
                content = b"".join(bytes(view) for view in message.buffers)
                lane = (source, target, self._large_count)
                self.lanes[lane] = deque([encode_bundle([message]), content])
            else:
                small.append(message)
        if small:
            self.lanes.setdefault((source, target, 0), deque()).append(encode_bundle(small))

    def waiting(self, target: Rank, step: int) -> list[Lane]:
        """Return the lanes on which something can arrive at `target` now."""
        return [
            lane for lane in self.lanes
            if lane[1] == target and self.held_until.get(lane[:2], 0) <= step
        ]  # fmt: skip

    def targets(self, step: int) -> dict[Rank, None]:
        """Return all ranks at which something can arrive now."""
        held = self.held_until
        return {lane[1]: None for lane in self.lanes if held.get(lane[:2], 0) <= step}

    def deliver(self, lane: Lane) -> list[Message]:
        """Take the first bundle of a lane."""
        bundles = self.lanes[lane]
        messages = decode_bundle(bundles.popleft())
        if lane[2]:
            (large,) = messages
            assert isinstance(large, LargeMessage)
            large.buffers = [memoryview(bundles.popleft())]
        if not bundles:
            del self.lanes[lane]
        return messages

    def cut(self, rank: Rank, *, sent_too: bool) -> None:
        """Drop what is on its way to a rank, and perhaps what it had sent."""
        for lane in list(self.lanes):
            if lane[1] == rank or (sent_too and lane[0] == rank):
                del self.lanes[lane]
