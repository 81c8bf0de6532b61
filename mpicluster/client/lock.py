"""What keeps the client's records whole when threads and signals come at any moment?

Python runs the handlers of signals in the main thread, between any two of its steps, and they may
raise: Ctrl-C, the time limit of `signal.alarm` (Python Library Reference, module `signal`). Between
two steps of a turn that would lose messages. So a handler waits until the main thread holds no lock
of a client, and while it waits for something, until a turn is over.
"""

import _thread
import os
import signal
import sys
import threading
import time
import weakref

# That of `signal` takes thirty times as long where a function is set.
from _signal import getsignal  # type: ignore[import-not-found]
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final, Self, TypeVar

#: Signals that programs usually set handlers for.
NUMBERS: Final = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
#: Frames above that which a signal interrupts in which a finalizer is looked for.
FRAMES: Final = 4
#: When a signal that has met one comes again, in seconds.
AGAIN_S: Final = 0.001
#: A signal that comes again after so long is handled at once: something does not go on. In seconds.
PATIENCE_S: Final = 5.0


Function = TypeVar("Function", bound=Callable[..., Any])
#: The code of functions that handlers must not interrupt.
_finalizers: set[CodeType] = set()


def finalizer(function: Function) -> Function:
    """Mark a short `__del__`: Python ignores what is raised there, and the signal would be lost."""
    _finalizers.add(function.__code__)
    return function


def _is_in_finalizer(frame: FrameType | None) -> bool:
    for _ in range(FRAMES):
        if frame is None:
            return False
        if frame.f_code in _finalizers:
            return True
        frame = frame.f_back
    return False


def _send_again(number: int) -> None:
    time.sleep(AGAIN_S)
    if _main.ident is not None:
        signal.pthread_kill(_main.ident, number)


class _Waiting:
    """A handler that waits while it must not run."""

    __slots__ = ("handler",)

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        """Run the handler, or note that it is to run."""
        if _is_in_finalizer(frame):
            _thread.start_new_thread(_send_again, (number,))
            return None
        now = time.monotonic()
        if not _main.depth or now - _main.noted.get(number, (now, self))[0] > PATIENCE_S:
            return self.handler(number, frame)
        _main.noted.setdefault(number, (now, self))
        if _main.wake is not None:
            _main.wake()
        return None


class _MainThread:
    """What the main thread holds, and which handlers wait for it."""

    def __init__(self) -> None:
        self.ident = threading.main_thread().ident
        #: How many locks it holds and waits it is in; handlers wait unless it is 0.
        self.depth = 0
        #: {signal: (when it came, its handler)}.
        self.noted: dict[int, tuple[float, _Waiting]] = {}
        #: Ends the pause that it may be in.
        self.wake: Callable[[], None] | None = None
        #: What `getsignal` said last of each of `NUMBERS`.
        self.known: list[Any] = []

    def begin(self) -> None:
        """Let handlers wait from now on, also those that the script has set since the last time."""
        if not self.depth:
            known = list(map(getsignal, NUMBERS))
            if known != self.known:
                for number, handler in zip(NUMBERS, known, strict=True):
                    if callable(handler) and not isinstance(handler, _Waiting):
                        signal.signal(number, _Waiting(handler))
                self.known = list(map(getsignal, NUMBERS))
        self.depth += 1

    def end(self) -> None:
        """Let handlers run again, and those that have waited now."""
        self.depth -= 1
        if self.noted and not self.depth:
            self.run_noted()

    def run_noted(self) -> None:
        """Run the handlers that have waited; one that raises leaves the others for later."""
        while self.noted:
            number = next(iter(self.noted))
            _, waiting = self.noted.pop(number)
            waiting.handler(number, sys._getframe(1))  # noqa: SLF001  (as Python calls handlers)


_main = _MainThread()


_locks: "weakref.WeakSet[ClientLock]" = weakref.WeakSet()


def _begin_in_child() -> None:
    """The only thread of a forked process is its main thread, and holds nothing."""
    global _main
    _main = _MainThread()
    _main.ident = threading.get_ident()
    for lock in list(_locks):
        lock.begin_in_child()


os.register_at_fork(after_in_child=_begin_in_child)


class ClientLock:
    """A lock that a thread may take again; in the main thread signal handlers wait for its end."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def begin_in_child(self) -> None:
        """Be free: the thread that held the lock is not in the forked process."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if threading.get_ident() == _main.ident:
            _main.begin()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if threading.get_ident() == _main.ident:
            _main.end()


class Waiting:
    """A wait for messages, in which signal handlers run where `look` is called.

    `wake` ends the pause of the thread that waits.
    """

    __slots__ = ("_before", "_in_main", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._in_main = threading.get_ident() == _main.ident
        self._before: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        if self._in_main:
            _main.begin()
            self._before, _main.wake = _main.wake, self._wake
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_main:
            _main.wake = self._before
            _main.end()

    def look(self) -> None:
        """Run the handlers of signals that have come."""
        if self._in_main and _main.noted:
            _main.run_noted()


def give_handlers_back() -> None:
    """Put the script's own handlers in their places again, as far as this thread may do so."""
    if threading.get_ident() == _main.ident:
        for number in NUMBERS:
            handler = getsignal(number)
            if isinstance(handler, _Waiting):
                signal.signal(number, handler.handler)
