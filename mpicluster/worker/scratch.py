"""Where on this host may values go that do not fit into memory?

A local disk: the folder that the user or the batch system names, else the system's own. Never a
network file system, where all hosts would spill to the same servers, and never one that is itself
memory.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: Folders that batch systems make for a job on local disks, the most specific first.
FOLDER_VARIABLES: Final = ("SLURM_TMPDIR", "PBS_JOBDIR", "LSF_TMPDIR", "TMPDIR")
#: File systems that other hosts see, and those that live in memory (/proc/mounts).
UNSUITABLE: Final = frozenset({
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "panfs", "pvfs2",
    "fuse.sshfs", "fuse.glusterfs", "9p", "tmpfs", "ramfs",
})  # fmt: skip
_PREFIX: Final = "mpicluster"
#: Folders that this process has made.
_made: list[Path] = []


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


def make_scratch(wanted: str, rank: int) -> Path | None:
    """Return a new folder of this rank, and remove those of ranks that ended without doing so."""
    parent = choose_folder(wanted, os.environ, Path("/proc/mounts").read_text())
    if parent is None:
        return None
    for old in parent.glob(f"{_PREFIX}-{os.getuid()}-*"):
        pid = old.name.split("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = parent / f"{_PREFIX}-{os.getuid()}-{os.getpid()}-{rank}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _made.append(folder)
    return folder


def remove_scratch() -> None:
    """Remove the folders of this rank, which is about to end by force."""
    for folder in _made:
        shutil.rmtree(folder, ignore_errors=True)
