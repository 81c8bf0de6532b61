"""How long is it from launch to the first result?"""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mpicluster.bench.catalogue import LAUNCH
from mpicluster.bench.rows import Row
from mpicluster.bench.watching import Watcher, end, start

#: Ranks by level.
RANKS: Final = {"tiny": (3,), "quick": (4,), "all": (4, 16, 64)}
RUNS: Final = 3
#: A launch that has no result after this time is ended.
SECONDS_MAX: Final = 180.0
SCRIPT: Final = """\
from mpicluster import Client

with Client() as client:
    print(client.submit(str, "first result").result(), flush=True)
"""


def measure_launches(
    contender: str, ranks: Sequence[int], watcher: Watcher, folder: str
) -> list[Row]:
    """Return a row per number of ranks: seconds from the command to the printed result."""
    rows = []
    script = Path(folder) / "first_result.py"
    script.write_text(SCRIPT)
    for count in ranks:
        command = _command(contender, count, script)
        values: list[float] = []
        note = ""
        for _ in range(RUNS if len(ranks) > 1 else 1):
            seconds = _seconds_to_result(command, folder)
            if seconds is None:
                note = f"failed: no result within {SECONDS_MAX:.0f} s"
                break
            values.append(seconds)
        row = Row(contender, LAUNCH, count, "s", values, note, "ranks")
        watcher.line(f"{contender}: launch, {count} ranks: {row.note or f'{row.median:.2f} s'}")
        rows.append(row)
        if note:
            break
    return rows


def _command(contender: str, ranks: int, script: Path) -> list[str]:
    if contender == "mpicluster":
        return [sys.executable, "-m", "mpicluster", "run", "-n", str(ranks), str(script)]
    from mpicluster.bench.contenders import CONTENDERS, command_of

    found = next(found for found in CONTENDERS if found.name == contender)
    workers = ranks - (found.other_ranks or 0)
    return command_of(found, workers, ["--first-result", "--json", "unused"])


def _seconds_to_result(command: Sequence[str], folder: str) -> float | None:
    """Return the time until the command prints its line, None if it does not."""
    begin = time.perf_counter()
    process = start(command, subprocess.PIPE, subprocess.DEVNULL, folder)
    timer = threading.Timer(SECONDS_MAX, end, [process])
    timer.start()
    seconds = None
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.strip() == "first result":
                seconds = time.perf_counter() - begin
        process.wait()
    finally:
        timer.cancel()
        end(process)
    return seconds
