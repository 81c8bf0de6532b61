"""Do handlers of signals wait while the main thread holds a client's lock?"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from mpicluster.client import lock as client_lock
from mpicluster.client.lock import ClientLock, Waiting, finalizer, give_handlers_back


class LateError(Exception):
    """What the handlers here raise."""


def raise_late(_number: int, _frame: FrameType | None) -> None:
    raise LateError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in client_lock.NUMBERS}
    signal.signal(signal.SIGUSR1, raise_late)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupt() -> None:
    """Send a signal to this process; its handler is called before the next line, if it may be."""
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(1000):
        pass


@contextmanager
def held_by_another_thread() -> Iterator[ClientLock]:
    """Give a lock that another thread holds meanwhile."""
    lock, held, over = ClientLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(60)
    try:
        yield lock
    finally:
        over.set()
        other.join()


def test_a_handler_waits_for_the_outermost_lock() -> None:
    first, second, steps = ClientLock(), ClientLock(), []

    def take_both() -> None:
        with first:
            with second, first:
                interrupt()
                steps.append("inside")
            steps.append("outside")

    with pytest.raises(LateError):
        take_both()
    assert steps == ["inside", "outside"]


def test_a_handler_runs_at_once_where_no_lock_is_held() -> None:
    lock = ClientLock()
    with lock:
        pass
    with pytest.raises(LateError):
        interrupt()
    with lock:
        pass


def test_a_lock_that_another_thread_holds_makes_no_handler_wait() -> None:
    with held_by_another_thread(), pytest.raises(LateError):
        interrupt()


def test_a_handler_that_is_set_later_waits_too_and_an_older_one_comes_back() -> None:
    lock, calls = ClientLock(), []
    with lock:
        pass
    older = signal.signal(signal.SIGUSR1, lambda *_: calls.append("new"))
    with lock:
        interrupt()
        assert calls == []
    assert calls == ["new"]
    signal.signal(signal.SIGUSR1, older)
    with pytest.raises(LateError), lock:
        interrupt()
    assert calls == ["new"]


def test_a_wait_is_ended_and_handlers_run_where_it_looks() -> None:
    woken: list[str] = []
    with Waiting(lambda: woken.append("woken")) as signals:
        interrupt()
        assert woken == ["woken"]
        with pytest.raises(LateError):
            signals.look()


def test_several_signals_are_all_handled() -> None:
    calls: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _frame: calls.append(number))
    with ClientLock():
        os.kill(os.getpid(), signal.SIGUSR2)
        interrupt()
        assert calls == []
    assert sorted(calls) == [signal.SIGUSR1, signal.SIGUSR2]


def test_who_has_no_patience_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever hangs under the lock: the second signal ends it."""
    monkeypatch.setattr(client_lock, "PATIENCE_S", 0.05)
    lock = ClientLock()

    def hang() -> None:
        with lock:
            interrupt()
            time.sleep(0.1)
            with pytest.raises(LateError):
                interrupt()

    with pytest.raises(LateError):
        hang()


def test_a_signal_that_meets_a_finalizer_comes_again() -> None:
    """Python ignores what is raised in `__del__`."""
    class Value:
        @finalizer
        def __del__(self) -> None:
            interrupt()
            ended.append(True)

    def let_go() -> None:
        Value()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.01)

    ended: list[bool] = []
    with ClientLock():
        pass
    with pytest.raises(LateError):
        let_go()
    assert ended == [True]


def test_the_script_gets_its_own_handlers_back() -> None:
    with ClientLock():
        assert signal.getsignal(signal.SIGUSR1) is not raise_late
    give_handlers_back()
    assert signal.getsignal(signal.SIGUSR1) is raise_late


def test_a_forked_process_holds_no_lock() -> None:
    with held_by_another_thread() as lock, ClientLock():
        assert _status_of_child(lock) == 7


def _status_of_child(lock: ClientLock) -> int:
    process = os.fork()
    if not process:
        signal.alarm(20)  # ends a child that waits for the lock
        with lock:
            pass
        try:
            interrupt()
        except LateError:
            os._exit(7)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
