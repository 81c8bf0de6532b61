"""What do clients run in every slot of this worker, beside its tasks?

Functions of `Client.run`, which are answered when all slots have, and set-ups: functions that each
slot which is started later runs before all else.
"""

from mpicluster import messages as m
from mpicluster.ids import Rank
from mpicluster.transport.base import Transport
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.slots import SlotLink, SlotPool


class Everywhere:
    """The functions that clients have sent for all slots."""

    def __init__(self, pool: SlotPool, transport: Transport, host: str) -> None:
        self._pool = pool
        self._transport = transport
        self._host = host
        #: What slots have not answered: request -> (client, {address of slot}).
        self._runs: dict[int, tuple[Rank, set[int]]] = {}
        #: {name: code} of functions that each new slot runs first.
        self._set_ups: dict[str, bytes] = {}

    @property
    def set_ups(self) -> list[bytes]:
        """What a slot that is started now must run first."""
        return list(self._set_ups.values())

    def run(self, source: Rank, message: m.RunFunction) -> None:
        """Have all slots run a function."""
        self._set_ups.pop(message.forget, None)
        if message.keep:
            self._set_ups[message.keep] = message.code
        links = list(self._pool.links.values())
        self._runs[message.request] = (source, {link.client for link in links})
        for link in links:
            self._pool.send_control(link, p.RunNow(message.request, message.code))

    def ran(self, link: SlotLink, message: p.RanNow) -> None:
        """Send the answer of the last slot; an error of any slot counts."""
        if message.request not in self._runs:
            return
        client, left = self._runs[message.request]
        left.discard(link.client)
        if left and message.error is None:
            return
        del self._runs[message.request]
        answer = m.FunctionRan(message.request, message.value, message.error)
        self._transport.send(client, [answer])

    def slot_ended(self, link: SlotLink, how: str) -> None:
        """Answer for a slot that has ended with functions of `Client.run` in it."""
        text = f"The function given to Client.run ended a slot: {how}."
        error = [b"", "KilledWorker", text, b"", "", self._transport.rank, self._host]
        for request, (_, left) in list(self._runs.items()):
            if link.client in left:
                self.ran(link, p.RanNow(request, b"", error))
