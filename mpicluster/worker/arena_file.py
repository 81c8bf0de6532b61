"""Which file do the pages of an arena belong to?

A file in memory without a name. Whether it can have huge pages is a matter of the file system that
it lies in: that of memfd_create(2) is the kernel's own, and on most systems set to small pages, but
a process may mount one with huge pages (tmpfs(5), huge=) for itself, if it does so in namespaces
of its own (user_namespaces(7), mount_namespaces(7)). A child does that and sends the open file; the
namespaces go with the child, the file stays. Where the system forbids it, it is memfd_create.

This file is also a program, `arena_file.py DESCRIPTOR`: where a process has threads, its child must
not be a mere fork.
"""

import ctypes
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

#: unshare(2).
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
#: Larger ones, as with basic pages of 64 KiB, would be given to the smallest of values.
_HUGE_PAGE_BYTES_MAX: Final = 4 << 20
_HUGE_PAGE_BYTES: Final = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
#: Where the child, and nobody else, sees its file system.
_POINT: Final = "/tmp"
_ANSWER_BYTES_MAX: Final = 1000
#: Of `st_blocks` (stat(2)).
_BLOCK_BYTES: Final = 512


def open_arena_file(huge_pages: bool) -> tuple[int, str]:
    """Return the descriptor of a new file in memory, and why it has no huge pages, "" if it has
    some or was to have none.
    """
    reason = ""
    if huge_pages:
        fd, reason = _from_child()
        if not reason:
            return fd, ""
    return os.memfd_create("mpicluster", os.MFD_CLOEXEC), reason


def _from_child() -> tuple[int, str]:
    """Return the descriptor of a file with huge pages, or why there is none."""
    try:
        size = int(_HUGE_PAGE_BYTES.read_text())
    except (OSError, ValueError):
        return -1, "the kernel has no huge pages"
    if size > _HUGE_PAGE_BYTES_MAX:
        return -1, f"the kernel's huge pages have {size >> 20} MiB"
    try:
        fd, reason = _ask_child()
    except OSError as error:
        return -1, f"no child can be started: {error.strerror}"
    if reason:
        return -1, reason
    try:
        reason = _try_file(fd, size)
    except OSError as error:
        reason = f"its file cannot be used: {error.strerror}"
    if reason:
        os.close(fd)
    return fd, reason


def _ask_child() -> tuple[int, str]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _run_child(theirs)
        theirs.close()
        answer, fds, _, _ = socket.recv_fds(ours, _ANSWER_BYTES_MAX, 1)
    if not fds:
        return -1, answer.decode() or "the child that was to open it ended"
    os.set_inheritable(fds[0], False)
    return fds[0], ""


def _run_child(answers: socket.socket) -> None:
    """Have a child send its answer and end."""
    threads = list(Path("/proc/self/task").iterdir())
    if len(threads) > 1 or "mpi4py.MPI" in sys.modules:  # MPI may have registered memory
        command = [sys.executable, "-I", "-S", __file__, str(answers.fileno())]
        subprocess.run(command, pass_fds=[answers.fileno()], check=False)
        return
    pid = os.fork()
    if not pid:
        _be_child(answers)
    with suppress(ChildProcessError):  # where SIGCHLD is ignored
        os.waitpid(pid, 0)


def _try_file(fd: int, huge_page_bytes: int) -> str:
    """Return why a file cannot be an arena's, "" if it can."""
    from mpicluster.worker.segments import punch_hole  # not there in the program that this is too

    os.truncate(fd, 2 * huge_page_bytes)
    os.pwrite(fd, b"x", 0)
    given = os.fstat(fd).st_blocks * _BLOCK_BYTES
    punch_hole(fd, 0, huge_page_bytes // 2)
    left = os.fstat(fd).st_blocks * _BLOCK_BYTES
    if given >= huge_page_bytes and left > huge_page_bytes // 2:
        return "the kernel takes nothing less than a huge page back"
    os.truncate(fd, 0)
    try:  # as slots do, by a way that leads to no mount they see
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"it cannot be opened again: {error.strerror}"
    return ""


def _be_child(answers: socket.socket) -> NoReturn:
    """Send the file, or what tells why there is none, and end."""
    try:
        try:
            fd = _open_on_own_file_system()
        except OSError as error:
            answers.send(f"{error.filename}: {error.strerror}".encode())
        except Exception as error:  # noqa: BLE001  (whatever it is, there is another file)
            answers.send(f"{type(error).__name__}: {error}".encode()[:_ANSWER_BYTES_MAX])
        else:
            socket.send_fds(answers, [b"file"], [fd])
    finally:
        os._exit(0)


def _open_on_own_file_system() -> int:
    user, group = os.getuid(), os.getgid()
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
    # Only for whom the namespace knows can files be made in it.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    # As large as memory permits, as the file of memfd_create is.
    _call("mount", b"mpicluster", _POINT.encode(), b"tmpfs", 0, b"size=0,mode=700,huge=always")
    return os.open(_POINT, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _call(name: str, *arguments: int | bytes) -> None:
    """Call a function of the C library; raises OSError that names it."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


if __name__ == "__main__":
    _be_child(socket.socket(fileno=int(sys.argv[1])))
