"""How does an exception get from the task that raised it to the future?

It keeps its type, its message and its traceback. What cannot be pickled, or not be rebuilt at the
other end, arrives as a `RemoteTaskError` with the same text.
"""

import os
import pickle
import sys
import traceback
from typing import Any

from tblib import Traceback

from mpicluster.errors import BY_NAME, RemoteTaskError
from mpicluster.messages import ErrorColumns
from mpicluster.serialization.frames import dumps, loads

#: A longer message is cut: it is for people.
TEXT_MAX = 100_000


def to_error(error: BaseException, rank: int, host: str) -> ErrorColumns:
    """Return what travels of an exception that a task raised."""
    if isinstance(error, SystemExit):
        error = _as_ordinary(error, f"The task called sys.exit({error.code!r})")
    elif not isinstance(error, Exception):
        error = _as_ordinary(error, f"The task raised {type(error).__name__}")
    trace = error.__traceback__
    text = "".join(traceback.format_exception(error))[-TEXT_MAX:]
    return [
        _pickled(error), type(error).__name__, str(error)[:TEXT_MAX], _pickled_trace(trace), text,
        rank, host,
    ]  # fmt: skip


def from_error(columns: ErrorColumns, key: str = "") -> BaseException:
    """Return an exception to raise, with its traceback and a note on where it was raised."""
    pickled, name, text, pickled_trace, trace_text, rank, host = columns
    error: BaseException | None = None
    if pickled:
        try:
            loaded = loads(pickled)
        except Exception:  # noqa: BLE001  (anything may go wrong in a foreign __init__)
            loaded = None
        if isinstance(loaded, BaseException):
            error = loaded
    if error is None and name in BY_NAME:
        error = BY_NAME[name](text)
    if error is None:
        error = RemoteTaskError(f"{name}: {text}\n\n{trace_text}")
    if rank >= 0:
        error.add_note(f"The task {key or '(unnamed)'} raised this on rank {rank} ({host}).")
    trace = trace_from(pickled_trace)
    return error.with_traceback(trace) if trace is not None else error


def trace_from(pickled_trace: bytes) -> Any:
    """Return the traceback object, or None if there is none."""
    if not pickled_trace:
        return None
    return Traceback.from_dict(loads(pickled_trace)).as_traceback()


def _as_ordinary(error: BaseException, text: str) -> Exception:
    """Return an error that does not end the script when a future raises it there."""
    ordinary = RemoteTaskError(f"{text}; a task must return or raise an ordinary exception.")
    return ordinary.with_traceback(error.__traceback__)


def _pickled(error: BaseException) -> bytes:
    try:
        content = dumps(error)
        pickle.loads(content)
    except Exception:  # noqa: BLE001
        return b""
    return content


def _pickled_trace(trace: Any) -> bytes:
    """Return the frames of the user's code: those of this package tell nobody anything."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    while trace is not None and trace.tb_next is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(package):
            break
        trace = trace.tb_next
    if trace is None:
        return b""
    try:
        return dumps(Traceback(trace).to_dict())
    except Exception:  # noqa: BLE001
        print("mpicluster: a traceback cannot be sent; its text is.", file=sys.stderr)
        return b""
