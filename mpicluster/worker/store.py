"""Where are the values of this worker, and how large are they?

A value is bytes (one pickle), a segment with frames, or a file with frames in scratch. A file is
used in place: slots and sends map it, so nothing is ever read back into memory as a whole. The
store is told what to keep, to spill and to drop; it decides nothing.
"""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpicluster.ids import Key, NBytes
from mpicluster.serialization.frames import frame_offsets
from mpicluster.worker.segments import Arena, Segment

#: Bytes written to a file by one system call.
_WRITE_BYTES = 1 << 26


@dataclass(slots=True, eq=False)
class LargeValue:
    """Frames that lie in a segment, see `frame_offsets`; `extents` are their sizes in bytes."""

    segment: Segment
    extents: list[NBytes]

    @property
    def nbytes(self) -> NBytes:
        """The size of the value."""
        return self.segment.nbytes


@dataclass(slots=True, eq=False)
class SpilledValue:
    """Frames that lie in a file, as they lay in their segment."""

    path: Path
    extents: list[NBytes]

    @property
    def nbytes(self) -> NBytes:
        """The size of the value."""
        return frame_offsets(self.extents)[1]

    def map(self) -> mmap.mmap:
        """Return the file's content as memory."""
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


StoredValue = bytes | LargeValue | SpilledValue


class Store:
    """The values of one worker."""

    def __init__(self, arena: Arena, make_scratch: Callable[[], Path | None]) -> None:
        self.arena = arena
        self._make_scratch = make_scratch
        #: The folder for spilled values; made for the first of them, so that most jobs have none.
        self.scratch: Path | None = None
        #: The longest unused first.
        self.values: dict[Key, StoredValue] = {}
        #: Bytes of all values, of those in scratch, and of those in another rank's memory.
        self.nbytes: NBytes = 0
        self.spilled_nbytes: NBytes = 0
        self.borrowed_nbytes: NBytes = 0
        self._files = 0

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
            if isinstance(value, SpilledValue):
                self.spilled_nbytes -= value.nbytes
            elif self._is_borrowed(value):
                self.borrowed_nbytes -= size_of(value)
            self._let_go(value)

    def _is_borrowed(self, value: StoredValue) -> bool:
        return isinstance(value, LargeValue) and value.segment.arena is not self.arena

    def _let_go(self, value: StoredValue) -> None:
        if isinstance(value, LargeValue):
            value.segment.let_go()
        elif isinstance(value, SpilledValue):
            value.path.unlink(missing_ok=True)  # who has it mapped keeps it

    def spill(self, nbytes: NBytes) -> NBytes:
        """Move values that nobody uses now to scratch, the longest unused first.

        Returns the bytes moved, which may be fewer than asked for. A disk that is full is an
        `OSError`; the value stays in memory then.
        """
        moved = 0
        if self.scratch is None:
            self.scratch = self._make_scratch()
        if self.scratch is None:
            return moved
        idle = [
            (key, value)
            for key, value in self.values.items()
            if isinstance(value, LargeValue)
            and value.segment.users == 1
            and not self._is_borrowed(value)
        ]
        for key, value in idle:
            if moved >= nbytes:
                break
            self.values[key] = self._write(self.scratch, value)
            self.spilled_nbytes += value.nbytes
            moved += value.nbytes
            value.segment.let_go()
        return moved

    def _write(self, scratch: Path, value: LargeValue) -> SpilledValue:
        self._files += 1
        path = scratch / f"{self._files}"
        view = value.segment.view()
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                position = 0
                while position < len(view):
                    position += os.write(fd, view[position : position + _WRITE_BYTES])
            finally:
                os.close(fd)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return SpilledValue(path, value.extents)

    def close(self) -> None:
        """Drop everything."""
        for key in list(self.values):
            self.drop(key)


def size_of(value: StoredValue) -> NBytes:
    """Return a value's size in bytes."""
    return len(value) if isinstance(value, bytes) else value.nbytes
