"""How do values get into and out of a worker's store?

Answers fetches from the store, puts what arrives into it, lends segments to slots and keeps each
segment alive until its last user (a send, a running task, a mapping of user code) is done.
"""

from collections.abc import Callable, Iterable
from typing import Any

from mpicluster import messages as m
from mpicluster.ids import ClientId, Key, NBytes, Rank
from mpicluster.serialization.frames import frame_offsets, split_frames
from mpicluster.transport.base import LargeMessage, Transport
from mpicluster.worker import events as e
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.kept_inputs import KeptInputs
from mpicluster.worker.records import LocalTask
from mpicluster.worker.segments import Place, Segment, to_place
from mpicluster.worker.sharing import Sharing
from mpicluster.worker.store import LargeValue, Store, StoredValue, size_of


class ValueTraffic:
    """Moves values between the store, the slots and other ranks."""

    def __init__(self, store: Store, transport: Transport, home: str = "") -> None:
        self.store = store
        self.transport = transport
        self.sharing = Sharing(transport, home)
        transport.allocate = self._allocate
        transport.give_up = self._give_up
        #: Bytes of values sent to and received from other ranks.
        self.sent_nbytes: NBytes = 0
        self.received_nbytes: NBytes = 0
        #: Segments into which large values are being received: {(request, key): segment}.
        self._arriving: dict[tuple[int, Key], Segment] = {}
        #: {slot: {offset: segment}} lent for results that are being written.
        self._lent: dict[int, dict[int, Segment]] = {}
        #: {ticket: [segment, ...]} that running tasks read.
        self._read: dict[int, list[Segment]] = {}
        #: {slot: {place: segment}} that user code in a slot keeps mapped.
        self._mapped: dict[int, dict[Place, Segment]] = {}

    # --- to other ranks ---

    def send_values(self, rank: Rank, fetch: m.FetchValues) -> None:
        """Answer a fetch: small values together, each large one on its own, lent if that can be."""
        request, keys = fetch.request, fetch.keys
        share = bool(fetch.home) and fetch.home == self.sharing.home
        small = m.ValuesSent(request, [], [])
        missing = m.ValuesMissing(request, [])
        answers: list[m.Message] = []
        for key in keys:
            value = self.store.get(key)
            if value is None:
                missing.keys.append(key)
            elif isinstance(value, bytes):
                small.keys.append(key)
                small.values.append(value)
                self.sent_nbytes += len(value)
            elif share:
                answers.append(self.sharing.lend(rank, request, key, value))
            else:
                answers.append(self._large(request, key, value))
        if small.keys:
            answers.insert(0, small)
        if missing.keys:
            answers.insert(0, missing)
        self.transport.send(rank, answers)

    def _large(self, request: int, key: Key, value: LargeValue) -> m.LargeValueSent:
        segment = value.segment
        segment.hold()
        self.sent_nbytes += segment.nbytes
        return m.LargeValueSent(
            request, key, value.extents, [segment.nbytes], [segment.view()],
            on_sent=segment.let_go,
        )  # fmt: skip

    def push_results(self, pushed: dict[ClientId, m.ValuesPushed]) -> None:
        """Send small results to the clients that want them."""
        for client, message in pushed.items():
            self.transport.send(client, [message])

    # --- from other ranks ---

    def _allocate(self, message: LargeMessage) -> list[memoryview]:
        """Give a large value that is announced its place in the arena."""
        _, nbytes = frame_offsets(message.extents)
        segment = self.store.arena.allocate(nbytes)
        self._arriving[_arrival(message)] = segment
        view = segment.view()
        return [view] if len(message.pieces) == 1 else split_frames(view, message.extents)

    def _give_up(self, message: LargeMessage) -> None:
        """Free the place of a large value whose sender is lost."""
        message.buffers = []
        self._arriving.pop(_arrival(message)).let_go()

    def keep_large(self, message: LargeMessage) -> e.ValuesStored:
        """Put a large value that has come completely into the store."""
        segment = self._arriving.pop(_arrival(message))
        message.buffers = []
        value = LargeValue(segment, message.extents)
        self.received_nbytes += value.nbytes
        self.store.put(message.key, value)
        return e.ValuesStored(_arrival(message)[0], [message.key], [value.nbytes])

    def keep_shared(self, lender: Rank, message: m.LargeValueShared) -> e.ValuesStored | None:
        """Put a value that was lent into the store; None: ask for a copy, it cannot be opened."""
        _, nbytes = frame_offsets(message.extents)
        value = self.sharing.borrow(lender, message, nbytes)
        if value is None:
            self.transport.send(lender, [m.FetchValues(message.request, [message.key])])
            return None
        self.store.put(message.key, value)
        return e.ValuesStored(message.request, [message.key], [nbytes])

    def keep_small(self, request: int, keys: list[Key], values: list[bytes]) -> e.ValuesStored:
        """Put small values that have come into the store."""
        for key, value in zip(keys, values, strict=True):
            self.store.put(key, value)
        sizes = [len(value) for value in values]
        self.received_nbytes += sum(sizes)
        return e.ValuesStored(request, keys, sizes)

    # --- to slots ---

    def inputs_for(self, task: LocalTask, slot: int, kept: KeptInputs) -> list[Any]:
        """Return a task's inputs as they go to a slot; their segments stay until it is done."""
        inputs: list[Any] = []
        held: list[Segment] = []
        for key in task.inputs:
            if kept.has(key):
                inputs.append(key)
                continue
            value = self.store.get(key)
            if kept.is_second_use(key):
                kept.keep(key, self._lend(slot, value))
                inputs.append(key)
            elif isinstance(value, LargeValue):
                value.segment.hold()
                held.append(value.segment)
                inputs.append([value.segment.place, value.extents])
            else:
                inputs.append(value)
        if held:
            self._read[task.ticket] = held
        return inputs

    def lend_segment(self, slot: int, nbytes: NBytes) -> int:
        """Return the offset of room for a result, -1 if there is none."""
        try:
            segment = self.store.arena.allocate(nbytes)
        except (MemoryError, OSError):
            return -1
        self._lent.setdefault(slot, {})[segment.offset] = segment
        return segment.offset

    def keep_written(self, slot: int, found: p.ValueWritten) -> e.ValuesStored:
        """Put a value of the client in a slot into the store."""
        value = LargeValue(self._lent[slot].pop(found.offset), found.extents)
        self.store.put(found.key, value)
        return e.ValuesStored(0, [found.key], [value.nbytes])

    def pass_on(
        self, slot: int, found: p.ValueWritten, left: Callable[[NBytes], None]
    ) -> None:
        """Send a value of the client in a slot to the worker that is to keep it; `left` is called
        with its size when it has left.
        """
        segment = self._lent[slot].pop(found.offset)
        nbytes = segment.nbytes
        self.sent_nbytes += nbytes

        def on_sent() -> None:
            segment.let_go()
            left(nbytes)

        put = m.PutLargeValue(found.key, found.extents, [nbytes], [segment.view()], on_sent)
        self.transport.send(found.target, [put])

    def take_back(self, slot: int, offset: int) -> None:
        """Take back room into which nothing is written."""
        self._lent[slot].pop(offset).let_go()

    def lend_to_client(self, slot: int, key: Key) -> Any:
        """Return a value for the client in a slot: bytes, (place, extents), or None."""
        return self._lend(slot, self.store.get(key))

    def _lend(self, slot: int, value: StoredValue | None) -> Any:
        if isinstance(value, LargeValue):
            kept, place = self._mapped.setdefault(slot, {}), value.segment.place
            if place not in kept:
                value.segment.hold()
                kept[place] = value.segment
            return place, value.extents
        return value

    # --- from slots ---

    def keep_result(self, slot: int, key: Key | None, found: Any) -> NBytes:
        """Put a result into the store, or drop it if nobody wants it; return its size."""
        value: bytes | LargeValue
        if isinstance(found, bytes):
            value = found
        else:
            offset, extents = found
            value = LargeValue(self._lent[slot].pop(offset), extents)
        if key is not None:
            self.store.put(key, value)
        elif isinstance(value, LargeValue):
            value.segment.let_go()
        return size_of(value)

    def run_ended(self, slot: int, tickets: Iterable[int], mapped: Iterable[Any]) -> None:
        """Let go of the inputs of runs that are over, but for what user code keeps mapped."""
        still = {to_place(found) for found in mapped}
        for ticket in tickets:
            for segment in self._read.pop(ticket, ()):
                kept = self._mapped.setdefault(slot, {})
                if still and segment.place in still and segment.place not in kept:
                    kept[segment.place] = segment
                else:
                    segment.let_go()

    def unmapped(self, slot: int, places: Iterable[Any]) -> None:
        """User code has let go of arrays that it had kept."""
        for place in places:
            segment = self._mapped.get(slot, {}).pop(to_place(place), None)
            if segment is not None:
                segment.let_go()

    def slot_ended(self, slot: int, tickets: Iterable[int]) -> None:
        """A slot's process is gone, and with it its mappings and half-written results."""
        self.run_ended(slot, tickets, ())
        for segment in (
            *self._mapped.pop(slot, {}).values(), *self._lent.pop(slot, {}).values()
        ):  # fmt: skip
            segment.let_go()


def _arrival(message: LargeMessage) -> tuple[int, Key]:
    """Name a large value on its way; scattered ones belong to no request."""
    return (message.request if isinstance(message, m.LargeValueSent) else 0), message.key
