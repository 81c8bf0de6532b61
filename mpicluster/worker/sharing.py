"""How do worker ranks of one host use the same large value without a copy?

The rank that has it lends the segment: it names its arena's file and the range, and keeps the
segment as it is. The rank that asked opens the file (`/proc/<pid>/fd/<fd>`, proc(5)), its slots map
the range as they map their own worker's, and it gives the segment back when nobody here uses it
any more. Open files keep the memory alive, so a lender that is lost takes nothing away.
"""

import os
from collections.abc import Callable

from mpicluster import messages as m
from mpicluster.ids import Key, Rank
from mpicluster.transport.base import Transport
from mpicluster.worker.segments import Segment, SegmentFile
from mpicluster.worker.store import LargeValue


class BorrowedArena(SegmentFile):
    """Another rank's arena, open here: slots reach it by way of this process, which may outlive the
    lender.
    """

    def __init__(self, path: str, on_free: Callable[[Segment], None]) -> None:
        super().__init__(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._on_free = on_free

    def free(self, segment: Segment) -> None:
        """Give a segment back to the rank that lent it."""
        self._on_free(segment)


class Sharing:
    """What this worker has lent and borrowed.

    `home` names the processes that can open each other's files; ranks with the same one share.
    """

    def __init__(self, transport: Transport, home: str) -> None:
        self.home = home
        self._transport = transport
        self._next_share = 1
        #: {share: (borrower, segment)}.
        self._lent: dict[int, tuple[Rank, Segment]] = {}
        #: {path: arena} of the lenders.
        self._arenas: dict[str, BorrowedArena] = {}
        #: {segment: (lender, share)}.
        self._borrowed: dict[Segment, tuple[Rank, int]] = {}
        #: {lender: [share, ...]} that are to be given back.
        self._returning: dict[Rank, list[int]] = {}

    def lend(
        self, rank: Rank, request: int, key: Key, value: LargeValue
    ) -> m.LargeValueShared:
        """Return what lets a rank use a value in place."""
        segment = value.segment
        share = self._next_share
        self._next_share += 1
        segment.hold()
        self._lent[share] = (rank, segment)
        path, offset = segment.arena.path, segment.offset
        return m.LargeValueShared(request, key, share, value.extents, path, offset)

    def borrow(self, lender: Rank, message: m.LargeValueShared, nbytes: int) -> LargeValue | None:
        """Return a value that was lent, None if its memory cannot be opened from here."""
        arena = self._arenas.get(message.path)
        if arena is None:
            try:
                arena = BorrowedArena(message.path, self._free)
            except OSError:
                self._returning.setdefault(lender, []).append(message.share)
                return None
            self._arenas[message.path] = arena
        segment = Segment(arena, message.offset, nbytes, nbytes)
        self._borrowed[segment] = (lender, message.share)
        return LargeValue(segment, message.extents)

    def _free(self, segment: Segment) -> None:
        lender, share = self._borrowed.pop(segment)
        self._returning.setdefault(lender, []).append(share)

    def give_back(self) -> None:
        """Tell the lenders what is no longer used here, once a turn."""
        if self._returning:
            returning, self._returning = self._returning, {}
            for lender, shares in returning.items():
                self._transport.send(lender, [m.SharesReturned(shares)])

    def take_back(self, shares: list[int]) -> None:
        """Note that segments have come back."""
        for share in shares:
            found = self._lent.pop(share, None)
            if found is not None:
                found[1].let_go()

    def rank_lost(self, rank: Rank) -> None:
        """Nothing comes back from a rank that is gone."""
        self.take_back([share for share, (borrower, _) in self._lent.items() if borrower == rank])

    def close(self) -> None:
        """Close the lenders' files."""
        for arena in self._arenas.values():
            arena.close()
        self._arenas.clear()
