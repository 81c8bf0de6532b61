"""Where does what tasks print go?

To where their worker prints, and in a batch job that has a folder (`jobqueue` names it) to a log of
that worker there: the output of a thousand workers in one file helps nobody. Called in slots alone,
so that sentences of workers and of the MPI library stay where the launcher takes them.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mpicluster.ids import Rank

_FOLDER = "JOBQUEUE_FOLDER"
_INDEX = "JOBQUEUE_ARRAY_INDEX"


def worker_log(rank: Rank, environment: Mapping[str, str]) -> Path | None:
    """Return the log of a worker, None where none is wanted.

    >>> worker_log(3, {"JOBQUEUE_FOLDER": "/jobs/fit-1", "JOBQUEUE_ARRAY_INDEX": "7"})
    PosixPath('/jobs/fit-1/worker-3-7.log')
    """
    if not environment.get(_FOLDER):
        return None
    index = environment.get(_INDEX)
    return Path(environment[_FOLDER]) / f"worker-{rank}{f'-{index}' if index else ''}.log"


def divert_output(rank: Rank, environment: Mapping[str, str]) -> None:
    """Let this process, and those that it starts, print to the worker's log; where that cannot be
    written, nothing changes.
    """
    path = worker_log(rank, environment)
    if path is None:
        return
    try:
        # Several slots write to one file: each line goes to its end.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
