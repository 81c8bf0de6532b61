"""How do ranks talk through MPI?

The only file that imports mpi4py, inside `connect`, so that importing the package starts no MPI.
Point-to-point calls on one duplicated communicator, from one thread at a time. A probe of any
source and any tag keeps the order of each pair; the buffers of a large value have a tag of their
own, and their receives are posted before the next probe, so that a probe never sees them.
"""

from collections import deque
from pathlib import Path
from typing import Any

from mpicluster.ids import Rank
from mpicluster.messages import Message, MessageClass, decode_bundle
from mpicluster.transport.base import LargeMessage, Received, Transport, to_bundles

#: The tag of raw buffers.
BUFFER_TAG = 4
#: A larger buffer goes in parts of this size: counts in MPI 3 are 32-bit numbers.
PART_BYTES = 1 << 30
#: Bundles taken by one call of `receive`: the loop decides at least this often.
BUNDLES_MAX = 256


def library_text() -> str:
    """Return the MPI library that mpi4py loads, in one line, without initialising it."""
    return str(load().Get_library_version()).split("\n")[0].strip("\0 ,")


def load() -> Any:
    """Return mpi4py's module; MPI is not initialised by that."""
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    return MPI


def initialize() -> Any:
    """Initialise MPI, unless it is, and return mpi4py's module."""
    MPI = load()  # noqa: N806  (the name of the module)
    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_SERIALIZED)
    return MPI


def connect() -> "MPITransport":
    """Initialise MPI, unless it is, and return this rank's end of a communicator of our own."""
    MPI = initialize()  # noqa: N806
    return MPITransport(MPI, MPI.COMM_WORLD.Dup())


def remove_shared_files(process: int | str = "self") -> None:
    """Unlink the files in /dev/shm that a process's MPI library has mapped.

    A rank that is ended by a signal never reaches MPI_Finalize, where the library would do it.
    """
    with open(f"/proc/{process}/maps") as maps:  # noqa: PTH123
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "/dev/shm/" in line}
    for path in paths:
        Path(path).unlink(missing_ok=True)


def split_buffer(buffer: memoryview) -> list[memoryview]:
    """Return a buffer in parts that every MPI can send; both ends cut it alike."""
    nbytes = len(buffer)
    if nbytes <= PART_BYTES:
        return [buffer]
    return [buffer[start : start + PART_BYTES] for start in range(0, nbytes, PART_BYTES)]


class MPITransport(Transport):
    """One rank's end of an MPI communicator."""

    def __init__(self, MPI: Any, comm: Any) -> None:  # noqa: N803  (the name of the module)
        super().__init__()
        self._mpi = MPI
        self._comm = comm
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self._status = MPI.Status()
        self._any_source, self._any_tag = MPI.ANY_SOURCE, MPI.ANY_TAG
        self._inbox = bytearray(1 << 16)
        #: The last call of `receive` has found something.
        self._busy = False
        #: Sends that have not left: request, what must stay alive, the large message if it is one.
        self._sends: list[tuple[Any, Any, LargeMessage | None]] = []
        #: Large values on their way here: source, message, their receives.
        self._receives: list[tuple[Rank, LargeMessage, list[Any]]] = []
        self._lost: deque[Rank] = deque()
        self._gone: set[Rank] = set()

    @property
    def communicator(self) -> Any:
        """The mpi4py communicator, for start-up and shutdown."""
        return self._comm

    @property
    def library(self) -> str:
        """The MPI library, in one line."""
        return library_text()

    def send(self, rank: Rank, messages: list[Message]) -> None:
        """Start sending; small bundles have usually left when this returns."""
        if rank in self._gone:
            return
        for message_class, bundle, sent in to_bundles(messages):
            self._start_send(rank, bundle, int(message_class), None)
            large = sent[-1]
            if isinstance(large, LargeMessage):
                parts = [part for buffer in large.buffers for part in split_buffer(buffer)]
                for part in parts[:-1]:
                    self._start_send(rank, part, BUFFER_TAG, None)
                self._start_send(rank, parts[-1], BUFFER_TAG, large)

    def _start_send(
        self, rank: Rank, content: bytes | memoryview, tag: int, large: LargeMessage | None
    ) -> None:
        request = self._comm.Isend([content, len(content), self._mpi.BYTE], rank, tag)
        if not request.Test():
            self._sends.append((request, content, large))
        elif large is not None and large.on_sent is not None:
            large.on_sent()

    def receive(self) -> Received:
        """Take up to `BUNDLES_MAX` bundles and the large values that are complete.

        After a pause only one bundle is taken: mostly there is no other, and a probe in vain may
        cost more than the bundle (Open MPI yields the core in it where ranks share cores).
        """
        received: Received = []
        bundles_max = BUNDLES_MAX if self._busy else 1
        if self._sends:
            self._finish_sends()
        comm, status, byte = self._comm, self._status, self._mpi.BYTE
        any_source, any_tag = self._any_source, self._any_tag
        for _ in range(bundles_max):
            if not comm.Iprobe(any_source, any_tag, status):
                break
            source, tag, count = status.Get_source(), status.Get_tag(), status.Get_count(byte)
            if count > len(self._inbox):
                self._inbox = bytearray(count)
            view = memoryview(self._inbox)[:count]
            comm.Recv([view, count, byte], source, tag)
            messages = decode_bundle(view)
            if tag == MessageClass.DATA:
                messages = self._await_buffers(source, messages)
            received.append((source, messages))
        if self._receives:
            self._finish_receives(received)
        self._busy = bool(received)
        return received

    def _await_buffers(self, source: Rank, messages: list[Message]) -> list[Message]:
        """Post the receives of a large value; it is delivered when they are done."""
        large = messages[-1]
        if not isinstance(large, LargeMessage):
            return messages
        large.buffers = self.allocate(large)
        byte = self._mpi.BYTE
        requests = [
            self._comm.Irecv([part, len(part), byte], source, BUFFER_TAG)
            for buffer in large.buffers
            for part in split_buffer(buffer)
        ]
        self._receives.append((source, large, requests))
        return messages[:-1]

    def _finish_sends(self) -> None:
        waiting = []
        for send in self._sends:
            request, _, large = send
            if not request.Test():
                waiting.append(send)
            elif large is not None and large.on_sent is not None:
                large.on_sent()
        self._sends = waiting

    def _finish_receives(self, received: Received) -> None:
        waiting = []
        for receive in self._receives:
            source, large, requests = receive
            if self._mpi.Request.Testall(requests):
                received.append((source, [large]))
            else:
                waiting.append(receive)
        self._receives = waiting

    def arrived(self) -> bool:
        """Return whether a bundle is here; asking moves on what is under way."""
        return bool(self._comm.Iprobe(self._any_source, self._any_tag))

    def sending(self) -> bool:
        """Return whether a send or a large receive is under way."""
        return bool(self._sends or self._receives)

    def lost_ranks(self) -> list[Rank]:
        """Return the ranks that MPI has reported as failed since the last call."""
        return [self._lost.popleft() for _ in range(len(self._lost))]

    def close(self) -> None:
        """Wait for what was sent, free the communicator and finalise MPI."""
        for request, _, _ in self._sends:
            request.Wait()
        self._sends.clear()
        self._comm.Free()
        self._mpi.Finalize()

    def abort(self, status: int) -> None:
        """End all ranks at once."""
        self._comm.Abort(status)
