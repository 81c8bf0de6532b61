"""What is the user's handle to a value that is being computed?

Counts as a reference to its key: when the last future of a key is gone, the value leaves the
workers' memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

from mpicluster.absent import OF_FUTURES, refuse_attribute, refuse_await
from mpicluster.client.lock import finalizer
from mpicluster.client.records import CANCELLED, ERROR, FINISHED, PENDING, FutureRecord
from mpicluster.errors import CancelledError, LostValueError
from mpicluster.ids import Key
from mpicluster.serialization.exceptions import from_error, trace_from

if TYPE_CHECKING:
    from mpicluster.client.client import Client
    from mpicluster.client.loop import ClientLoop


#: The futures that are being pickled in this context, if somebody notes them.
_pickled: ContextVar[list[Future] | None] = ContextVar("mpicluster_pickled", default=None)


@contextmanager
def pickled_futures() -> Iterator[list[Future]]:
    """Give a list into which each future goes that is pickled inside."""
    noted: list[Future] = []
    token = _pickled.set(noted)
    try:
        yield noted
    finally:
        _pickled.reset(token)


class Future:
    """The value of a task that may still be running.

    Made by `Client.submit`, `map`, `scatter`, `compute` and `persist`. It can be an argument of
    other tasks, also inside lists, tuples, dicts and sets; there it stands for its value.

    >>> from mpicluster import Client
    >>> with Client(n_workers=1) as client:
    ...     future = client.submit(sum, [1, 2])
    ...     future.result()
    3
    """

    #: What dask looks for where it does not check for its own class.
    __dask_future__ = True

    def __init__(self, record: FutureRecord, client: Client | None = None) -> None:
        if not isinstance(record, FutureRecord) or client is None:
            raise TypeError(
                f"A future was to be made of {record!r}, but only a client makes futures: keep "
                "those that `submit`, `map`, `scatter`, `compute` and `persist` return, or share "
                "them by name in a `Variable` or a `Queue`."
            )
        record.references += 1
        self._record = record
        self._client = client

    @property
    def key(self) -> Hashable:
        """The name of the value."""
        self._client.remember_name(self._record)
        return self._record.name

    @property
    def client(self) -> Client:
        """The client that made the future."""
        return self._client

    @property
    def status(self) -> str:
        """One of "pending", "finished", "error", "cancelled"."""
        return self._record.status

    def done(self) -> bool:
        """Return whether the value is there, or never will be."""
        self._client.poll()
        return self._record.status is not PENDING

    def cancelled(self) -> bool:
        """Return whether the future was cancelled."""
        return self._record.status is CANCELLED

    def result(self, timeout: float | str | None = None) -> Any:
        """Return the value; wait for it at most `timeout` seconds.

        Raises the exception that the task raised, `CancelledError` if the future was cancelled,
        and `TimeoutError` when the time is over.
        """
        return self._client.result_of(self._record, timeout)

    def exception(self, timeout: float | str | None = None) -> BaseException | None:
        """Return the exception that the task raised, None if it returned; wait for its end."""
        self._client.wait_for_record(self._record, timeout)
        return error_of(self._record)

    def traceback(self, timeout: float | str | None = None) -> Any:
        """Return the traceback of the exception that the task raised, None if it returned."""
        self._client.wait_for_record(self._record, timeout)
        error = self._record.error
        return trace_from(error[3]) if error is not None else None

    def add_done_callback(self, function: Callable[[Future], Any]) -> None:
        """Call `function(future)` in another thread when the future is done."""
        self._client.call_when_done(self, function)

    def cancel(
        self, reason: str | None = None, msg: str | None = None, force: bool = False  # noqa: ARG002
    ) -> None:
        """Give the task up, and all that depend on it."""
        self._client.cancel([self], force=force)

    def release(self) -> None:
        """Give up this reference before the object is gone; the future is of no use afterwards."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.drop(self._record)
            self.__dict__["_client"] = _Released()

    def use_as_input(self, loop: ClientLoop) -> Key:
        """Return the key under which tasks of a connection use the value; it must be its own."""
        record = self._record
        if self._client.loop is not loop:
            raise belongs_elsewhere(record)
        if record.status is CANCELLED:
            raise CancelledError(
                f"The future {record.name!r} was cancelled, so it cannot be an argument. Submit "
                "its task again."
            )
        return record.key

    @finalizer
    def __del__(self) -> None:
        client = self.__dict__.get("_client")
        if client is not None:
            client.drop(self._record)

    def __reduce__(self) -> tuple[Any, ...]:
        noted = _pickled.get()
        if noted is not None:
            noted.append(self)
        self._client.tell_scheduler()  # whoever gets this asks it for the value
        return _rebind, (self._record.key, self._record.name)

    def __getattr__(self, name: str) -> Any:
        refuse_attribute(self, name, OF_FUTURES)

    def __await__(self) -> NoReturn:
        refuse_await("A future was to be awaited", "`future.result()` waits for its value")

    # Two futures of one key are two references, so they are told apart; dask's class compares keys.
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    # The number too: dask gives what has the same token out again, also when it was cancelled.
    def __dask_tokenize__(self) -> tuple[str, Hashable, Key]:
        return ("mpicluster.Future", self._record.name, self._record.key)

    def __repr__(self) -> str:
        return _text_of(self._record)

    # dask's class of keys, from which futures are derived where dask is installed, has another one.
    __str__ = __repr__

    def _repr_html_(self) -> str:
        from html import escape

        return (
            f"<strong>Future: {escape(self._record.prefix)}</strong> "
            f"status: {self._record.status}, key: {escape(str(self._record.name))}"
        )


class _Released:
    """The client of a future that was released."""

    def drop(self, record: FutureRecord) -> None:
        """Nothing is left to drop."""

    def tell_scheduler(self) -> None:
        """There is nothing to tell."""

    def remember_name(self, record: FutureRecord) -> None:
        """The name leads nowhere any more."""

    def __getattr__(self, name: str) -> Any:
        raise CancelledError("The future was released; keep it as long as you need its value.")


def belongs_elsewhere(record: FutureRecord) -> ValueError:
    """Return the error for a future that one cluster is given and another has made.

    Keys are numbers that each cluster counts for itself: the same one is another value there.
    """
    return ValueError(
        f"{_text_of(record)} belongs to another cluster. Give its value instead: future.result()."
    )


def _text_of(record: FutureRecord) -> str:
    return f"<Future: {record.status}, key: {record.name}>"


def error_of(record: FutureRecord) -> BaseException | None:
    """Return why a key has no value; None if it has one, or may get one."""
    return _failure_of(record) if record.status in (ERROR, CANCELLED) else None


def raise_error_of(record: FutureRecord) -> None:
    """Raise why a key has no value, if there is a reason.

    No frame of the traceback may hold the exception: both, and what their callers hold, would live
    until Python's collector finds them, futures among it.
    """
    if record.status in (ERROR, CANCELLED):
        raise _failure_of(record)


def raise_lost(record: FutureRecord) -> None:
    """Raise why a key has no value any more, even if it was finished before."""
    raise_error_of(record)
    if record.error is not None:
        raise from_error(record.error, str(record.name))
    raise LostValueError(
        f"The value of {record.name!r} is no longer on any worker. It was released or its worker "
        "was lost; submit its task again."
    )


def _failure_of(record: FutureRecord) -> BaseException:
    if record.status is ERROR and record.error is not None:
        return from_error(record.error, str(record.name))
    return CancelledError(
        f"The future {record.name!r} was cancelled, by you or because the client was closed."
    )


def _rebind(key: Key, name: Hashable) -> Future:
    """Return a future of the same value for the client of this process."""
    from mpicluster.tasks import get_client

    return get_client().future_of(key, name)


__all__ = ["CANCELLED", "ERROR", "FINISHED", "PENDING", "Future", "error_of", "raise_error_of"]
