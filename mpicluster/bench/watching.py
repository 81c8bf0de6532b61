"""How is a contender started, watched, shown and, if it hangs, ended?"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

#: How lines about figures begin; the others are shown only when a contender fails.
NAMES: Final = ("mpicluster", "raw MPI", "dask-mpi", "mpi4py.futures", "Ray", "Parsl")
#: Lines that are shown when a contender fails.
LAST_LINES: Final = 15
#: Time to end in order before it is killed.
END_S: Final = 10.0


class Watcher:
    """Shows how far the run is: a moving line in a terminal, plain lines elsewhere."""

    def __init__(self, contenders: int) -> None:
        self._contenders = contenders
        self._number = 0
        self._name = ""
        self._started = time.monotonic()
        self._status: Any = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()

    def begin(self, name: str) -> None:
        """A contender begins."""
        self._number += 1
        self._name = name
        self._show(f"--- {name} ({self._number} of {self._contenders})")

    def line(self, text: str) -> None:
        """A contender has printed a line."""
        self._show(text)

    def _show(self, text: str) -> None:
        passed = time.monotonic() - self._started
        if self._status is None:
            print(f"{passed:6.0f} s  {text}", file=sys.stderr, flush=True)
            return
        self._status.console.print(text, markup=False, highlight=False)
        self._status.update(f"{self._name} ({self._number} of {self._contenders}), {passed:.0f} s")

    def close(self) -> None:
        """Take the moving line away."""
        if self._status is not None:
            self._status.stop()


def run_and_watch(
    command: Sequence[str], seconds_max: float, watcher: Watcher, folder: str
) -> str:
    """Run a command, showing what it says on stderr; return what went wrong, or ""."""
    process = start(command, subprocess.DEVNULL, subprocess.PIPE, folder)
    timer = threading.Timer(seconds_max, end, [process])
    timer.start()
    last: list[str] = []
    assert process.stderr is not None
    try:
        for line in process.stderr:
            text = line.rstrip()
            if text.startswith(NAMES):
                watcher.line(text)
            last = [*last[-LAST_LINES:], text]
        status = process.wait()
        timed_out = not timer.is_alive()
    finally:
        timer.cancel()
        end(process)
    if timed_out:
        return f"ended after {seconds_max:.0f} s, without having finished"
    if status:
        for text in last:
            watcher.line(f"    {text}")
        return f"ended with status {status}" + (f": {last[-1].strip()}" if last else "")
    return ""


def start(
    command: Sequence[str], stdout: int, stderr: int, folder: str
) -> "subprocess.Popen[str]":
    """Start a command in a process group of its own; its temporary files go to a folder."""
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": folder, "RAY_TMPDIR": folder},
    )  # fmt: skip


def end(process: "subprocess.Popen[str]") -> None:
    """End what is left of a command and of what it has started in its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + END_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
