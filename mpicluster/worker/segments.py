"""Where in shared memory does a large value lie?

Each worker has one arena: a file in memory without a name (`arena_file.py`), so that nothing of it
outlives the process and the size of /dev/shm does not matter. The file is sparse and far larger
than the memory; a segment is a range of its pages. Slots map ranges privately, other ranks of the
host borrow them (`sharing.py`), MPI sends from and receives into this process's own mapping.

Freed segments are kept and given out again by size class: writing to warm pages is up to ten times
faster than to fresh ones (measured: 16 against 1.6 GB/s, with huge pages 19 against 12). A segment
has users (the store, a message on its way, a slot that maps it) and is free when the last one has
let it go.
"""

import mmap
import os
from collections import defaultdict
from contextlib import suppress
from ctypes import CDLL, c_int, c_longlong, get_errno
from dataclasses import dataclass
from typing import Any, Final, Protocol

PAGE: Final = mmap.PAGESIZE
#: In place of a descriptor that is closed. A message that leaves late frees its segment after that,
#: when the number may stand for another file.
CLOSED: Final = -1
#: The arena's address space, as a multiple of the memory that the rank may use.
ARENA_FACTOR: Final = 16
ARENA_BYTES_MIN: Final = 1 << 36
#: The last huge page may reach so far beyond the last segment.
BEYOND_BYTES: Final = 4 << 20
#: fallocate(2): FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
_PUNCH_HOLE: Final = 0x02 | 0x01


#: Where a slot maps a segment from: an offset in its worker's arena, or (path of a file, offset).
Place = int | tuple[str, int]


def to_place(found: int | list[Any]) -> Place:
    """Return a place that has come in a message."""
    return found if isinstance(found, int) else (found[0], found[1])


class SegmentOwner(Protocol):
    """What segments are parts of: this worker's arena, or one that it borrows from."""

    @property
    def path(self) -> str:
        """Where other processes of this user can open it."""

    def view(self, segment: "Segment") -> memoryview:
        """Return the bytes of a segment."""

    def place(self, segment: "Segment") -> Place:
        """Return where slots map a segment from."""

    def free(self, segment: "Segment") -> None:
        """Take back a segment that nobody uses any more."""


@dataclass(slots=True, eq=False)
class Segment:
    """A range of an arena: `capacity` bytes from `offset`, of which `nbytes` are used."""

    arena: SegmentOwner
    offset: int
    capacity: int
    nbytes: int
    users: int = 1

    @property
    def place(self) -> Place:
        """Where slots map it from."""
        return self.arena.place(self)

    def view(self) -> memoryview:
        """Return its bytes."""
        return self.arena.view(self)

    def hold(self) -> None:
        """One more user."""
        self.users += 1

    def let_go(self) -> None:
        """One user less; the last one frees the segment."""
        self.users -= 1
        if not self.users:
            self.arena.free(self)


def size_class(nbytes: int) -> int:
    """Return the capacity of the segment for a value: whole pages, at most an eighth more.

    >>> size_class(1), size_class(1_000_000)
    (4096, 1048576)
    """
    pages = max(1, -(-nbytes // PAGE))
    step = 1 << max(0, pages.bit_length() - 4)
    return -(-pages // step) * step * PAGE


class SegmentFile:
    """A file of segments that is mapped piece by piece, to be read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @property
    def path(self) -> str:
        """Where other processes of this user can open it, whether it has a name or not."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def view(self, segment: Segment) -> memoryview:
        """Return the bytes of a segment, to be sent."""
        mapped = mmap.mmap(
            self.fd, segment.nbytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=segment.offset
        )
        return memoryview(mapped)

    def place(self, segment: Segment) -> Place:
        """Return where slots map a segment from."""
        return self.path, segment.offset

    def close(self) -> None:
        """Close the file; what is mapped stays mapped."""
        fd, self.fd = self.fd, CLOSED
        os.close(fd)


class Arena:
    """All segments of one worker."""

    def __init__(self, memory_limit: int, cache_bytes: int, fd: int) -> None:
        self.size = max(memory_limit * ARENA_FACTOR, ARENA_BYTES_MIN)
        self.fd = fd
        os.truncate(self.fd, self.size)
        self._map = mmap.mmap(self.fd, self.size, flags=mmap.MAP_SHARED)
        # For a file of memfd_create: where the system permits it (shmem_enabled), it has them too.
        with suppress(OSError):  # it is a wish, which a kernel without huge pages refuses
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._view = memoryview(self._map)
        self._cache_bytes = cache_bytes
        #: {capacity: [offset, ...]} of free segments whose pages are still there; the size
        #: that was freed last comes last.
        self._warm: dict[int, list[int]] = defaultdict(list)
        self._warm_bytes = 0
        #: {capacity: [offset, ...]} of free ranges without pages.
        self._cold: dict[int, list[int]] = defaultdict(list)
        self._end = 0
        #: Bytes of the segments in use.
        self.nbytes = 0
        #: Segments have been freed since the last `trim`.
        self._freed = False

    @property
    def warm_nbytes(self) -> int:
        """Bytes of free segments whose pages are kept."""
        return self._warm_bytes

    @property
    def spare_nbytes(self) -> int:
        """Bytes of pages that no segment in use needs: those that are kept, and what lies beside
        small segments in huge pages.
        """
        there = os.fstat(self.fd).st_blocks * 512
        return max(self._warm_bytes, there - self.nbytes)

    @property
    def path(self) -> str:
        """Where other processes of this user can open the arena."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def allocate(self, nbytes: int) -> Segment:
        """Return a segment for `nbytes`, warm if one of its class is free."""
        capacity = size_class(nbytes)
        warm, cold = self._warm.get(capacity), self._cold.get(capacity)
        if warm:
            offset = warm.pop()
            self._warm_bytes -= capacity
        elif cold:
            offset = cold.pop()
        else:
            offset = self._extend(capacity)
        self.nbytes += capacity
        return Segment(self, offset, capacity, nbytes)

    def _extend(self, capacity: int) -> int:
        if self._end + capacity > self.size:
            self._merge_free()
        if self._end + capacity > self.size:
            raise MemoryError(
                f"A value of {capacity} bytes does not fit into the {self.size} bytes of address "
                "space that this worker reserved; free some values or give it a larger "
                "--memory-limit."
            )
        offset = self._end
        self._end += capacity
        return offset

    def _merge_free(self) -> None:
        """Give back free ranges at the end of the arena, so that other sizes can use them."""
        ranges = sorted(
            (offset, capacity)
            for pool in (self._warm, self._cold)
            for capacity, offsets in pool.items()
            for offset in offsets
        )
        while ranges and ranges[-1][0] + ranges[-1][1] == self._end:
            offset, capacity = ranges.pop()
            self._end = offset
            for pool in (self._warm, self._cold):
                if offset in pool[capacity]:
                    pool[capacity].remove(offset)
                    if pool is self._warm:
                        self._warm_bytes -= capacity
            self._punch(offset, capacity)

    def view(self, segment: Segment) -> memoryview:
        """Return the bytes of a segment."""
        return self._view[segment.offset : segment.offset + segment.nbytes]

    def place(self, segment: Segment) -> Place:
        """Return where slots map a segment from: they have the arena open."""
        return segment.offset

    def free(self, segment: Segment) -> None:
        """Keep the pages of a segment for the next value, in place of those that wait longest."""
        if self.fd == CLOSED:
            return
        capacity = segment.capacity
        self.nbytes -= capacity
        self._freed = True
        if capacity > self._cache_bytes:
            self._punch(segment.offset, capacity)
            self._cold[capacity].append(segment.offset)
            return
        offsets = self._warm.pop(capacity, [])
        offsets.append(segment.offset)
        self._warm[capacity] = offsets
        self._warm_bytes += capacity
        while self._warm_bytes > self._cache_bytes:
            self._cool_one()

    def _cool_one(self) -> None:
        """Give the pages of a free segment back, of the size that was freed longest ago."""
        capacity, offsets = next(iter(self._warm.items()))
        if not offsets:
            del self._warm[capacity]
            return
        offset = offsets.pop()
        self._warm_bytes -= capacity
        self._punch(offset, capacity)
        self._cold[capacity].append(offset)

    def trim(self) -> None:
        """Give the pages of all free segments back to the system.

        Neighbours together, also those that have no pages of their own: a huge page that one of
        them was given lies below the others too, and goes back as a whole.
        """
        if not self._freed:
            return
        self._freed = False
        for capacity, offsets in self._warm.items():
            self._cold[capacity].extend(offsets)
        self._warm.clear()
        self._warm_bytes = 0
        start = end = 0
        free = sorted(
            (offset, capacity) for capacity, offsets in self._cold.items() for offset in offsets
        )
        for offset, capacity in [*free, (self._end, BEYOND_BYTES)]:
            if offset != end:
                if end > start:
                    self._punch(start, end - start)
                start = offset
            end = offset + capacity
        self._punch(start, end - start)

    def _punch(self, offset: int, nbytes: int) -> None:
        """Give the pages of a range back to the system."""
        punch_hole(self.fd, offset, nbytes)

    def close(self) -> None:
        """Give everything back; views that others still hold keep the memory alive."""
        self._view.release()
        try:
            self._map.close()
        except BufferError:
            # A message that was never taken still refers to a segment; the process ends soon.
            self._map = None  # type: ignore[assignment]
        fd, self.fd = self.fd, CLOSED
        os.close(fd)


def punch_hole(fd: int, offset: int, nbytes: int) -> None:
    """Give the pages or the disk space of a part of a file back (fallocate(2))."""
    fallocate = CDLL(None, use_errno=True).fallocate
    if fallocate(c_int(fd), c_int(_PUNCH_HOLE), c_longlong(offset), c_longlong(nbytes)):
        raise OSError(get_errno(), os.strerror(get_errno()))
