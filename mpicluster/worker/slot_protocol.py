"""What do a worker and its slots tell each other?

Two Unix sockets per slot: on the task socket the slot's main thread takes tasks and sends results;
on the control socket a second thread of the slot listens, so that it answers while a task runs.
A packet is its length (8 bytes) and a msgpack array of messages. A ticket is the number of one
run of a task; it is never used twice, so a late result cannot be taken for another.

A value on these sockets is bytes (one pickle) or `[place, extents]`: a range of the arena, or, as
an input, of another file that the worker has open: an arena that it borrows from, or its scratch.
"""

import mmap
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mpicluster.codec import Codec
from mpicluster.ids import FunctionId, Key, NBytes
from mpicluster.messages import ErrorColumns

LENGTH: Final = struct.Struct("<Q")
#: One entry of the board per slot: the ticket that it executes, 0 while it executes none.
TICKET: Final = struct.Struct("<q")
NOBODY: Final = -1
#: A worker has at most this many slots at a time, those of waiting tasks included.
BOARD_SLOTS: Final = 4096
RECEIVE_BYTES: Final = 1 << 18


# --- worker -> slot, task socket ---


@dataclass(slots=True)
class RunTasks:
    """Run these tasks in this order. `definitions` are (function, pickle) the slot lacks.

    An input is a pickle, a large value's (place, extents), or the key of one that the slot keeps:
    those in `keep`, (key, pickle or (place, extents)), or from earlier messages.
    """

    definitions: list[list[Any]]
    keep: list[tuple[Key, Any]]
    tickets: list[int]
    functions: list[FunctionId]
    payloads: list[bytes]
    inputs: list[list[Any]]
    names: list[str]


@dataclass(slots=True)
class ForgetInputs:
    """No task to come needs these inputs that the slot keeps."""

    keys: list[Key]


@dataclass(slots=True)
class LetFuturesGo:
    """The values of these tasks are gone, and the futures in them need not be kept."""

    tickets: list[int]


@dataclass(slots=True)
class SetUp:
    """Run these functions before any task: what clients want in every slot."""

    codes: list[bytes]


@dataclass(slots=True)
class GrantSegment:
    """Here is room for the large result that the slot announced; -1: there is no memory."""

    offset: int


# --- worker -> slot, control socket ---


@dataclass(slots=True)
class ReportNow:
    """Send finished results, and give back the tasks that have not been started."""


@dataclass(slots=True)
class RunNow:
    """Run a function beside the current task (`Client.run`)."""

    request: int
    code: bytes


@dataclass(slots=True)
class ToSlotClient:
    """A bundle from the scheduler or a worker for the client inside this slot's task."""

    source: int
    bundle: bytes


@dataclass(slots=True)
class ValueForClient:
    """A large value that the client inside this slot's task has asked for: a place to map."""

    request: int
    key: int
    place: Any
    extents: list[NBytes]


@dataclass(slots=True)
class RoomForValue:
    """Here is room for a large value of the client; -1: there is no memory."""

    key: Key
    offset: int


# --- slot -> worker ---


@dataclass(slots=True)
class SlotStarted:
    """The slot has its modules and waits for tasks."""

    pid: int


@dataclass(slots=True)
class TasksDone:
    """These tasks are finished. `mapped` are places that the slot still maps though it is done
    with the tasks: user code keeps an array alive. `holding` are the tickets of those whose values
    refer to futures, which the slot keeps until `LetFuturesGo`.
    """

    tickets: Sequence[int]
    durations: Sequence[float]
    values: Sequence[Any]
    mapped: list[Any]
    holding: Sequence[int] = ()


@dataclass(slots=True)
class TaskRaised:
    """This task raised."""

    ticket: int
    error: ErrorColumns


@dataclass(slots=True)
class WantSegment:
    """The result of the current task needs this much shared memory."""

    nbytes: NBytes


@dataclass(slots=True)
class Unmapped:
    """Places that the slot does not map any more."""

    places: list[Any]


@dataclass(slots=True)
class TasksReturned:
    """Tickets that were queued here and have not been started, perhaps none: always the answer to
    `ReportNow`.
    """

    tickets: list[int]


@dataclass(slots=True)
class RanNow:
    """The answer to `RunNow`."""

    request: int
    value: bytes
    error: ErrorColumns | None


@dataclass(slots=True)
class FromSlotClient:
    """A bundle of the client inside this slot's task for another rank."""

    target: int
    bundle: bytes


@dataclass(slots=True)
class WantRoom:
    """A large value of the client inside this slot's task needs this much shared memory."""

    key: Key
    nbytes: NBytes


@dataclass(slots=True)
class ValueWritten:
    """The client's large value lies in the room for it; the worker `target` is to keep it, or with
    `NOBODY` the room is given back.
    """

    target: int
    key: Key
    offset: int
    extents: list[NBytes]


@dataclass(slots=True)
class SlotLent:
    """The current task waits for others (or goes on): its place may be used meanwhile (or not)."""

    lent: bool


CODEC: Final = Codec([
    RunTasks, GrantSegment, ReportNow, RunNow, ToSlotClient, SlotStarted, TasksDone, TaskRaised,
    WantSegment, Unmapped, TasksReturned, RanNow, FromSlotClient, SlotLent, ValueForClient,
    ForgetInputs, LetFuturesGo, SetUp, RoomForValue, WantRoom, ValueWritten,
])  # fmt: skip


def pack(messages: Iterable[Any]) -> bytes:
    """Return a packet."""
    content = CODEC.encode(messages)
    return LENGTH.pack(len(content)) + content


class PacketReader:
    """Cuts what arrives on a socket into packets.

    It receives into memory that it keeps. Fresh memory of `RECEIVE_BYTES` would come from the
    kernel each time, with three system calls and two page faults, which takes as long as all else
    that a worker does with a short task's result.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = _untouched_memory(RECEIVE_BYTES)
        #: So much of it is the beginning of a packet.
        self._filled = 0

    def read(self) -> list[Any] | None:
        """Receive once; return the messages that are complete, None if the peer is gone."""
        try:
            count = self._socket.recv_into(self._buffer[self._filled :])
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._cut(count) if count else None

    def read_all(self) -> list[Any]:
        """Receive until nothing is there; return the messages that are complete. That the peer is
        gone is for `read` to say.
        """
        messages: list[Any] = []
        while True:
            try:
                place = self._buffer[self._filled :]
                count = self._socket.recv_into(place, 0, socket.MSG_DONTWAIT)
            except OSError:  # BlockingIOError: that was all
                return messages
            if not count:
                return messages
            messages += self._cut(count)

    def _cut(self, count: int) -> list[Any]:
        """Return the messages that are complete with `count` more bytes; keep the rest."""
        buffer, filled = self._buffer, self._filled + count
        messages: list[Any] = []
        start, needed = 0, LENGTH.size
        while filled - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(buffer, start)
            needed = LENGTH.size + length
            if filled - start < needed:
                break
            messages += CODEC.decode(buffer[start + LENGTH.size : start + needed])
            start += needed
        rest = filled - start
        size = max(RECEIVE_BYTES, needed if rest else 0)
        if size != len(buffer):
            self._buffer = _untouched_memory(size)
        if rest and (start or size != len(buffer)):
            self._buffer[:rest] = buffer[start:filled]
        self._filled = rest
        return messages


def _untouched_memory(nbytes: int) -> memoryview:
    """Return memory of which the kernel gives what is used; `bytearray` writes all of it."""
    return memoryview(mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Board:
    """Which ticket each slot is executing, in memory that the worker and its slots share.

    It tells which task ended a slot, even when results that had not been sent died with it.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, BOARD_SLOTS * TICKET.size, flags=mmap.MAP_SHARED)
        self._tickets = memoryview(self._map).cast("q")

    def clear(self, slot: int) -> None:
        """Forget what a slot executed."""
        self._tickets[slot] = 0

    def read(self, slot: int) -> int:
        """Return the ticket that a slot executes, or executed last, or 0."""
        return self._tickets[slot]


class BoardEntry:
    """A slot's own entry on the board."""

    def __init__(self, fd: int, slot: int) -> None:
        self._map = mmap.mmap(fd, BOARD_SLOTS * TICKET.size, flags=mmap.MAP_SHARED)
        self._tickets = memoryview(self._map).cast("q")
        self._slot = slot

    def write(self, ticket: int) -> None:
        """Note the ticket that is executed from now on."""
        self._tickets[self._slot] = ticket
