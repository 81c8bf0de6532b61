"""How does a Python function become a job, and how does its result come back?

The function travels as a file in the job's folder, next to a small script that runs it; the result,
or the exception with its traceback, returns the same way. This file must never leave a caller
without an answer: what cannot be pickled becomes an error that says so.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobqueue.errors import JobFailed, RemoteTraceback, SpecError
from jobqueue.folder import JobFolder, suffix

FUNCTION = "function.pkl"
RUNNER = "run_function.py"

_SCRIPT = '''"""Runs the function stored beside this file, and stores its result there."""

import sys

for folder in {folders!r}:
    if folder not in sys.path:
        sys.path.append(folder)

from jobqueue.functions import run_stored_function

sys.exit(run_stored_function({path!r}))
'''


@dataclass(frozen=True, slots=True)
class StoredResult:
    """What a function left: a value, or an exception and the text of its traceback, or neither."""

    returned: Any = None
    exception: BaseException | None = None
    traceback: str = ""
    #: the exit status of a function that left by `sys.exit` and so returned nothing
    left_with: int | None = None

    def value(self, job_id: str) -> Any:
        """Return the value or raise the exception, which then has its remote traceback as cause."""
        if self.left_with is not None:
            raise JobFailed(
                f"The function of job {job_id} left by sys.exit with status {self.left_with}, so "
                "there is no result. Let it return a value.",
                job_id=job_id,
                exit_status=self.left_with,
            )
        if self.exception is None:
            return self.returned
        raise self.exception from RemoteTraceback(self.traceback)


def pack_function(function: Callable[..., object], arguments: Sequence[Any]) -> bytes:
    """Return a function and its arguments as bytes; raise `SpecError` if they cannot be."""
    import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps((function, tuple(arguments)))
    except Exception as error:
        raise SpecError(
            f"The function {_name(function)} and its arguments cannot be sent to a job: "
            f"{type(error).__name__}: {error}. Open files, locks and connections cannot travel: "
            "open them inside the function."
        ) from error
    return packed


def store_function(folder: JobFolder, packed: bytes) -> None:
    """Write the function and the script that runs it into the job's folder."""
    folder.write(FUNCTION, packed)
    # The job must find what the caller can import: this package and the modules next to the
    # caller's script.
    here = str(Path(__file__).resolve().parent.parent)
    folders = [str(Path(one).resolve()) for one in (*sys.path, here) if not one.endswith(".zip")]
    folder.write(RUNNER, _SCRIPT.format(folders=folders, path=str(folder.path)).encode())


def run_stored_function(path: str) -> int:
    """Run a job's function, store what comes of it, and return the job's exit status."""
    folder = JobFolder(Path(path))
    index = os.environ.get("JOBQUEUE_ARRAY_INDEX")
    name = f"result{suffix(int(index) if index else None)}.pkl"
    try:
        function, arguments = pickle.loads((folder.path / FUNCTION).read_bytes())
        result = StoredResult(returned=function(*arguments))
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            sys.stderr.write(leaving.code + "\n")
        status = _status(leaving)
        folder.write(name, _pack(StoredResult(left_with=status)))
        return status
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - all of it goes back
        text = traceback.format_exc()
        sys.stderr.write(text)
        if isinstance(error, KeyboardInterrupt):  # who asks for the result was not interrupted
            told: BaseException = InterruptedError("The function was interrupted in its job.")
        else:
            told = error
        folder.write(name, _pack(StoredResult(exception=told, traceback=text)))
        return 1
    packed = _pack(result)
    folder.write(name, packed)
    return 0 if pickle.loads(packed).exception is None else 1


def _status(error: SystemExit) -> int:
    """Return the exit status that Python would give for this `sys.exit`."""
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def _pack(result: StoredResult) -> bytes:
    """Return a result as bytes which are known to be readable; what is not becomes an error that
    says so.
    """
    import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps(result)
        pickle.loads(packed)
    except Exception as error:  # noqa: BLE001 - pickling runs code of any kind
        text = result.traceback or traceback.format_exc()
        what = "exception" if result.exception is not None else "result"
        told = result.exception if result.exception is not None else result.returned
        message = (
            f"The function's {what} of type {type(told).__name__} cannot be sent back: "
            f"{type(error).__name__}: {error}. {_told(result)}Return what can be pickled, such as "
            "numbers, texts, arrays and tables."
        )
        return cloudpickle.dumps(StoredResult(exception=TypeError(message), traceback=text))  # type: ignore[no-any-return]
    return packed


def _told(result: StoredResult) -> str:
    if result.exception is None:
        return ""
    with contextlib.suppress(Exception):
        return f"It said: {result.exception}. "
    return ""


def load_result(folder: JobFolder, index: int | None, patience_s: float) -> StoredResult | None:
    """Return what a function left, or None; wait so long for a file that a network file system may
    still hide.
    """
    path = folder.path / f"result{suffix(index)}.pkl"
    deadline = time.monotonic() + patience_s
    while not path.exists():
        if not (folder.path / FUNCTION).exists() or time.monotonic() >= deadline:
            return None
        folder.roles()  # reading a folder makes a network file system look for new files
        time.sleep(0.1)
    try:
        result = pickle.loads(path.read_bytes())
    except Exception as error:
        raise JobFailed(
            f"The result of the job in {folder.path} is there but cannot be read here: "
            f"{type(error).__name__}: {error}. Read it with the Python and the packages that the "
            "job had.",
            job_id=str(folder.read_record().get("job_id", "")),
            exit_status=None,
        ) from error
    assert isinstance(result, StoredResult)
    return result


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", function))
