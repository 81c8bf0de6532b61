"""Where on this host may values go that do not fit into memory?

A local disk: the folder that the user or the batch system names, else the system's own. Never a
network file system, where all hosts would spill to the same servers, and never one that is itself
memory.
"""

import errno
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mpicluster.worker.segments import CLOSED, Segment, SegmentFile, punch_hole, size_class

#: Folders that batch systems make for a job on local disks, the most specific first.
FOLDER_VARIABLES: Final = ("SLURM_TMPDIR", "PBS_JOBDIR", "LSF_TMPDIR", "TMPDIR")
#: File systems that other hosts see, and those that live in memory (/proc/mounts).
UNSUITABLE: Final = frozenset({
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "panfs", "pvfs2",
    "fuse.sshfs", "fuse.glusterfs", "9p", "tmpfs", "ramfs",
})  # fmt: skip
_PREFIX: Final = "mpicluster"
#: Bytes written by one system call.
WRITE_BYTES: Final = 1 << 26


def choose_folder(wanted: str, environment: Mapping[str, str], mounts: str) -> Path | None:
    """Return the folder for scratch, None if no disk is suitable.

    `mounts` is the text of /proc/mounts. A folder that the user names is taken as it is.
    """
    if wanted:
        return Path(wanted)
    candidates = [environment[name] for name in FOLDER_VARIABLES if environment.get(name)]
    for candidate in [*candidates, "/tmp", "/var/tmp"]:
        folder = Path(candidate)
        usable = folder.is_dir() and os.access(folder, os.W_OK)
        if usable and file_system(folder, mounts) not in UNSUITABLE:
            return folder
    return None


def file_system(folder: Path, mounts: str) -> str:
    """Return the type of the file system that a folder lies on.

    >>> file_system(Path("/data/x"), "disk / ext4 rw 0 0\\nserver:/d /data nfs rw 0 0")
    'nfs'
    """
    best, kind = "", ""
    for line in mounts.splitlines():
        words = line.split()
        point = words[1].replace("\\040", " ")
        inside = folder == Path(point) or Path(point) in folder.parents
        if inside and len(point) >= len(best):
            best, kind = point, words[2]
    return kind


class ScratchFile(SegmentFile):
    """The values of one worker that are on disk, as segments of one file.

    The file has no name, so the system removes it with the last process that has it open, however
    that ends. It is sparse: the space of a segment is given back when nobody uses it any more.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(open_unnamed(folder))
        self.folder = folder
        #: {capacity: [offset, ...]} of free ranges; classes of sizes, as in the arena.
        self._free: dict[int, list[int]] = defaultdict(list)
        self._end = 0
        #: How many segments are in use.
        self._used = 0

    def write(self, source: memoryview) -> Segment:
        """Return a segment with a copy of these bytes."""
        segment = self._allocate(len(source))
        position = 0
        try:
            while position < len(source):
                part = source[position : position + WRITE_BYTES]
                position += os.pwrite(self.fd, part, segment.offset + position)
        except OSError as error:
            segment.let_go()
            raise OSError(error.errno, error.strerror, str(self.folder)) from error
        return segment

    def _allocate(self, nbytes: int) -> Segment:
        capacity = size_class(nbytes)
        ranges = self._free.get(capacity)
        if ranges:
            offset = ranges.pop()
        else:
            offset = self._end
            self._end += capacity
        self._used += 1
        return Segment(self, offset, capacity, nbytes)

    def free(self, segment: Segment) -> None:
        """Give the disk space of a segment back."""
        if self.fd == CLOSED:
            return
        self._used -= 1
        if not self._used:
            os.truncate(self.fd, 0)
            self._free.clear()
            self._end = 0
            return
        self._free[segment.capacity].append(segment.offset)
        try:
            punch_hole(self.fd, segment.offset, segment.capacity)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            # This file system cannot: the range is used again for the next value of its size.


def open_unnamed(folder: Path) -> int:
    """Return a file in a folder that no other process can find by a name."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # Some file systems cannot; EISDIR: nor does the system know the flag (open(2)).
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    fd, path = tempfile.mkstemp(prefix=f"{_PREFIX}-", dir=folder)
    Path(path).unlink()
    return fd


def why_unusable(folder: Path) -> str:
    """Return why nothing can be written into a folder, "" if something can; nothing is left there.

    A worker makes what is missing of it, so the nearest folder that exists decides.
    """
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(folder)) as file:
            file.write(b"mpicluster")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def nearest_folder(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())


def warn_if_unusable(named: str, host: str) -> None:
    """Say at once that a folder which the user names will take no values."""
    reason = why_unusable(Path(named)) if named else ""
    if reason:
        print(
            f"mpicluster: warning: the folder for scratch, {named}, cannot be used on {host}: "
            f"{reason}. Values that do not fit will stay in memory, so tasks may have to run one "
            "after another; name another folder with --scratch, on a local disk.",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def open_scratch(wanted: str) -> ScratchFile | None:
    """Return a new file for values, in the folder that is `wanted`; None if no disk is suitable."""
    folder = choose_folder(wanted, os.environ, Path("/proc/mounts").read_text())
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return ScratchFile(folder)
