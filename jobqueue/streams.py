"""What if who calls a program has closed its input, its output or its errors, or they are full?

Where a stream is closed Python has none, and the next file that is opened gets its number, so that
children would write into that.
"""

import os
import sys


def open_closed_streams() -> None:
    """Let closed standard streams lead nowhere, for this process and its children."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:  # each takes the lowest number that is free
        os.set_inheritable(fd, True)
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def abandon_output() -> None:
    """Let what Python still wants to write to standard output go nowhere, without a complaint."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
