"""How do clients that live inside tasks speak with the cluster?

Through their slot's control socket and this worker. Their bundles for the scheduler are passed on
unread. Values that they fetch come to this worker's store first, like inputs of tasks, and are
mapped by the slot from there. Large values that they scatter are written by the slot into this
worker's arena, as results are, and sent on from there.
"""

from collections import deque
from typing import Final

from mpicluster import messages as m
from mpicluster.ids import SCHEDULER_RANK, ClientId, Key, NBytes, Rank
from mpicluster.serialization.frames import frame_offsets
from mpicluster.transport.base import Transport
from mpicluster.worker import events as e
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.slots import SlotLink, SlotPool
from mpicluster.worker.values import ValueTraffic

#: No room is given while more than this is being sent on, in bytes.
PASSING_BYTES_MAX: Final = 256 << 20
#: What a slot sends for the client in it.
FromClient = p.FromSlotClient | p.WantRoom | p.ValueWritten


class ClientRelay:
    """Passes messages between the clients in this worker's slots and the ranks."""

    def __init__(self, pool: SlotPool, transport: Transport, values: ValueTraffic) -> None:
        self._pool = pool
        self._transport = transport
        self._values = values
        self._links: dict[ClientId, SlotLink] = {}
        #: {key: [(link, request, holder), ...]} of values that are on their way.
        self._waiting: dict[Key, list[tuple[SlotLink, int, Rank]]] = {}
        self._lost: set[Rank] = set()
        #: Bytes of values that are being sent on to other workers.
        self._passing: NBytes = 0
        #: Those who want room meanwhile.
        self._wanting: deque[tuple[SlotLink, p.WantRoom]] = deque()

    def from_slot(self, link: SlotLink, message: FromClient) -> list[m.Message | e.ValuesStored]:
        """Pass on what a client sends; return what this worker itself is to do."""
        self._links[link.client] = link
        if isinstance(message, p.WantRoom):
            self._wanting.append((link, message))
            self._grant_room()
            return []
        if isinstance(message, p.ValueWritten):
            return self._written(link, message)
        return self._from_client(link, message)

    def _written(self, link: SlotLink, message: p.ValueWritten) -> list[m.Message | e.ValuesStored]:
        if message.target == p.NOBODY:
            self._values.take_back(link.index, message.offset)
            return []
        if message.target != self._transport.rank:
            self._passing += frame_offsets(message.extents)[1]
            self._values.pass_on(link.index, message, self._passed)
            return []
        stored = self._values.keep_written(link.index, message)
        self.values_arrived([message.key])
        return [stored]

    def _passed(self, nbytes: NBytes) -> None:
        self._passing -= nbytes
        self._grant_room()

    def _grant_room(self) -> None:
        """Give room to those who want some, unless much is on its way already."""
        while self._wanting and self._passing <= PASSING_BYTES_MAX:
            link, message = self._wanting.popleft()
            offset = self._values.lend_segment(link.index, message.nbytes)
            self._pool.send_control(link, p.RoomForValue(message.key, offset))

    def _from_client(
        self, link: SlotLink, message: p.FromSlotClient
    ) -> list[m.Message | e.ValuesStored]:
        if message.target == SCHEDULER_RANK:
            relayed = m.RelayToScheduler(link.client, message.bundle)
            self._transport.send(SCHEDULER_RANK, [relayed])
            return []
        todo: list[m.Message | e.ValuesStored] = []
        for found in m.decode_bundle(message.bundle):
            if isinstance(found, m.FetchValues):
                todo += self._fetch(link, message.target, found)
            elif message.target == self._transport.rank:
                todo.append(found)
            else:
                self._transport.send(message.target, [found])  # small values
        return todo

    def _fetch(self, link: SlotLink, holder: Rank, message: m.FetchValues) -> list[m.Message]:
        """Answer what is here; the rest is fetched from its holder."""
        missing: list[list[object]] = []
        for key in message.keys:
            if key in self._values.store or holder in self._lost:
                self._answer(link, message.request, key)
            else:
                self._waiting.setdefault(key, []).append((link, message.request, holder))
                missing.append([key, 0, [holder]])
        return [m.AcquireValues(missing)] if missing else []

    def _answer(self, link: SlotLink, request: int, key: Key) -> None:
        value = self._values.lend_to_client(link.index, key)
        if value is None:
            self._send(link, m.ValuesMissing(request, [key]))
        elif isinstance(value, bytes):
            self._send(link, m.ValuesSent(request, [key], [value]))
        else:
            place, extents = value
            self._pool.send_control(link, p.ValueForClient(request, key, place, extents))

    def _send(self, link: SlotLink, message: m.Message) -> None:
        bundle = m.encode_bundle([message])
        self._pool.send_control(link, p.ToSlotClient(self._transport.rank, bundle))

    def to_client(self, message: m.RelayToClient) -> None:
        """Pass a bundle of the scheduler on to a client; one that is gone needs nothing."""
        link = self._links.get(message.client)
        if link is not None:
            self._pool.send_control(link, p.ToSlotClient(SCHEDULER_RANK, message.bundle))

    def values_arrived(self, keys: list[Key]) -> None:
        """Answer the clients that wait for these values; those not in the store are missing."""
        if self._waiting:
            for key in keys:
                for link, request, _ in self._waiting.pop(key, ()):
                    self._answer(link, request, key)

    def rank_lost(self, rank: Rank) -> None:
        """What was to come from a rank will not: the client asks the scheduler anew."""
        self._lost.add(rank)
        for key, waiting in list(self._waiting.items()):
            if any(holder == rank for _, _, holder in waiting):
                self.values_arrived([key])

    def slot_ended(self, link: SlotLink) -> None:
        """The client of a slot that has ended leaves."""
        wanting = [entry for entry in self._wanting if entry[0] is not link]
        self._wanting = deque(wanting)
        if self._links.pop(link.client, None) is not None:
            bundle = m.encode_bundle([m.ClientStopped(stop=False)])
            self._transport.send(SCHEDULER_RANK, [m.RelayToScheduler(link.client, bundle)])
        for key in list(self._waiting):
            self._waiting[key] = [entry for entry in self._waiting[key] if entry[0] is not link]
