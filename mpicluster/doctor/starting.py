"""What do ranks find that the doctor itself starts, and what if they do not answer?

Runs the launcher's command to its end, or ends it when its time is over, and reads the report that
rank 0 prints.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from mpicluster.doctor.findings import Finding, Level
from mpicluster.doctor.report import from_json
from mpicluster.doctor.silence import ending, launcher_failed, launcher_too_late
from mpicluster.doctor.supervision import leaving_in_order

#: A launcher that is told to end has this long to end its ranks.
END_S: Final = 5.0


def ask_ranks(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> list[Finding]:
    """Start the ranks and return what they found, or what is to be said if they did not."""
    stdout, stderr, late = "", "", False
    with leaving_in_order():
        # A process group of its own: whatever the launcher starts on this host ends with it.
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            if process.returncode is None:
                stdout, stderr = _end(process)
    found = read_report(stdout)
    words = shlex.join(command)
    if found is None and late:
        return [launcher_too_late(words, timeout_s, stderr or stdout)]
    if found is None:
        how = ending(process.returncode)
        return [launcher_failed(words, how, stderr or stdout)]
    if process.returncode and all(finding.level is not Level.PROBLEM for finding in found):
        how = ending(process.returncode)
        found.append(launcher_failed(words, f"after the report, {how}", stderr))
    if any(finding.level is Level.PROBLEM for finding in found):
        # What MPI and the launcher say of it; where all is well it would be noise.
        sys.stderr.write(stderr)
    return found


def read_report(text: str) -> list[Finding] | None:
    """Return the report in what a launcher has printed, None if there is none."""
    start = text.find("{")
    while start >= 0:
        with suppress(json.JSONDecodeError):
            content, _ = json.JSONDecoder().raw_decode(text, start)
            if isinstance(content, dict) and "findings" in content:
                return from_json(content)
        start = text.find("{", start + 1)
    return None


def _end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """End a launcher and its ranks; return what they had printed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=END_S)
    return "", ""
