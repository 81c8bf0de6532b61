"""What does a worker decide about its memory, and where does it spill?"""

import errno
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from mpicluster import Client, LocalCluster
from mpicluster.config import Config
from mpicluster.serialization.frames import frame_offsets
from mpicluster.worker import memory_watch
from mpicluster.worker import scratch as scratch_module
from mpicluster.worker.arena_file import open_arena_file
from mpicluster.worker.memory import Decision, Usage, decide
from mpicluster.worker.scratch import ScratchFile, choose_folder, open_unnamed, warn_if_unusable
from mpicluster.worker.segments import PAGE, Arena, size_class
from mpicluster.worker.store import LargeValue, Store

CONFIG = Config()


def usage(stored: int = 0, warm: int = 0, rank: int = 0, **slots: int) -> Usage:
    return Usage(stored, warm, rank, {int(name[1:]): size for name, size in slots.items()})


def test_little_memory_asks_for_nothing() -> None:
    assert decide(usage(stored=50, s0=5), 100, CONFIG, paused=False) == Decision()


def test_values_over_the_target_are_spilled() -> None:
    assert decide(usage(stored=70), 100, CONFIG, paused=False).spill == 10


def test_other_memory_over_the_mark_spills_values_too() -> None:
    decision = decide(usage(stored=30, s0=60), 100, CONFIG, paused=False)
    assert decision.spill == 10
    assert decision.paused
    assert decision.end_slot == -1


def test_warm_segments_go_before_values() -> None:
    decision = decide(usage(stored=50, warm=40), 100, CONFIG, paused=False)
    assert decision.trim
    assert decision.spill == 0
    assert not decision.paused


def test_a_paused_worker_goes_on_only_well_below_the_mark() -> None:
    assert decide(usage(rank=78), 100, CONFIG, paused=True).paused
    assert not decide(usage(rank=78), 100, CONFIG, paused=False).paused
    assert not decide(usage(rank=74), 100, CONFIG, paused=True).paused


def test_the_largest_slot_is_ended_when_values_are_not_to_blame() -> None:
    assert decide(usage(rank=5, s0=20, s1=75), 100, CONFIG, paused=True).end_slot == 1
    assert decide(usage(stored=90, rank=5, s0=20), 100, CONFIG, paused=True).end_slot == -1


def test_without_a_limit_nothing_happens() -> None:
    assert decide(usage(stored=10**12), 0, CONFIG, paused=False) == Decision()


MOUNTS = "d / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\nserver:/h /home nfs4 rw 0 0\n"


@pytest.mark.parametrize(
    ("name", "reason"), [("file/below", "Not a directory"), ("file", "Not a directory")]
)
def test_a_folder_for_scratch_that_cannot_be_used_is_named_at_the_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    with LocalCluster(2, 1, scratch=str(tmp_path / name)) as cluster, Client(cluster) as client:
        assert client.submit(abs, -1).result() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("mpicluster: warning: the folder for scratch, ")
    assert f"{name}, cannot be used on {platform.node()}: {reason}. Values that" in line


def test_a_folder_for_scratch_that_can_be_made_is_not_made_before_it_is_needed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "new" / "folder"):
        warn_if_unusable(str(folder), "here")
    warn_if_unusable("", "here")
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []
    warn_if_unusable("/proc/none", "here")
    assert "cannot be used on here" in capfd.readouterr().err


def test_scratch_is_never_a_network_file_system(tmp_path: Path) -> None:
    mounts = MOUNTS + f"server:/x {tmp_path} lustre rw 0 0\n"
    chosen = choose_folder("", {"TMPDIR": str(tmp_path)}, mounts)
    assert chosen == Path("/tmp")
    assert choose_folder("", {"TMPDIR": str(tmp_path)}, MOUNTS) == tmp_path
    assert choose_folder("/anywhere", {}, mounts) == Path("/anywhere")
    assert choose_folder("", {}, "t / tmpfs rw 0 0\n") is None


def put_frames(store: Store, key: int, frames: list[bytes]) -> None:
    """Keep a large value as if it had arrived."""
    extents = [len(frame) for frame in frames]
    offsets, nbytes = frame_offsets(extents)
    segment = store.arena.allocate(nbytes)
    view = segment.view()
    for frame, start in zip(frames, offsets, strict=True):
        view[start : start + len(frame)] = frame
    store.put(key, LargeValue(segment, extents))


def is_on_disk(store: Store, key: int) -> bool:
    value = store.get(key)
    assert isinstance(value, LargeValue)
    return value.segment.arena is store.scratch


def content(store: Store, key: int) -> bytes:
    value = store.get(key)
    assert isinstance(value, LargeValue)
    return bytes(value.segment.view())


def disk_bytes(store: Store) -> int:
    assert store.scratch is not None
    return os.fstat(store.scratch.fd).st_blocks * 512


@pytest.fixture
def store(tmp_path: Path):
    found = Store(Arena(1 << 26, 1 << 24, open_arena_file(True)[0]), lambda: ScratchFile(tmp_path))
    yield found
    found.close()
    found.arena.close()
    assert list(tmp_path.iterdir()) == []


def test_the_longest_unused_value_is_spilled_first(store: Store) -> None:
    for key in (1, 2, 3):
        put_frames(store, key, [b"p", bytes([key]) * 100_000])
    store.get(1)
    assert store.spill(1) == 100_064
    assert [key for key in (1, 2, 3) if is_on_disk(store, key)] == [2]
    assert content(store, 2) == b"p" + bytes(63) + b"\2" * 100_000
    assert store.memory_nbytes == 200_128


def test_a_value_in_use_is_not_spilled(store: Store) -> None:
    put_frames(store, 1, [b"p", bytes(100_000)])
    value = store.get(1)
    assert isinstance(value, LargeValue)
    value.segment.hold()
    assert store.spill(1) == 0
    value.segment.let_go()
    assert store.spill(1) == 100_064


def test_disk_space_of_dropped_values_is_given_back(store: Store) -> None:
    for key in range(4):
        put_frames(store, key, [b"p", bytes([key + 1]) * 100_000])
    store.spill(1 << 30)
    used = disk_bytes(store)
    assert used >= 400_000
    for key in (1, 2):
        store.drop(key)
    assert disk_bytes(store) <= used // 2
    put_frames(store, 4, [b"p", b"\5" * 100_000])
    store.spill(1 << 30)
    for key in (0, 3, 4):
        assert content(store, key)[64:] == bytes([key + 1]) * 100_000
    for key in (0, 3, 4):
        store.drop(key)
    assert disk_bytes(store) == 0


def test_a_spilled_value_in_use_keeps_its_space(store: Store) -> None:
    put_frames(store, 1, [b"p", b"\1" * 100_000])
    store.spill(1)
    value = store.get(1)
    assert isinstance(value, LargeValue)
    value.segment.hold()
    store.drop(1)
    put_frames(store, 2, [b"p", b"\2" * 100_000])
    store.spill(1)
    assert bytes(value.segment.view())[64:] == b"\1" * 100_000
    value.segment.let_go()
    assert content(store, 2)[64:] == b"\2" * 100_000


def test_what_leaves_after_the_end_frees_no_other_file(tmp_path: Path) -> None:
    arena = Arena(1 << 26, 0, open_arena_file(True)[0])
    store = Store(arena, lambda: ScratchFile(tmp_path))
    held = []
    for key in (1, 2):
        put_frames(store, key, [b"p", bytes(100_000)])
        store.spill(key - 1)
        value = store.get(key)
        assert isinstance(value, LargeValue)
        value.segment.hold()
        held.append(value.segment)
    store.close()
    arena.close()
    others = [os.open(tmp_path / f"other{number}", os.O_RDWR | os.O_CREAT) for number in range(4)]
    for other in others:
        os.write(other, b"x" * 300_000)
    for segment in held:
        segment.let_go()
    for other in others:
        assert os.pread(other, 400_000, 0) == b"x" * 300_000
        os.close(other)


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EISDIR])
def test_a_file_system_without_unnamed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    real = os.open

    def without(path: Any, flags: int, *mode: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(error, "no such files")
        return real(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", without)
    fd = open_unnamed(tmp_path)
    os.write(fd, b"value")
    os.close(fd)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_punch_uses_ranges_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_arguments: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "cannot")

    monkeypatch.setattr(scratch_module, "punch_hole", cannot)
    for key in (1, 2):
        put_frames(store, key, [b"p", bytes(100_000)])
    store.spill(1 << 30)
    used = disk_bytes(store)
    for _ in range(3):
        store.drop(2)
        put_frames(store, 2, [b"p", b"\7" * 100_000])
        store.spill(1 << 30)
    assert disk_bytes(store) == used


def test_a_full_disk_loses_nothing(store: Store, tmp_path: Path) -> None:
    put_frames(store, 1, [b"p", bytes(100_000)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{tmp_path}'"):
            store.spill(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not is_on_disk(store, 1)
    assert store.memory_nbytes == 100_064
    assert disk_bytes(store) == 0
    assert store.spill(1) == 100_064


def test_segments_are_given_out_again_when_their_last_user_is_gone() -> None:
    arena = Arena(1 << 26, 1 << 24, open_arena_file(True)[0])
    first = arena.allocate(100_000)
    first.hold()
    first.let_go()
    second = arena.allocate(100_000)
    assert second.offset != first.offset
    first.let_go()
    assert arena.allocate(99_000).offset == first.offset
    arena.close()


def test_freed_pages_beyond_the_cache_go_back_to_the_system() -> None:
    arena = Arena(1 << 26, PAGE, open_arena_file(True)[0])
    segment = arena.allocate(1 << 20)
    segment.view()[:] = b"x" * (1 << 20)
    segment.let_go()
    assert arena.warm_nbytes == 0
    again = arena.allocate(1 << 20)
    assert bytes(again.view()[:4]) == b"\0\0\0\0"
    arena.close()


def test_pages_that_were_freed_last_stay_and_those_of_older_sizes_go() -> None:
    arena = Arena(1 << 26, 5 << 18, open_arena_file(True)[0])
    small, large = arena.allocate(1 << 19), arena.allocate(1 << 20)
    for segment in (small, large):
        segment.view()[:] = b"x" * segment.nbytes
        segment.let_go()
    assert arena.warm_nbytes == 1 << 20
    assert bytes(arena.allocate(1 << 20).view()[:4]) == b"xxxx"
    assert bytes(arena.allocate(1 << 19).view()[:4]) == b"\0\0\0\0"
    arena.close()


def test_more_segments_of_one_size_than_may_stay() -> None:
    arena = Arena(1 << 26, 3 * PAGE, open_arena_file(True)[0])
    segments = [arena.allocate(PAGE) for _ in range(5)]
    offsets = {segment.offset for segment in segments}
    for segment in segments:
        segment.let_go()
    assert arena.warm_nbytes == 3 * PAGE
    assert {arena.allocate(PAGE).offset for _ in range(5)} == offsets
    assert arena.warm_nbytes == 0
    arena.close()


@pytest.mark.parametrize("nbytes", [1, PAGE, PAGE + 1, 10**6, 10**9, 10**10 + 7])
def test_size_classes_waste_at_most_an_eighth(nbytes: int) -> None:
    capacity = size_class(nbytes)
    assert capacity % PAGE == 0
    assert nbytes <= capacity <= max(PAGE, nbytes + nbytes // 8 + PAGE)


def watch_of(
    monkeypatch: pytest.MonkeyPatch, folder: Path, resident: int, own: int
) -> memory_watch.MemoryWatch:
    """Return the watch of a worker with 100 MB whose processes all have the same size."""
    monkeypatch.setattr(memory_watch, "resident_nbytes", lambda _: resident)
    monkeypatch.setattr(memory_watch, "own_nbytes", lambda _: own)
    store = Store(Arena(1 << 26, 1 << 24, open_arena_file(True)[0]), lambda: folder)
    return memory_watch.MemoryWatch(CONFIG, 100_000_000, store)


def test_what_slots_share_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a hundred slots seemed to have all that it had not changed since it was forked."""
    watch = watch_of(monkeypatch, tmp_path, resident=20_000_000, own=600_000)
    assert watch.act(0.0, dict.fromkeys(range(100), 1)) is None
    assert not watch.paused
    assert watch.usage.total == 101 * 600_000


def test_measuring_takes_a_small_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watch_of(monkeypatch, tmp_path, resident=90_000_000, own=1)
    monkeypatch.setattr(memory_watch, "own_nbytes", lambda _: time.sleep(0.01) or 1)
    watch.act(1000.0, {0: 1})
    due = [after for after in (0.05, 0.1, 0.3, 0.39, 60.0) if watch.is_due(1000.0 + after, True)]
    assert due == [60.0]


@pytest.mark.parametrize("waiting", [True, False])
def test_a_paused_worker_that_runs_nothing_becomes_a_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: bool
) -> None:
    """Only more tasks can change anything: those that its own wait for, or users of its values."""
    watch = watch_of(monkeypatch, tmp_path, resident=45_000_000, own=45_000_000)
    found = []
    for now, busy in ((0.0, True), (0.1, False), (0.5, False), (0.7, False), (0.8, True)):
        watch.act(now, {0: 1}, busy, waiting)
        found.append((watch.paused, watch.last_resort))
    assert found == [(True, False)] * 3 + [(True, True)] * 2
    monkeypatch.setattr(memory_watch, "own_nbytes", lambda _: 1)
    watch.act(0.9, {0: 1}, busy=True)
    assert (watch.paused, watch.last_resort) == (False, False)


def test_a_paused_worker_without_tasks_is_measured_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watch_of(monkeypatch, tmp_path, resident=45_000_000, own=45_000_000)
    watch.act(1000.0, {0: 1})
    assert watch.is_due(1000.5, busy=False)


@pytest.mark.parametrize("disk", ["full", "none"])
def test_values_that_cannot_leave_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], disk: str
) -> None:
    watch = watch_of(monkeypatch, tmp_path, resident=1, own=1)

    def open_scratch() -> ScratchFile | None:
        if disk == "full":
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))
        return None

    store = watch._store = Store(Arena(1 << 27, 0, open_arena_file(True)[0]), open_scratch)
    put_frames(store, 1, [b"p", bytes(85_000_000)])
    for now in (0.0, 1.0, 2.0):
        watch.act(now, {0: 1}, busy=False)
    assert (watch.paused, watch.last_resort) == (True, True)
    (line,) = capfd.readouterr().err.splitlines()
    reason = "No space left on device" if disk == "full" else "no local disk was found"
    assert line.startswith("mpicluster: values cannot be moved to scratch: ")
    assert reason in line
    store.close()
    store.arena.close()


def test_a_worker_that_its_own_processes_pause_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    watch = watch_of(monkeypatch, tmp_path, resident=45_000_000, own=45_000_000)
    watch.act(0.0, {0: 1}, busy=True)
    for now in (10.0, 11.0):
        assert watch.act(now, {0: 1}, busy=False) is None
    assert capfd.readouterr().err == ""
    for now in (12.5, 20.0):
        watch.act(now, {0: 1}, busy=False)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "use 90 MB of its memory limit of 100 MB" in lines[0]
