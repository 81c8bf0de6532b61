"""How does an exception get from the task that raised it to the future?

It keeps its type, its message, its attributes, what caused it, and its traceback. What cannot be
pickled, or not be rebuilt at the other end, arrives as a `RemoteTaskError` with the same text.
"""

import os
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

from tblib import Traceback

from mpicluster.errors import BY_NAME, RemoteTaskError
from mpicluster.messages import ErrorColumns
from mpicluster.serialization.frames import dumps, loads

#: A longer message is cut: it is for people.
TEXT_MAX = 100_000
#: So many exceptions travel of those that led to one.
CHAIN_MAX = 5
#: A longer traceback, as of endless recursion, travels as text only.
FRAMES_MAX = 200


def to_error(error: BaseException, rank: int, host: str) -> ErrorColumns:
    """Return what travels of an exception that a task raised; nothing in it can make this fail."""
    try:
        return _to_error(error, rank, host)
    except Exception as problem:  # noqa: BLE001  (its text, its pickling are the user's code)
        text = f"its text cannot be shown ({type(problem).__name__})"
        return [b"", type(error).__name__, text, b"", "", rank, host]


def _to_error(error: BaseException, rank: int, host: str) -> ErrorColumns:
    if isinstance(error, SystemExit):
        error = _as_ordinary(error, f"The task called sys.exit({error.code!r})")
    elif not isinstance(error, Exception):
        error = _as_ordinary(error, f"The task raised {type(error).__name__}")
    trace = error.__traceback__
    text = "".join(traceback.format_exception(error))[-TEXT_MAX:]
    return [
        _pickled(error, CHAIN_MAX), type(error).__name__, _clean(_text_of(error)[:TEXT_MAX]),
        _pickled_trace(trace), _clean(text), rank, host,
    ]  # fmt: skip


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:  # noqa: BLE001  (the user's own __str__)
        return f"its text cannot be shown ({type(problem).__name__})"


def _clean(text: str) -> str:
    """Return a text that UTF-8 can hold: file names may have bytes that are none."""
    return text.encode("utf-8", "backslashreplace").decode()


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
    return next(_in_no_frame(Traceback.from_dict(loads(pickled_trace))))


def _in_no_frame(trace: Traceback) -> Iterator[Any]:
    """Yield the traceback object, whose frames are made here.

    A frame keeps its caller, and with it what that and its callers hold: futures of the script, and
    the exception itself, so that all of it would live until Python's collector finds it. A
    generator that has yielded has no caller.
    """
    yield trace.as_traceback()


def _as_ordinary(error: BaseException, text: str) -> Exception:
    """Return an error that does not end the script when a future raises it there."""
    ordinary = RemoteTaskError(f"{text}; a task must return or raise an ordinary exception.")
    return ordinary.with_traceback(error.__traceback__)


def _pickled(error: BaseException, chain: int) -> bytes:
    """Return the pickle of an exception and of those that led to it, b"" if there is none."""
    content = _pickled_alone(error)
    led = error.__cause__ or error.__context__
    if not content or led is None or not chain:
        return content
    before = _pickled(led, chain - 1)
    if not before:
        before = dumps(RemoteTaskError(_clean(f"{type(led).__name__}: {led}")))
    is_cause = error.__cause__ is not None
    return dumps(_Chained(content, before, is_cause, error.__suppress_context__))


def _pickled_alone(error: BaseException) -> bytes:
    # Pickle would call an __init__ of the user's with `args`, which may be others than it takes.
    own_init = hasattr(type(error).__init__, "__code__")
    plain = type(error).__reduce__ is BaseException.__reduce__
    forms: list[Any] = [error, _Portrait(error)] if plain else [error]
    for form in reversed(forms) if own_init else forms:
        try:
            content = dumps(form)
            if isinstance(pickle.loads(content), BaseException):
                return content
        except Exception:  # noqa: BLE001
            continue
    return b""


class _Portrait:
    """An exception that is rebuilt without its `__init__`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self.error
        return _rebuild, (type(error), error.args, dict(error.__dict__))


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class _Chained:
    """An exception and the one that led to it, each as a pickle."""

    def __init__(self, error: bytes, before: bytes, is_cause: bool, suppressed: bool) -> None:
        self.parts = (error, before, is_cause, suppressed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _link, self.parts


def _link(error: bytes, before: bytes, is_cause: bool, suppressed: bool) -> BaseException:
    linked: BaseException = loads(error)
    if is_cause:
        linked.__cause__ = loads(before)
    else:
        linked.__context__ = loads(before)
    linked.__suppress_context__ = suppressed
    return linked


def _pickled_trace(trace: Any) -> bytes:
    """Return the frames of the user's code: those of this package tell nobody anything."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    while trace is not None and trace.tb_next is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(package):
            break
        trace = trace.tb_next
    if trace is None or _depth(trace) > FRAMES_MAX:
        return b""
    return dumps(Traceback(trace).to_dict())


def _depth(trace: Any) -> int:
    depth = 0
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    return depth
