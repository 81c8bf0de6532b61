"""What do people see in a terminal? With a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from jobqueue import Local

ROOT = Path(__file__).resolve().parents[2]


def test_waiting_shows_one_line_that_changes(local: Local) -> None:
    job = local.submit_command_line(
        ["bash", "-c", "until [ -e go ]; do sleep 0.05; done; exit 4"], name="[bold]odd"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobqueue", "wait", job.id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
            if b"1 running" in shown:
                Path("go").touch()
    except OSError:  # how Linux says that the terminal was left
        pass
    os.close(ours)
    assert process.communicate(timeout=20)[0] == b""
    assert process.returncode == 4
    text = shown.decode()
    assert f"job {job.id}: 1 running (0 s) on localhost" in text
    assert "did not complete: its state is failed, with exit status 4." in text


def test_a_narrow_table_keeps_what_one_types_again(local: Local) -> None:
    """At 80 columns a long name once cut the ids, and the remark to a word per line."""
    name = "a_rather_long_name_" * 3
    job = local.submit_command_line(["sleep", "60"], name=name)
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "jobqueue", "status"],
        stdout=theirs,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "80"},
        check=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # how Linux says that the terminal was left
        pass
    os.close(ours)
    job.cancel()
    job.wait(20)
    _, row = shown.decode().splitlines()
    assert row.split()[:2] == [job.id, "local"]
    assert "a_rather_long" in row
    assert row.split()[-3:] == ["running", "on", "localhost"]
