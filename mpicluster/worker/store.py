"""Where are the values of this worker, and how large are they?

A value is bytes (one pickle) or a segment with frames: of this worker's arena, of another's that it
borrows from, or of a file in scratch. A segment on disk is used in place like the others: slots and
sends map it, so nothing is ever read back into memory as a whole. The store is told what to keep,
to spill and to drop; it decides nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mpicluster.ids import Key, NBytes
from mpicluster.worker.scratch import ScratchFile
from mpicluster.worker.segments import Arena, Segment


@dataclass(slots=True, eq=False)
class LargeValue:
    """Frames that lie in a segment, see `frame_offsets`; `extents` are their sizes in bytes."""

    segment: Segment
    extents: list[NBytes]

    @property
    def nbytes(self) -> NBytes:
        """The size of the value."""
        return self.segment.nbytes


StoredValue = bytes | LargeValue


class Store:
    """The values of one worker."""

    def __init__(self, arena: Arena, open_scratch: Callable[[], ScratchFile | None]) -> None:
        self.arena = arena
        self._open_scratch = open_scratch
        #: The file of spilled values; made for the first of them, so that most jobs have none.
        self.scratch: ScratchFile | None = None
        #: The longest unused first.
        self.values: dict[Key, StoredValue] = {}
        #: Bytes of all values, of those in scratch, and of those in another rank's memory.
        self.nbytes: NBytes = 0
        self.spilled_nbytes: NBytes = 0
        self.borrowed_nbytes: NBytes = 0

    def __contains__(self, key: Key) -> bool:
        return key in self.values

    @property
    def memory_nbytes(self) -> NBytes:
        """Bytes of the values that lie in this rank's memory."""
        return self.nbytes - self.spilled_nbytes - self.borrowed_nbytes

    def get(self, key: Key) -> StoredValue | None:
        """Return a value, None if it is not here."""
        value = self.values.get(key)
        if isinstance(value, LargeValue):
            del self.values[key]
            self.values[key] = value
        return value

    def put(self, key: Key, value: StoredValue) -> None:
        """Keep a value; a second copy of the same value is let go."""
        if key in self.values:
            self._let_go(value)
            return
        self.values[key] = value
        self.nbytes += size_of(value)
        if self._is_borrowed(value):
            self.borrowed_nbytes += size_of(value)

    def drop(self, key: Key) -> None:
        """Forget a value, if it is here."""
        value = self.values.pop(key, None)
        if value is not None:
            self.nbytes -= size_of(value)
            if self._is_spilled(value):
                self.spilled_nbytes -= size_of(value)
            elif self._is_borrowed(value):
                self.borrowed_nbytes -= size_of(value)
            self._let_go(value)

    def _is_spilled(self, value: StoredValue) -> bool:
        return isinstance(value, LargeValue) and value.segment.arena is self.scratch

    def _is_borrowed(self, value: StoredValue) -> bool:
        return isinstance(value, LargeValue) and value.segment.arena not in (
            self.arena, self.scratch
        )  # fmt: skip

    def _let_go(self, value: StoredValue) -> None:
        if isinstance(value, LargeValue):
            value.segment.let_go()

    def spill(self, nbytes: NBytes) -> NBytes:
        """Move values that nobody uses now to scratch, the longest unused first.

        Returns the bytes moved, which may be fewer than asked for. A disk that is full is an
        `OSError`; the value stays in memory then.
        """
        moved = 0
        if self.scratch is None:
            self.scratch = self._open_scratch()
        if self.scratch is None:
            return moved
        idle = [
            (key, value)
            for key, value in self.values.items()
            if isinstance(value, LargeValue)
            and value.segment.arena is self.arena
            and value.segment.users == 1
        ]
        for key, value in idle:
            if moved >= nbytes:
                break
            written = self.scratch.write(value.segment.view())
            self.values[key] = LargeValue(written, value.extents)
            self.spilled_nbytes += value.nbytes
            moved += value.nbytes
            value.segment.let_go()
        return moved

    def close(self) -> None:
        """Drop everything."""
        for key in list(self.values):
            self.drop(key)
        if self.scratch is not None:
            self.scratch.close()
            self.scratch = None


def size_of(value: StoredValue) -> NBytes:
    """Return a value's size in bytes."""
    return len(value) if isinstance(value, bytes) else value.nbytes
