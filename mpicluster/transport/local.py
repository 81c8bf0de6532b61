"""How do ranks that are threads of one process talk?

Same contract as MPI, and the same serialised bundles, so that what works here works there.
"""

import os
from collections import deque
from contextlib import suppress

from mpicluster.ids import Rank
from mpicluster.messages import Message, decode_bundle
from mpicluster.transport.base import (
    LargeMessage,
    Received,
    Transport,
    Waking,
    let_go_of,
    to_bundles,
)


class LocalFabric:
    """The ends of all ranks of one process."""

    def __init__(self, size: int) -> None:
        self.ends = [LocalTransport(self, rank, size) for rank in range(size)]

    def lose(self, rank: Rank) -> None:
        """Cut a rank off, as if its process had ended."""
        cut = self.ends[rank]
        cut.gone = True
        for end in self.ends:
            if end.rank != rank:
                end.lost.append(rank)
        cut.acknowledge_all()
        for end in self.ends:
            if end.rank != rank:
                end.wake()


class LocalTransport(Transport):
    """One rank's end. Only `inbox`, `acknowledged` and `wake` are touched by other threads."""

    waking = Waking.ALWAYS

    def __init__(self, fabric: LocalFabric, rank: Rank, size: int) -> None:
        super().__init__()
        self.fabric = fabric
        self.rank = rank
        self.size = size
        self.wake_fd: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.inbox: deque[tuple[Rank, bytes, LargeMessage | None]] = deque()
        #: Large messages of ours that their receiver has copied.
        self.acknowledged: deque[LargeMessage] = deque()
        self.lost: deque[Rank] = deque()
        #: Ranks from which nothing is taken any more.
        self._given_up: set[Rank] = set()
        self.gone = False
        self._unacknowledged = 0
        self._woken = False

    def wake(self) -> None:
        """Make `wake_fd` readable, with one system call per nap."""
        if not self._woken and self.wake_fd is not None:
            self._woken = True
            os.eventfd_write(self.wake_fd, 1)

    def send(self, rank: Rank, messages: list[Message]) -> None:
        """Put the bundles into the other rank's inbox."""
        other = self.fabric.ends[rank]
        if other.gone or self.gone or rank in self._given_up:
            let_go_of(messages)
            return
        for _, bundle, sent in to_bundles(messages):
            large = sent[-1] if sent[-1].has_buffers else None
            if isinstance(large, LargeMessage):
                self._unacknowledged += 1
                other.inbox.append((self.rank, bundle, large))
            else:
                other.inbox.append((self.rank, bundle, None))
        if other.gone:  # since the question above
            other.acknowledge_all()
        other.wake()

    def acknowledge_all(self) -> None:
        """Nobody reads this inbox any more: let the senders of large values have them back."""
        while True:
            try:
                source, _, large = self.inbox.popleft()
            except IndexError:
                return
            self._acknowledge(source, large)

    def _acknowledge(self, source: Rank, large: LargeMessage | None) -> None:
        if large is not None:
            sender = self.fabric.ends[source]
            sender.acknowledged.append(large)
            sender.wake()

    def hush(self) -> bool:
        """Take back what `wake` has done."""
        if not self._woken or self.wake_fd is None:
            return False
        # The flag goes first: a bundle that comes between the two lines wakes us once more.
        self._woken = False
        with suppress(BlockingIOError):
            os.eventfd_read(self.wake_fd)
        return True

    def receive(self) -> Received:
        """Take everything out of the inbox; copy the buffers of large values."""
        self.hush()
        while self.acknowledged:
            sent = self.acknowledged.popleft()
            self._unacknowledged -= 1
            if sent.on_sent is not None:
                sent.on_sent()
        received: Received = []
        for _ in range(len(self.inbox)):
            try:
                source, bundle, large = self.inbox.popleft()
            except IndexError:
                break  # this end has just been cut off
            if source in self._given_up:
                self._acknowledge(source, large)
                continue
            messages = decode_bundle(bundle)
            if large is not None:
                arrived = messages[-1]
                assert isinstance(arrived, LargeMessage)
                arrived.buffers = self.allocate(arrived)
                for target, content in zip(arrived.buffers, large.buffers, strict=True):
                    target[:] = content
                self._acknowledge(source, large)
            received.append((source, messages))
        return received

    def arrived(self) -> bool:
        """Return whether the inbox holds anything."""
        return bool(self.inbox)

    def sending(self) -> bool:
        """Return whether a receiver has not copied a large value yet."""
        return self._unacknowledged > 0

    def lost_ranks(self) -> list[Rank]:
        """Return the ranks that `LocalFabric.lose` has cut off."""
        return [self.lost.popleft() for _ in range(len(self.lost))]

    def lose(self, rank: Rank) -> None:
        """Send nothing to a rank and take nothing from it any more."""
        self._given_up.add(rank)

    def close(self) -> None:
        """Close the descriptor; nothing else is held."""
        self.gone = True
        if self.wake_fd is not None:
            os.close(self.wake_fd)
            self.wake_fd = None
