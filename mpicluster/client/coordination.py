"""How do scripts and tasks wait for each other?

`Lock`, `Semaphore`, `Event`, `Queue` and `Variable`, shared by name through the scheduler, with the
meaning they have in `distributed`. They can be pickled into tasks.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from mpicluster import messages as m
from mpicluster.client.future import pickled_futures
from mpicluster.client.timeouts import to_seconds
from mpicluster.ids import Key
from mpicluster.serialization.frames import dumps, loads

if TYPE_CHECKING:
    from mpicluster.client.client import Client

_serial = count()
#: A larger value belongs on a worker: put its future here instead.
VALUE_BYTES_MAX = 1 << 20


def _text(name: Any) -> str:
    """Return a name as the scheduler knows it: equal names of any process are equal texts."""
    if isinstance(name, str):
        return name
    if isinstance(name, int | float):
        return repr(name)
    if isinstance(name, tuple):
        return f"({', '.join(repr(_text(part)) for part in name)})"
    raise TypeError(
        f"A name is a text, a number or a tuple of these, but {name!r} is a {type(name).__name__}."
    )


def _count(meaning: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{meaning} is {value!r}; it must be a whole number.")
    if not least <= value < 1 << 31:
        raise ValueError(f"{meaning} is {value}; it must be from {least} to {(1 << 31) - 1}.")
    return value


class Named:
    """Something that is shared by its name."""

    kind = ""

    def __init__(self, name: Any = None, client: Client | None = None) -> None:
        if name is None or name == "":
            name = f"{type(self).__name__.lower()}-{next(_serial)}-{uuid4().hex}"
        self.name = _text(name)
        self._given_client = client

    @property
    def client(self) -> Client:
        """The client that speaks for this process."""
        from mpicluster.tasks import get_client

        return self._given_client or get_client()

    def _request(
        self, action: str, *arguments: Any, timeout: float | str | None = None
    ) -> tuple[int, Any]:
        """Ask, and wait; return (request, answer), (0, None) if the time is over before."""
        client = self.client
        loop, seconds = client.loop, to_seconds(timeout)
        with loop.lock:
            request = loop.core.next_number()
            loop.core.to_scheduler(
                m.Coordinate(request, self.kind, self.name, action, list(arguments))
            )
        if loop.wait_until(lambda: request in loop.core.answers, seconds):
            return request, loop.core.answers.pop(request)
        withdrawn = self._request("withdraw", request)[1]
        if withdrawn:
            return 0, None
        # The answer had left before the scheduler heard that nobody waits.
        return request, loop.core.answers.pop(request)

    def _item(self, value: Any) -> tuple[bytes, list[Key]]:
        """Return the pickle of a value, and the keys of the futures in it."""
        with pickled_futures() as futures:
            content = dumps(value)
        if len(content) > VALUE_BYTES_MAX:
            raise ValueError(
                f"A value of {len(content)} bytes was given to {self.name!r}, which takes at most "
                f"{VALUE_BYTES_MAX}, because it passes through the scheduler. Scatter it and give "
                "the future."
            )
        loop = self.client.loop
        return content, list(dict.fromkeys(future.use_as_input(loop) for future in futures))

    def _load_items(self, request: int, answer: tuple[list[bytes], bool]) -> list[Any]:
        """Return what was taken; its futures keep their values from now on."""
        contents, has_futures = answer
        try:
            return [loads(content) for content in contents]
        finally:
            if has_futures:
                loop = self.client.loop
                with loop.lock:
                    number = loop.core.next_number()
                    loop.core.to_scheduler(
                        m.Coordinate(number, self.kind, self.name, "received", [request])
                    )
                loop.flush_soon()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name}>"


class Lock(Named):
    """A lock for all tasks and scripts of the cluster, as for writing one file.

    >>> from mpicluster import Lock
    >>> with Lock("output"):
    ...     Lock("output").locked()
    True
    """

    kind = "lock"

    def acquire(self, blocking: bool = True, timeout: float | str | None = None) -> bool:
        """Take the lock; wait for it at most `timeout` seconds. Return whether it was taken."""
        return bool(self._request("acquire", 1, timeout=timeout if blocking else 0)[0])

    def release(self) -> None:
        """Give the lock back."""
        if not self._request("release")[1]:
            raise RuntimeError(f"The lock {self.name!r} is not held, so it cannot be released.")

    def locked(self) -> bool:
        """Return whether somebody holds the lock."""
        return bool(self._request("count")[1])

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Semaphore(Named):
    """At most `max_leases` tasks at a time, as for a licence or a slow file system.

    All semaphores of a name have the same `max_leases`; another number than that of the first
    raises `ValueError` when a lease is asked for.

    >>> from mpicluster import Semaphore
    >>> with Semaphore(2, "licences") as semaphore:
    ...     semaphore.get_value()
    1
    """

    kind = "semaphore"

    def __init__(
        self, max_leases: int = 1, name: str | None = None, client: Client | None = None
    ) -> None:
        super().__init__(name, client)
        self.max_leases = _count("max_leases", max_leases, 1)

    def acquire(self, timeout: float | str | None = None) -> bool:
        """Take a lease; wait at most `timeout` seconds. Return whether there was one."""
        request, answer = self._request("acquire", self.max_leases, timeout=timeout)
        if request and answer is False:
            raise RuntimeError(
                f"The semaphore {self.name!r} was closed while a lease of it was waited for. Close "
                "it when all its users have ended."
            )
        if request and answer is not True:
            raise ValueError(
                f"The semaphore {self.name!r} was asked for with max_leases={self.max_leases}, but "
                f"it has max_leases={answer} already. Give the same number everywhere, or take "
                "another name."
            )
        return bool(request)

    def release(self) -> bool:
        """Give a lease back."""
        return bool(self._request("release")[1])

    def get_value(self) -> int:
        """Return how many leases are out."""
        return int(self._request("count")[1])

    def close(self) -> None:
        """Forget the semaphore for all: its leases count no more, and whoever waits for one gets a
        `RuntimeError`. The next to ask for a lease begins a new one of this name.
        """
        self._request("close")

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.max_leases, self.name)


class Event(Named):
    """A flag that tasks and scripts wait for.

    >>> from mpicluster import Event
    >>> Event("ready").set()
    >>> Event("ready").wait(timeout=1)
    True
    """

    kind = "event"

    def wait(self, timeout: float | str | None = None) -> bool:
        """Wait until the flag is set, at most `timeout` seconds; return whether it is."""
        return bool(self._request("wait", timeout=timeout)[0])

    def set(self) -> None:
        """Set the flag; all that wait go on."""
        self._request("set")

    def clear(self) -> None:
        """Take the flag down."""
        self._request("clear")

    def is_set(self) -> bool:
        """Return whether the flag is set."""
        return bool(self._request("is_set")[1])


class Queue(Named):
    """A queue of small values or futures between tasks and scripts.

    A future in it keeps its value. `maxsize` is how many values there may be (0: any number, or
    what another queue of this name has said).

    >>> from mpicluster import Queue
    >>> Queue("numbers").put(7)
    >>> Queue("numbers").get()
    7
    """

    kind = "queue"

    def __init__(
        self, name: str | None = None, client: Client | None = None, maxsize: int = 0
    ) -> None:
        super().__init__(name, client)
        self.maxsize = _count("maxsize", maxsize, 0)

    def put(self, value: Any, timeout: float | str | None = None) -> None:
        """Add a value; wait for room at most `timeout` seconds, then raise `TimeoutError`."""
        request, answer = self._request(
            "put", *self._item(value), self.maxsize, timeout=timeout
        )
        if request and answer is not True:
            raise ValueError(
                f"The queue {self.name!r} was given maxsize={self.maxsize}, but it has "
                f"maxsize={answer} already. Give the same number everywhere, or take another name."
            )
        if not request:
            raise TimeoutError(f"The queue {self.name!r} was full for {timeout} seconds.")

    def get(self, timeout: float | str | None = None, batch: bool | int = False) -> Any:
        """Take the oldest value; wait for one at most `timeout` seconds.

        `batch=n` waits for n values and returns them in a list, `batch=True` returns those that
        there are now, perhaps none.
        """
        number = int(not batch) if isinstance(batch, bool) else _count("batch", batch, 1)
        request, answer = self._request("get", number, timeout=timeout)
        if not request:
            raise TimeoutError(f"The queue {self.name!r} was empty for {timeout} seconds.")
        values = self._load_items(request, answer)
        return values[0] if batch is False else values

    def qsize(self) -> int:
        """Return how many values there are."""
        return int(self._request("size")[1])

    def close(self) -> None:
        """Give this handle up, as in `distributed`. The values stay for others; a queue without
        values costs nothing.
        """

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, None, self.maxsize)


class Variable(Named):
    """One small value or future that tasks and scripts share.

    A future in it keeps its value until the variable is set anew or deleted.

    >>> from mpicluster import Variable
    >>> Variable("step").set(3)
    >>> Variable("step").get()
    3
    """

    kind = "variable"

    def set(self, value: Any) -> None:
        """Give the variable a value."""
        self._request("set", *self._item(value))

    def get(self, timeout: float | str | None = None) -> Any:
        """Return the value; wait for one at most `timeout` seconds, then raise `TimeoutError`."""
        request, answer = self._request("get", timeout=timeout)
        if not request:
            raise TimeoutError(f"The variable {self.name!r} had no value for {timeout} seconds.")
        return self._load_items(request, answer)[0]

    def delete(self) -> None:
        """Take the value away."""
        self._request("delete")
