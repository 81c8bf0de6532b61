"""How does the user's script run on rank 1, and how does it end?

As under plain Python: its threads are waited for, its exit functions run, its exit status is the
job's. Only that there are other ranks, which end with it.
"""

import atexit
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from mpicluster.cluster.base import current_job
from mpicluster.cluster.job import JobOptions, start
from mpicluster.cluster.launched import SPEAKS
from mpicluster.cluster.leaving import end_now, say


class Terminated(SystemExit):
    """The batch system or the launcher ends the job."""


#: What rank 1 says of it, unless it has been started by `mpicluster run`, which says so itself.
TOLD_TO_END = (
    b"mpicluster: the job was told to end by SIGTERM: it was cancelled, or its time limit has "
    b"come.\n"
)


def _terminate(number: int, _frame: FrameType | None) -> None:
    job = current_job()
    if job is not None and job.connect().forked:  # the script's own process is not meant
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    signal.signal(number, signal.SIG_IGN)
    if SPEAKS not in os.environ:
        os.write(2, TOLD_TO_END)  # not by sys.stderr, which the script may be using just now
    raise Terminated(128 + number)


def run_script(script: str, arguments: Sequence[str], options: JobOptions) -> int:
    """Run a script as `python script arguments` would, on a cluster; return its exit status."""
    folder = str(Path(script).resolve().parent)
    job = start(options, [folder], Path(script).read_text(errors="replace"))
    sys.argv = [script, *arguments]
    sys.path[0:0] = [folder]
    if job is not None:
        signal.signal(signal.SIGTERM, _terminate)
    status = _run_to_status(partial(runpy.run_path, script, run_name="__main__"))
    if job is None:
        return status
    status = _run_to_status(_end_threads) or status
    if job.connect().forked:
        _leave_at_once(status)
    atexit._run_exitfuncs()  # noqa: SLF001  (those of the script may use the cluster)
    job.finishes_forgotten = status == 0
    job.end(status)
    return status


def _end_threads() -> None:
    """Wait for the script's threads as the interpreter does at its end, while there is a cluster.

    Threads of executors end only when they are told to.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001


def _run_to_status(part: Callable[[], object]) -> int:
    """Run a part of the script; return the exit status that its end means."""
    try:
        part()
    except Terminated as ended:
        _leave_at_once(int(ended.code or 1))
    except SystemExit as ended:
        return _exit_status(ended.code)
    except KeyboardInterrupt:
        if SPEAKS not in os.environ:
            say("interrupted by Ctrl-C or SIGINT.")
        return 130
    except BaseException as error:  # noqa: BLE001  (as the interpreter does)
        _print_traceback(type(error), error, error.__traceback__)
        return 1
    return 0


def _exit_status(code: object) -> int:
    """Return the status that `sys.exit(code)` means (sys.exit's documentation)."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr, flush=True)
    return 1


def _leave_at_once(status: int) -> NoReturn:
    """End this rank now: the others have been told to end as well and will not answer."""
    atexit._run_exitfuncs()  # noqa: SLF001  (what the user registered must run)
    end_now(status)


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a traceback without the frames of this package and of runpy."""
    here = {__file__, runpy.__file__, "<frozen runpy>"}
    while trace is not None and trace.tb_frame.f_code.co_filename in here:
        trace = trace.tb_next
    sys.stdout.flush()
    traceback.print_exception(kind, error, trace)
    sys.stderr.flush()


def initialize(
    slots: int | None = None,
    memory_limit: str | float | None = None,
    resources: dict[str, float] | None = None,
    **settings: Any,
) -> bool:
    """Turn `mpirun -n N python script.py` into a cluster: call it before anything else.

    On rank 1 it returns True and the script goes on; the other ranks play their roles and leave
    here. Without a launcher it returns False, and `Client()` starts a LocalCluster. `slots`,
    `memory_limit` (bytes, or like "16GB"; None, 0 and "auto" mean an even share of all memory) and
    `resources` are those of each worker, other arguments are settings of `Config`. In a script that
    `mpicluster run` has started, or called again, it changes nothing and returns True.

    >>> import mpicluster
    >>> mpicluster.initialize(slots=4, memory_limit="16GB")  # doctest: +SKIP
    >>> client = mpicluster.Client()  # doctest: +SKIP
    """
    if current_job() is not None:
        return True
    options = JobOptions(slots, memory_limit, dict(resources or {}), settings)
    script = Path(sys.argv[0])
    text = script.read_text(errors="replace") if script.is_file() else ""
    job = start(options, [str(script.resolve().parent)] if text else [], text)
    if job is None:
        return False
    signal.signal(signal.SIGTERM, _terminate)
    atexit.register(job.end)
    return True
