"""Does the process that waits for a launcher pass signals on and leave with the right status?"""

import os
import signal
import subprocess
import sys
import time

import pytest

WAIT = """
import os, sys
from mpicluster.cluster.launched import run_launcher
sys.exit(run_launcher(sys.argv[1:], os.environ))
"""
#: Says that it runs, then what it is told, and ends with status 5 on SIGTERM.
LAUNCHER = "trap 'echo got USR1' USR1; trap 'exit 5' TERM; echo runs; while :; do sleep 0.05; done"


def waiting(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WAIT, *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip


@pytest.mark.parametrize("status", [0, 3])
def test_the_status_is_the_launchers(status: int) -> None:
    process = waiting("/bin/sh", "-c", f"exit {status}")
    assert (process.wait(30), process.communicate()[1]) == (status, "")


def test_a_launcher_that_is_killed_counts_as_failed() -> None:
    process = waiting("/bin/sh", "-c", "kill -KILL $$")
    assert process.wait(30) == 128 + signal.SIGKILL


def test_a_launcher_that_cannot_be_started() -> None:
    process = waiting("/no/such/mpirun")
    assert process.wait(30) == 127
    assert "/no/such/mpirun cannot be started" in process.communicate()[1]


def test_signals_are_passed_on_and_the_one_that_ends_the_job_is_named() -> None:
    process = waiting("/bin/sh", "-c", LAUNCHER)
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "got USR1\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    sentence = process.communicate()[1]
    assert sentence.startswith("mpicluster: the job was told to end by SIGTERM"), sentence


def test_a_launcher_that_says_0_when_the_job_was_interrupted_is_not_believed() -> None:
    """Hydra may say so when Ctrl-C has reached its own processes too."""
    process = waiting("/bin/sh", "-c", LAUNCHER.replace("exit 5", "exit 0"))
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM


def test_the_launcher_does_not_outlive_who_waits_for_it() -> None:
    process = waiting("/bin/sh", "-c", "echo $$; while :; do sleep 0.05; done")
    assert process.stdout is not None
    launcher = int(process.stdout.readline())
    process.kill()
    process.wait(30)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    os.kill(launcher, signal.SIGKILL)
    pytest.fail("The launcher still runs.")
