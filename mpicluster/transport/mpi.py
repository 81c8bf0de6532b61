"""How do ranks talk through MPI?

The only file that imports mpi4py, inside `connect`, so that importing the package starts no MPI.
Point-to-point calls on one duplicated communicator, from one thread at a time. A probe of any
source and any tag keeps the order of each pair; the buffers of a large value have a tag of their
own, and their receives are posted before the next probe, so that no probe sees them. Probes are
matched (MPI_Improbe): what one has found can be received even if its sender has failed. Otherwise
Open MPI refuses to, or waits for ever, and finds it again in later probes.

Open MPI reports ranks that have failed (ULFM: each call that a failed rank concerns raises, and
every probe until the failure is acknowledged). Other libraries leave what concerns a rank that is
gone pending for ever. Both end in `lose`: what is under way with the rank is *stranded*, and kept
only as long as MPI may still touch its buffers.
"""

import os
import pickle
import time
from array import array
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

from mpicluster.config import Config
from mpicluster.ids import SCHEDULER_RANK, Rank
from mpicluster.messages import Message, MessageClass, decode_bundle
from mpicluster.transport.base import (
    LargeMessage,
    Received,
    Transport,
    Waking,
    let_go_of,
    to_bundles,
)
from mpicluster.transport.bells import Bells
from mpicluster.transport.pmi import shorter_values
from mpicluster.transport.shared_files import note_others

#: The tag of raw buffers.
BUFFER_TAG = 4
#: A larger buffer goes in parts of this size: counts in MPI 3 are 32-bit numbers.
PART_BYTES = 1 << 30
#: Pause between two looks whether all ranks leave, in seconds.
MEET_PAUSE_S = 0.001
#: Bundles taken by one call of `receive`: the loop decides at least this often.
BUNDLES_MAX = 256
#: How often requests of lost ranks are looked at, in seconds.
STRANDED_INTERVAL_S = 0.5


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


def initialize(config: Config | None = None) -> Any:
    """Initialise MPI, unless it is, and return mpi4py's module."""
    MPI = load()  # noqa: N806  (the name of the module)
    if not MPI.Is_initialized():
        note_others()
        with shorter_values(os.environ, (config or Config()).pmi_value_max):
            MPI.Init_thread(MPI.THREAD_SERIALIZED)
    return MPI


def connect(config: Config | None = None) -> "MPITransport":
    """Initialise MPI, unless it is, and return this rank's end of a communicator of our own."""
    MPI = initialize(config)  # noqa: N806
    comm, request = MPI.COMM_WORLD.Idup()
    _await(request)
    return MPITransport(MPI, comm)


def _await(request: Any) -> None:
    """Wait for what all ranks do together, asleep.

    What MPI does while it waits takes the time in which other ranks of the host start: with more of
    them than cores that took most of it.
    """
    while not request.Test():
        time.sleep(MEET_PAUSE_S)


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
        self._exception: type[Exception] = MPI.Exception
        self.bells = Bells()
        self.wake_fd = self.bells.fd
        self.waking = Waking.PARTLY
        self._inbox = bytearray(1 << 16)
        #: The last call of `receive` has found something.
        self._busy = False
        #: Sends that have not left: request, what must stay alive, the large message if it is one,
        #: the receiver.
        self._sends: list[tuple[Any, Any, LargeMessage | None, Rank]] = []
        #: Large values on their way here: source, message, their receives.
        self._receives: list[tuple[Rank, LargeMessage, list[Any]]] = []
        #: Failed ranks that `lost_ranks` has not named yet.
        self._lost: deque[Rank] = deque()
        #: Ranks to which nothing is sent and from which nothing is taken.
        self.gone: set[Rank] = set()
        #: What was under way with them: requests, what must stay alive, what follows their end.
        self._stranded: list[tuple[list[Any], Any, Callable[[], None] | None]] = []
        self._next_stranded = 0.0

    @property
    def communicator(self) -> Any:
        """The mpi4py communicator, for start-up and shutdown."""
        return self._comm

    def exchange(self, found: Any) -> list[Any]:
        """Tell all ranks something, and return what they tell in rank order. All must call.

        By way of rank 0: Open MPI's nonblocking MPI_Iallgather would have all ranks talk to all.
        """
        comm, long, byte, root = self._comm, self._mpi.INT64_T, self._mpi.BYTE, SCHEDULER_RANK
        data, sizes = pickle.dumps(found), array("q", bytes(8 * self.size))
        _await(comm.Igather([array("q", [len(data)]), long], [sizes, long], root))
        _await(comm.Ibcast([sizes, long], root))
        starts = [0, *accumulate(sizes)]
        everything = bytearray(starts[-1])
        received = [everything, sizes.tolist(), starts[:-1], byte]
        _await(comm.Igatherv([data, byte], received if self.rank == root else None, root))
        _await(comm.Ibcast([everything, byte], root))
        return [pickle.loads(everything[start:end]) for start, end in pairwise(starts)]

    def gather_on_node(self, found: Any) -> list[Any]:
        """Tell the ranks with which MPI shares memory, and return what they tell. All must call."""
        node = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        gathered: list[Any] = node.allgather(found)
        node.Free()
        return gathered

    def rely_on_bells(self) -> None:
        """Sleep until rung from now on, if each other rank has greeted; all must have tried."""
        if self.bells.greeted() == self.size - 1:
            self.waking = Waking.RUNG

    @property
    def library(self) -> str:
        """The MPI library, in one line."""
        return library_text()

    def send(self, rank: Rank, messages: list[Message]) -> None:
        """Start sending; small bundles have usually left when this returns."""
        if rank in self.gone:
            let_go_of(messages)
            return
        #: How many of the messages are on their way.
        count = 0
        try:
            for message_class, bundle, sent in to_bundles(messages):
                self._start_send(rank, bundle, int(message_class), None)
                large = sent[-1]
                if isinstance(large, LargeMessage):
                    parts = [part for buffer in large.buffers for part in split_buffer(buffer)]
                    for part in parts[:-1]:
                        self._start_send(rank, part, BUFFER_TAG, None)
                    self._start_send(rank, parts[-1], BUFFER_TAG, large)
                count += len(sent)
            self.bells.ring(rank)
        except self._exception as error:
            # What its earlier parts read must not be given out again before they have ended too.
            begun = [request for request, _, _, receiver in self._sends if receiver == rank]
            self._note_failure(error)
            if rank not in self.gone:
                raise
            rest = messages[count:]
            self._stranded.append((begun, rest, partial(let_go_of, rest)))

    def _start_send(
        self, rank: Rank, content: bytes | memoryview, tag: int, large: LargeMessage | None
    ) -> None:
        request = self._comm.Isend([content, len(content), self._mpi.BYTE], rank, tag)
        if not request.Test():
            self._sends.append((request, content, large, rank))
        elif large is not None and large.on_sent is not None:
            large.on_sent()

    def receive(self) -> Received:
        """Take up to `BUNDLES_MAX` bundles and the large values that are complete.

        After a pause only one bundle is taken: mostly there is no other, and a probe in vain may
        cost more than the bundle (Open MPI yields the core in it where ranks share cores).
        """
        received: Received = []
        bundles_max = BUNDLES_MAX if self._busy else 1
        self.drained = False
        comm, status, byte, gone = self._comm, self._status, self._mpi.BYTE, self.gone
        any_source, any_tag = self._any_source, self._any_tag
        try:
            if self._sends:
                self._finish_sends()
            for _ in range(bundles_max):
                found = comm.Improbe(any_source, any_tag, status)
                if found is None:
                    self.drained = True
                    break
                source, tag, count = status.Get_source(), status.Get_tag(), status.Get_count(byte)
                if gone and source in gone:
                    buffer = bytearray(count)  # not waited for: it may never come completely
                    request = found.Irecv([buffer, count, byte])
                    self._stranded.append(([request], buffer, None))
                    continue
                if count > len(self._inbox):
                    self._inbox = bytearray(count)
                view = memoryview(self._inbox)[:count]
                found.Recv([view, count, byte])
                messages = decode_bundle(view)
                if tag == MessageClass.DATA:
                    messages = self._await_buffers(source, messages)
                received.append((source, messages))
            if self._receives:
                self._finish_receives(received)
        except self._exception as error:
            self._note_failure(error)
        self._busy = bool(received)
        return received

    def _await_buffers(self, source: Rank, messages: list[Message]) -> list[Message]:
        """Post the receives of a large value; it is delivered when they are done."""
        large = messages[-1]
        if not isinstance(large, LargeMessage):
            return messages
        large.buffers = self.allocate(large)
        byte = self._mpi.BYTE
        requests: list[Any] = []
        # Noted before the first receive: its source may fail before the last.
        self._receives.append((source, large, requests))
        requests.extend(
            self._comm.Irecv([part, len(part), byte], source, BUFFER_TAG)
            for buffer in large.buffers
            for part in split_buffer(buffer)
        )
        return messages[:-1]

    def _finish_sends(self) -> None:
        waiting = []
        sends = iter(self._sends)
        try:
            for send in sends:
                request, _, large, receiver = send
                if not request.Test():
                    waiting.append(send)
                    continue
                if large is not None and large.on_sent is not None:
                    large.on_sent()
                self.bells.ring(receiver)  # it may not have seen anything the first time
        except self._exception:
            waiting.append(send)  # for `lose`
            raise
        finally:
            self._sends = [*waiting, *sends]

    def _finish_receives(self, received: Received) -> None:
        for receive in list(self._receives):
            source, large, requests = receive
            if self._mpi.Request.Testall(requests):
                self._receives.remove(receive)
                received.append((source, [large]))

    def arrived(self) -> bool:
        """Return whether a bundle is here; asking moves on what is under way.

        Twice: Open MPI and MPICH look first whether a message is known, and only then at what
        their shared memory and network hold.
        """
        probe, source, tag = self._comm.Iprobe, self._any_source, self._any_tag
        try:
            return bool(probe(source, tag) or probe(source, tag))
        except self._exception as error:
            self._note_failure(error)
            return True

    def hush(self) -> bool:
        """Hear the rings that have come until now."""
        return bool(self.bells.heard())

    def sending(self) -> bool:
        """Return whether a send or a large receive is under way."""
        return bool(self._sends or self._receives)

    def lost_ranks(self) -> list[Rank]:
        """Return the ranks that MPI has reported as failed since the last call."""
        if self._stranded:
            self._finish_stranded()
        if not self._lost:
            return []
        return [self._lost.popleft() for _ in range(len(self._lost))]

    # --- ranks that are gone ---

    @property
    def tells_losses(self) -> bool:
        """Whether MPI reports ranks that fail, and comes to an end without them."""
        return "Open MPI" in self.library

    def _note_failure(self, error: Any) -> None:
        """Find out which ranks have failed; raise the error if it is about something else."""
        MPI, comm = self._mpi, self._comm  # noqa: N806
        kind = error.Get_error_class()
        if kind not in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_IN_STATUS):
            raise error
        failed, members = comm.Get_failed(), comm.Get_group()
        ranks = MPI.Group.Translate_ranks(failed, list(range(failed.Get_size())), members)
        failed.Free()
        members.Free()
        new = [rank for rank in ranks if rank not in self.gone]
        if kind == MPI.ERR_IN_STATUS and not new:
            raise error
        comm.Ack_failed()  # or each probe would go on to raise
        for rank in new:
            self.lose(rank)
            self._lost.append(rank)

    def lose(self, rank: Rank) -> None:
        """Give a rank up: what is under way with it may never end."""
        if rank in self.gone:
            return
        self.gone.add(rank)
        self.bells.forget(rank)
        sends, self._sends = self._sends, []
        for send in sends:
            request, content, large, receiver = send
            if receiver == rank:
                on_sent = None if large is None else large.on_sent
                self._stranded.append(([request], content, on_sent))
            else:
                self._sends.append(send)
        receives, self._receives = self._receives, []
        for receive in receives:
            source, large, requests = receive
            if source == rank:
                for request in requests:
                    if not self._is_over(request):
                        request.Cancel()
                self._stranded.append((requests, large, partial(self.give_up, large)))
            else:
                self._receives.append(receive)

    def _finish_stranded(self) -> None:
        """Hand back the buffers that MPI does not touch any more."""
        now = time.monotonic()
        if now < self._next_stranded:
            return
        self._next_stranded = now + STRANDED_INTERVAL_S
        stranded, self._stranded = self._stranded, []
        for entry in stranded:
            requests, _, finish = entry
            if not all(self._is_over(request) for request in requests):
                self._stranded.append(entry)
            elif finish is not None:
                finish()

    def _is_over(self, request: Any) -> bool:
        try:
            return bool(request.Test())
        except self._exception:
            return True  # it has failed with its rank

    # --- the end ---

    def meet(self, seconds: float) -> bool:
        """Wait until all ranks have come here; return False if they have not after `seconds`, or if
        MPI reports before that one has failed.

        What still arrives is taken and dropped: MPICH does not finalise with messages that nobody
        has received. Twice, so that the second time nothing is on its way any more.
        """
        deadline = time.monotonic() + seconds
        try:
            for _ in range(2):
                request = self._comm.Ibarrier()
                while not request.Test():
                    self._drop_arrived()
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(MEET_PAUSE_S)
                self._drop_arrived()
        except self._exception as error:
            self._note_failure(error)
            return False
        return True

    def _drop_arrived(self) -> None:
        comm, status, byte = self._comm, self._status, self._mpi.BYTE
        if self._sends:
            self._finish_sends()
        while (found := comm.Improbe(self._any_source, self._any_tag, status)) is not None:
            count = status.Get_count(byte)
            found.Recv([bytearray(count), count, byte])

    def close(self) -> None:
        """Wait for what was sent, free the communicator and finalise MPI."""
        for request, *_ in list(self._sends):
            try:
                request.Wait()
            except self._exception as error:
                self._note_failure(error)
        self._sends.clear()
        if not self.gone:
            self._comm.Free()  # all ranks do it together
        self.bells.close()
        self._mpi.Finalize()

    def abort(self, status: int) -> None:
        """End all ranks at once."""
        self._comm.Abort(status)
