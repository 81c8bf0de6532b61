"""What do clients run in every slot of this worker, beside its tasks?

Functions of `Client.run`, which are answered when all slots have, and set-ups: functions that each
slot which is started later runs before all else.
"""

from dataclasses import dataclass

from mpicluster import messages as m
from mpicluster.ids import Rank
from mpicluster.transport.base import Transport
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.slots import SlotLink, SlotPool


@dataclass(slots=True)
class _Run:
    """A function that slots run."""

    client: Rank
    #: The addresses of the slots that have not ended it.
    left: set[int]
    error: m.ErrorColumns | None = None


class Everywhere:
    """The functions that clients have sent for all slots."""

    def __init__(self, pool: SlotPool, transport: Transport, host: str) -> None:
        self._pool = pool
        self._transport = transport
        self._host = host
        #: What slots have not answered: {request: run}.
        self._runs: dict[int, _Run] = {}
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
        self._runs[message.request] = _Run(source, {link.client for link in links})
        for link in links:
            self._pool.send_control(link, p.RunNow(message.request, message.code))

    def ran(self, link: SlotLink, message: p.RanNow) -> None:
        """When all slots have ended it, send the answer of the last; the first error counts."""
        run = self._runs.get(message.request)
        if run is None:
            return
        run.left.discard(link.client)
        run.error = run.error or message.error
        if run.left:
            return
        del self._runs[message.request]
        answer = m.FunctionRan(message.request, message.value, run.error)
        self._transport.send(run.client, [answer])

    def slot_ended(self, link: SlotLink, how: str) -> None:
        """Answer for a slot that has ended with functions of `Client.run` in it."""
        text = f"The function given to Client.run ended a slot: {how}."
        error = [b"", "KilledWorker", text, b"", "", self._transport.rank, self._host]
        for request, run in list(self._runs.items()):
            if link.client in run.left:
                self.ran(link, p.RanNow(request, b"", error))
