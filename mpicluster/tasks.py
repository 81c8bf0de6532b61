"""What can a task ask about where it runs, and how does it make tasks of its own?

`get_worker` and `get_client` inside a task. The client of a task speaks through its slot's worker;
while it waits its slot is lent out, so that tasks that wait for tasks cannot block each other.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mpicluster.absent import OF_TASK_WORKERS, refuse_attribute
from mpicluster.client.client import Client
from mpicluster.client.future import pickled_futures
from mpicluster.client.loop import ClientLoop, allocate_for_client
from mpicluster.cluster.base import Cluster
from mpicluster.ids import SCHEDULER_RANK, Key, Rank, address_of
from mpicluster.messages import (
    CancelKeys,
    KeysErred,
    LargeValueSent,
    Message,
    PutLargeValue,
    decode_bundle,
    encode_bundle,
)
from mpicluster.serialization.exceptions import to_error
from mpicluster.serialization.frames import frame_offsets
from mpicluster.transport.base import Received, Transport, Waking
from mpicluster.versions import local_versions
from mpicluster.worker import slot as slots
from mpicluster.worker import slot_protocol as p


@dataclass(frozen=True, slots=True)
class TaskWorker:
    """The worker on which a task runs."""

    #: Its rank, which is also its name.
    name: Rank
    host: str
    #: Which of the worker's slots runs the task.
    slot: int
    #: The name under which the task is counted.
    task: str

    @property
    def id(self) -> Rank:
        """The rank."""
        return self.name

    @property
    def address(self) -> str:
        """The rank, as the addresses of `distributed` are written."""
        return address_of(self.name)

    def __getattr__(self, name: str) -> Any:
        refuse_attribute(self, name, OF_TASK_WORKERS)


def get_worker() -> TaskWorker:
    """Return the worker that runs this task.

    Outside of a task there is none, and a `ValueError` says so.

    >>> from mpicluster import get_worker
    >>> client.submit(lambda: get_worker().name).result()
    2
    """
    slot = slots.current_slot
    if slot is None:
        raise ValueError("There is no worker here: get_worker() is for code inside tasks.")
    name = slot.current[4] if slot.current is not None else ""
    return TaskWorker(slot.settings.rank, slot.settings.host, slot.settings.index, name)


def call_with_worker(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function with the worker on which it runs."""
    return function(*args, dask_worker=get_worker(), **kwargs)


def get_client(address: Any = None, timeout: Any = None) -> Client:  # noqa: ARG001  (distributed's)
    """Return the client of this process: the script's, or inside a task one that its slot makes.

    >>> from mpicluster import get_client
    >>> def total(numbers):
    ...     return sum(get_client().gather(get_client().map(abs, numbers)))
    >>> client.submit(total, [-1, -2]).result()
    3
    """
    if slots.current_slot is not None:
        return _slot_client(slots.current_slot)
    return Client.current()


@contextmanager
def worker_client(timeout: Any = None, separate_thread: bool = True) -> Iterator[Client]:  # noqa: ARG001
    """Give a task a client, as `distributed.worker_client` does.

    The slot is lent to other tasks while the task waits for them.

    >>> from mpicluster import worker_client
    >>> def larger(left, right):
    ...     with worker_client() as client:
    ...         return client.submit(max, left, right).result()
    >>> client.submit(larger, 3, 4).result()
    4
    """
    yield get_client()


def secede() -> None:
    """Lend this task's slot to other tasks until `rejoin`, as before a long wait.

    Waiting for futures of `get_client()` does so by itself. Outside of a task nothing happens.

    >>> import time
    >>> from mpicluster import rejoin, secede
    >>> def wait_for_instrument():
    ...     secede()
    ...     time.sleep(0.01)
    ...     rejoin()
    >>> client.submit(wait_for_instrument).result()
    """
    if slots.current_slot is not None:
        slots.current_slot.lend(True)


def rejoin() -> None:
    """Take part again after `secede`; the task goes on at once.

    >>> from mpicluster import rejoin
    >>> rejoin()  # outside of a task nothing happens
    """
    if slots.current_slot is not None:
        slots.current_slot.lend(False)


class SlotTransport(Transport):
    """The way of a client inside a task: its slot's control socket, then its worker."""

    waking = Waking.ALWAYS

    def __init__(self, slot: slots.Slot, client: int) -> None:
        super().__init__()
        self.rank = client
        self.size = 0
        self._slot = slot
        self._inbox: deque[tuple[Rank, list[Message]]] = deque()
        #: {key: (receiver, large value)} of those that wait for room in the worker's arena. One at
        #: a time asks for it: answers to many would fill the control socket.
        self._leaving: dict[Key, tuple[Rank, PutLargeValue]] = {}
        self._asked = False
        self._rooms: deque[p.RoomForValue] = deque()
        self.wake_fd: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        slot.handlers[p.ToSlotClient] = self._bundle_arrived
        slot.handlers[p.ValueForClient] = self._value_arrived
        slot.handlers[p.RoomForValue] = self._room_arrived

    def _put(self, source: Rank, messages: list[Message]) -> None:
        self._inbox.append((source, messages))
        self._wake()

    def _room_arrived(self, message: p.RoomForValue) -> None:
        self._rooms.append(message)
        self._wake()

    def _wake(self) -> None:
        if self.wake_fd is not None:
            os.eventfd_write(self.wake_fd, 1)

    def _bundle_arrived(self, message: p.ToSlotClient) -> None:
        self._put(message.source, decode_bundle(message.bundle))

    def _value_arrived(self, message: p.ValueForClient) -> None:
        frames = self._slot.map_for_client(message.place, message.extents)
        extents = message.extents
        value = LargeValueSent(message.request, message.key, extents, extents, frames)
        self._put(self._slot.settings.rank, [value])

    def send(self, rank: Rank, messages: list[Message]) -> None:
        """Hand messages to the worker, which passes them on; large values follow."""
        small = [message for message in messages if not isinstance(message, PutLargeValue)]
        if small:
            self._slot.send_control(p.FromSlotClient(rank, encode_bundle(small)))
        for message in messages:
            if isinstance(message, PutLargeValue):
                self._leaving[message.key] = (rank, message)
        self._ask_for_room()

    def _ask_for_room(self) -> None:
        if self._leaving and not self._asked:
            self._asked = True
            key, (_, message) = next(iter(self._leaving.items()))
            self._slot.send_control(p.WantRoom(key, frame_offsets(message.extents)[1]))

    def receive(self) -> Received:
        """Return what the worker has passed on; write the large values that it has room for."""
        self.hush()
        while self._rooms:
            self._write(self._rooms.popleft())
        return [self._inbox.popleft() for _ in range(len(self._inbox))]

    def _write(self, room: p.RoomForValue) -> None:
        found = self._leaving.pop(room.key, None)
        if found is None:  # it was asked for by a client that has been closed since
            self._give_back(room)
            return
        self._asked = False
        target, message = found
        try:
            if room.offset < 0:
                raise MemoryError("there is no memory left that the worker could give")
            self._slot.write([*message.buffers], message.extents, room.offset)
        except (MemoryError, OSError) as error:
            self._give_up(room, message, error)
        else:
            written = p.ValueWritten(target, room.key, room.offset, message.extents)
            self._slot.send_control(written)
        if message.on_sent is not None:
            message.on_sent()
        self._ask_for_room()

    def _give_back(self, room: p.RoomForValue) -> None:
        if room.offset >= 0:
            self._slot.send_control(p.ValueWritten(p.NOBODY, room.key, room.offset, []))

    def _give_up(self, room: p.RoomForValue, message: PutLargeValue, error: Exception) -> None:
        """Make the future of a value that cannot be written one with an error."""
        rank, host = self._slot.settings.rank, self._slot.settings.host
        self._give_back(room)
        cancelled = encode_bundle([CancelKeys([room.key], False)])
        self._slot.send_control(p.FromSlotClient(SCHEDULER_RANK, cancelled))
        reason = MemoryError(
            f"A value of {sum(message.extents)} bytes that a task sends does not fit into the "
            f"memory of rank {rank} ({host}): {error}. Send it in parts, or give the workers a "
            "larger --memory-limit."
        )
        self._put(SCHEDULER_RANK, [KeysErred([room.key], to_error(reason, rank, host))])

    def hush(self) -> bool:
        """Take back what `_wake` has done."""
        if self.wake_fd is None:
            return False
        try:
            return bool(os.eventfd_read(self.wake_fd))
        except BlockingIOError:
            return False

    def arrived(self) -> bool:
        """Return whether the worker has passed anything on, or has room for something."""
        return bool(self._inbox or self._rooms)

    def sending(self) -> bool:
        """Return whether a large value waits for room; the control socket takes all else."""
        return bool(self._leaving)

    def lost_ranks(self) -> list[Rank]:
        """None: a task ends with its worker."""
        return []

    def lose(self, rank: Rank) -> None:
        """Nothing: the worker sends to no rank that is lost."""

    def close(self) -> None:
        """Nothing: the slot's sockets are the slot's."""


class SlotCluster(Cluster):
    """The cluster as a client inside a task sees it."""

    kind = "cluster of this task"

    def __init__(self, slot: slots.Slot) -> None:
        self.versions = local_versions()
        transport = SlotTransport(slot, slot.settings.client)
        config = slot.settings.config
        self._loop = ClientLoop(transport, config, allocate_for_client, self.versions)
        self._loop.on_wait = slot.lend
        self._loop.start()

    def connect(self) -> ClientLoop:
        """Return the one connection of this slot."""
        return self._loop

    def close(self) -> None:
        """Nothing: the cluster belongs to the script."""


_lock = threading.Lock()
_client: Client | None = None


def _slot_client(slot: slots.Slot) -> Client:
    """Return the client of this slot; all its tasks share it."""
    global _client
    with _lock:
        if _client is None or _client.status != "running" or _client.loop.failure is not None:
            _client = Client(SlotCluster(slot), set_as_default=False)
            slot.note_futures = pickled_futures
            slot.flush_client = _client.loop.flush
        return _client
