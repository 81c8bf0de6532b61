"""How does the client copy a value that lies in the memory of a worker of its host?

A copy, since the script may keep it for as long as it likes. One thread is limited by the pages of
4 KiB that it touches, not by the memory: two are nearly twice as fast. Whole pages are copied to
whole pages: to memory as numpy gives it, 16 bytes behind the beginning of a page, the kernel of an
AMD EPYC copies 200 MB in 84 ms, to the beginning of a page in 25 (`rep movsb`).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from mmap import PAGESIZE
from typing import Any, Final

from mpicluster.serialization.frames import frame_offsets, split_frames

#: Threads that copy one value at most.
READERS_MAX: Final = 4
#: A share smaller than this is not worth a thread, in bytes.
READER_BYTES_MIN: Final = 8 << 20
#: Bytes read from a file by one system call.
READ_BYTES: Final = 1 << 28


def copy_frames(path: str, offset: int, extents: list[int]) -> list[memoryview]:
    """Return a copy of the frames that lie in a file."""
    _, nbytes = frame_offsets(extents)
    (block,) = fresh_memory([nbytes])
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _fill(block, fd, offset)
    finally:
        os.close(fd)
    return split_frames(block, extents)


def _fill(block: memoryview, fd: int, offset: int) -> None:
    """Read a block from a file, a large one by several threads."""
    count = min(READERS_MAX, len(os.sched_getaffinity(0)), len(block) // READER_BYTES_MIN)
    if count < 2:
        _read(block, fd, offset)
        return
    share = -(-len(block) // (count * PAGESIZE)) * PAGESIZE  # whole pages
    starts = range(0, len(block), share)
    with ThreadPoolExecutor(count - 1) as others:
        reads = [
            others.submit(_read, block[start : start + share], fd, offset + start)
            for start in starts[1:]
        ]
        _read(block[:share], fd, offset)
        for read in reads:
            read.result()


def _read(block: memoryview, fd: int, offset: int) -> None:
    done = 0
    while done < len(block):
        count = os.preadv(fd, [block[done : done + READ_BYTES]], offset + done)
        if not count:
            raise OSError(f"A lent value ends {len(block) - done} bytes before its end.")
        done += count


def fresh_memory(sizes: list[int]) -> list[memoryview]:
    """Return memory that is not zeroed, in pieces of these sizes in bytes; large ones begin with a
    page.
    """
    return [_fresh_block(nbytes) for nbytes in sizes]


def _fresh_block(nbytes: int) -> memoryview:
    import numpy as np

    spare = PAGESIZE if nbytes >= PAGESIZE else 0
    block: Any = np.empty(nbytes + spare, dtype="u1")
    start = -block.ctypes.data % PAGESIZE if spare else 0
    return memoryview(block[start : start + nbytes])
