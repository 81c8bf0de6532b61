"""Files in memory for arenas: with huge pages where the system permits them, whoever opens them."""

import errno
import mmap
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from mpicluster.worker import arena_file
from mpicluster.worker.arena_file import open_arena_file
from mpicluster.worker.segments import Arena

SIZE = 64 << 20
#: Run in a user namespace below which no other may be made (user_namespaces(7)).
FORBIDDEN = """
import os
from mpicluster.worker.arena_file import open_arena_file
with open("/proc/sys/user/max_user_namespaces", "w") as limit:
    limit.write("0")
fd, reason = open_arena_file(True)
print(os.readlink(f"/proc/self/fd/{fd}"), reason, sep="; ")
"""
#: Without threads, so that the child is a fork of this.
ENDED = """
import os
import signal
from mpicluster.worker import arena_file
arena_file._open_on_own_file_system = lambda: os.kill(os.getpid(), signal.SIGSYS)
fd, reason = arena_file.open_arena_file(True)
print(os.readlink(f"/proc/self/fd/{fd}"), reason, sep="; ")
"""


@pytest.fixture
def fd() -> Iterator[int]:
    fd, reason = open_arena_file(huge_pages=True)
    if reason:
        os.close(fd)
        pytest.skip(f"no huge pages here: {reason}")
    yield fd
    os.close(fd)


def test_its_pages_are_huge(fd: int) -> None:
    os.truncate(fd, SIZE)
    with mmap.mmap(fd, SIZE) as mapped:
        mapped[:] = b"x" * SIZE
        sizes = Path("/proc/self/smaps_rollup").read_text()
        found = re.search(r"ShmemPmdMapped:\s+(\d+) kB", sizes)
        assert found is not None
        assert int(found[1]) * 1024 >= SIZE // 2


def test_nothing_else_of_it_is_left(fd: int) -> None:
    assert os.fstat(fd).st_nlink == 0
    assert not os.get_inheritable(fd)
    assert "mpicluster" not in Path("/proc/self/mounts").read_text()
    children = psutil.Process().children()
    other, _ = open_arena_file(huge_pages=True)
    os.close(other)
    assert set(psutil.Process().children()) <= set(children)


def test_other_processes_open_it_as_they_open_arenas(fd: int) -> None:
    os.truncate(fd, SIZE)
    os.pwrite(fd, b"value", SIZE - 5)
    program = (
        "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR); "
        f"print(os.pread(fd, 5, {SIZE - 5})); os.pwrite(fd, b'other', 0)"
    )
    path = f"/proc/{os.getpid()}/fd/{fd}"
    ended = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=True)
    assert ended.stdout == b"b'value'\n"
    assert os.pread(fd, 5, 0) == b"other"


def test_its_pages_go_back_to_the_system(fd: int) -> None:
    fd = os.dup(fd)
    arena = Arena(1 << 30, 0, fd)
    first, second = arena.allocate(8 << 20), arena.allocate(8 << 20)
    for segment in (first, second):
        segment.view()[:] = b"x" * segment.nbytes
    first.let_go()
    assert os.fstat(fd).st_blocks * 512 < 12 << 20
    assert bytes(second.view()) == b"x" * second.nbytes
    second.let_go()
    assert os.fstat(fd).st_blocks == 0
    arena.close()


def test_small_segments_that_are_free_leave_no_huge_pages_behind(fd: int) -> None:
    """Each lay in a page that the first of them had been given, and gave only its own part back."""
    fd = os.dup(fd)
    nbytes = 64 << 10
    arena = Arena(1 << 30, 0, fd)
    segments = [arena.allocate(nbytes) for _ in range(100)]
    for segment in segments:
        segment.view()[:] = b"x" * nbytes
    arena.trim()
    kept = segments[::9]
    for segment in segments:
        if segment not in kept:
            segment.let_go()
    arena.trim()
    assert os.fstat(fd).st_blocks * 512 == len(kept) * nbytes
    assert arena.spare_nbytes == 0
    assert all(bytes(segment.view()) == b"x" * nbytes for segment in kept)
    for segment in kept:
        segment.let_go()
    arena.trim()
    last = arena.allocate(nbytes)  # a whole huge page is given for it
    last.view()[:] = b"x" * nbytes
    assert arena.spare_nbytes == os.fstat(fd).st_blocks * 512 - nbytes > 0
    last.let_go()
    arena.trim()
    assert os.fstat(fd).st_blocks == arena.spare_nbytes == 0
    arena.close()


def test_a_file_is_tried_before_it_is_used(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    size = int(arena_file._HUGE_PAGE_BYTES.read_text())
    assert arena_file._try_file(fd, size) == ""
    assert (os.fstat(fd).st_size, os.fstat(fd).st_blocks) == (0, 0)
    refuse = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        why = arena_file._try_file(fd, size)
    assert why == "it cannot be opened again: Permission denied"
    monkeypatch.setattr("mpicluster.worker.segments.punch_hole", lambda *_: None)
    why = arena_file._try_file(fd, size)
    assert why == "the kernel takes nothing less than a huge page back"


def test_a_process_with_threads_does_not_fork(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise AssertionError("A process with threads was forked.")

    monkeypatch.setattr(os, "fork", fork)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        other, reason = open_arena_file(huge_pages=True)
    finally:
        end.set()
        thread.join()
    assert reason == ""
    assert os.fstat(other).st_dev != os.fstat(fd).st_dev
    os.close(other)


def test_a_process_that_ignores_how_children_end(fd: int) -> None:
    program = (
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        "from mpicluster.worker.arena_file import open_arena_file; print(open_arena_file(True)[1])"
    )
    del fd
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"\n", b"")


def test_a_system_without_user_namespaces() -> None:
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", FORBIDDEN]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.stderr.startswith("unshare:"):
        pytest.skip(f"no user namespaces here: {ended.stderr}")
    assert ended.stdout == "/memfd:mpicluster (deleted); unshare: No space left on device\n", ended


def test_a_child_that_is_ended() -> None:
    """As by a filter of system calls that ends who makes the wrong one (seccomp(2))."""
    command = [sys.executable, "-c", ENDED]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "/memfd:mpicluster (deleted); the child that was to open it ended\n"


def test_pages_that_are_too_huge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    size = tmp_path / "hpage_pmd_size"
    monkeypatch.setattr(arena_file, "_HUGE_PAGE_BYTES", size)
    for text, why in (
        (str(512 << 20), "the kernel's huge pages have 512 MiB"),
        (None, "the kernel has no huge pages"),
    ):
        size.unlink(missing_ok=True)
        if text is not None:
            size.write_text(text)
        fd, reason = open_arena_file(huge_pages=True)
        assert reason == why
        os.close(fd)


def test_who_wants_none_gets_none() -> None:
    fd, reason = open_arena_file(huge_pages=False)
    assert reason == ""
    assert str(Path(f"/proc/self/fd/{fd}").readlink()) == "/memfd:mpicluster (deleted)"
    os.close(fd)
