"""Copies of lent values: by one thread and by several, and of a file that is too short."""

import os
from mmap import PAGESIZE
from pathlib import Path

import numpy as np
import pytest

from mpicluster.client import copying


@pytest.fixture
def lent(tmp_path: Path) -> tuple[str, bytes]:
    content = os.urandom(100_003)
    path = tmp_path / "arena"
    path.write_bytes(content)
    return str(path), content


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("share", [1000, 33_334, 1 << 20])
def test_every_thread_copies_its_share(
    lent: tuple[str, bytes], cores: int, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = lent
    monkeypatch.setattr(copying, "READER_BYTES_MIN", share)
    monkeypatch.setattr(copying, "READ_BYTES", 7001)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    extents = [len(content) - 3]
    (frame,) = copying.copy_frames(path, 3, extents)
    assert bytes(frame) == content[3:]


@pytest.mark.parametrize("share", [1000, 1 << 20])
def test_a_file_that_is_too_short(
    lent: tuple[str, bytes], share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = lent
    monkeypatch.setattr(copying, "READER_BYTES_MIN", share)
    with pytest.raises(OSError, match="ends 5 bytes before its end"):
        copying.copy_frames(path, 5, [len(content)])


def test_large_pieces_begin_with_a_page() -> None:
    sizes = [0, 10, PAGESIZE, 1_000_003]
    pieces = copying.fresh_memory(sizes)
    assert [len(piece) for piece in pieces] == sizes
    for piece in pieces[2:]:
        assert np.frombuffer(piece, "u1").ctypes.data % PAGESIZE == 0
        piece[:] = bytes(len(piece))
