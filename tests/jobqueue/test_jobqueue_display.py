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
