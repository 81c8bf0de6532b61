"""How do the ranks tell each other what they see, and how fast do their messages go?

Rank 0 collects what all have seen, then has pairs of ranks talk, one pair at a time, while all
others sleep between looks: ranks that wait by spinning would slow down those that are measured.
Imports no MPI; the communicator comes from `transport/mpi.py`.
"""

import statistics
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mpicluster.doctor.facts import ClockFacts, PairFacts, RankFacts
from mpicluster.doctor.silence import NoAnswer
from mpicluster.ids import FIRST_WORKER_RANK, Rank

#: Facts, results and orders; and the messages that are measured.
_TAG: Final = 1
_TALK_TAG: Final = 2
#: Pairs that are measured on one host, and between hosts: a sample that takes a few seconds.
PAIRS_MAX: Final = 4
#: Hosts whose clocks are compared with that of rank 0.
CLOCKS_MAX: Final = 64
#: No further pair is begun after this time.
TALKS_S_MAX: Final = 8.0
#: Small messages are exchanged for this long.
PING_S: Final = 0.1
PINGS_MAX: Final = 1000
#: The first ones open the connection.
PINGS_NOT_COUNTED: Final = 10
#: Clocks need few: the quickest one counts.
CLOCK_PINGS: Final = 20
#: The large message, and a first one that tells how much a slow network can bear.
TRANSFER_BYTES: Final = 64_000_000
FIRST_TRANSFER_BYTES: Final = 1_000_000
TRANSFER_S: Final = 0.5
TRANSFERS_MAX: Final = 5
#: How long a rank that has nothing to do sleeps between looks.
_NAP_S: Final = 0.002

#: What the first rank of a talk says: a number of bytes that it will send, or one of these.
_PING: Final = 0
_END: Final = -1
_NUMBER: Final = struct.Struct("<q")
_CLOCK: Final = struct.Struct("<d")


@dataclass(frozen=True, slots=True)
class Order:
    """Rank 0 asks a rank to talk to another one."""

    peer: Rank
    first: bool
    #: Small messages at most, and whether a large one is wanted.
    pings: int
    transfer: bool


@dataclass(frozen=True, slots=True)
class Talk:
    """What the first rank of a talk has measured."""

    latency_s: float
    bytes_per_s: float
    #: How far the other rank's clock is ahead.
    offset_s: float
    uncertainty_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Which ranks talk."""

    pairs: list[tuple[Rank, Rank]]
    #: One rank of each host whose clock is compared with that of rank 0.
    clocks: list[Rank]


def make_plan(hosts: Sequence[str]) -> Plan:
    """Return who is to talk to whom: workers where there are some, since values go between them.

    >>> make_plan(["a", "a", "a", "a", "b", "b"])
    Plan(pairs=[(2, 3), (4, 5), (2, 4), (4, 2)], clocks=[4])
    """
    on_host: dict[str, list[Rank]] = {}
    for rank, host in enumerate(hosts):
        on_host.setdefault(host, []).append(rank)
    # The highest numbers first: ranks 0 and 1 talk only where a host has no two workers.
    chosen = {
        host: [rank for rank in ranks if rank >= FIRST_WORKER_RANK]
        + [rank for rank in ranks if rank < FIRST_WORKER_RANK]
        for host, ranks in on_host.items()
    }
    local = [(ranks[0], ranks[1]) for ranks in chosen.values() if len(ranks) > 1]
    firsts = [ranks[0] for ranks in chosen.values()]
    ring = list(zip(firsts, [*firsts[1:], *firsts[:1]], strict=True)) if len(firsts) > 1 else []
    others = [ranks[0] for host, ranks in on_host.items() if host != hosts[0]]
    return Plan([*local[:PAIRS_MAX], *ring[:PAIRS_MAX]], others[:CLOCKS_MAX])


# --- two ranks -------------------------------------------------------------------------------


def talk_first(comm: Any, order: Order) -> Talk:
    """Exchange messages with a rank that has the other half of the order."""
    peer, reply = order.peer, bytearray(_CLOCK.size)
    trips: list[tuple[float, float]] = []
    end = time.perf_counter() + PING_S
    while len(trips) < order.pings and (time.perf_counter() < end or not trips):
        wall, start = time.time(), time.perf_counter()
        comm.Send(_NUMBER.pack(_PING), peer, _TALK_TAG)
        comm.Recv(reply, peer, _TALK_TAG)
        trip = time.perf_counter() - start
        trips.append((trip, _CLOCK.unpack(reply)[0] - (wall + trip / 2)))
    speed = _transfer(comm, peer) if order.transfer else 0.0
    comm.Send(_NUMBER.pack(_END), peer, _TALK_TAG)
    counted = trips[PINGS_NOT_COUNTED:] or trips
    quickest, offset = min(counted)
    latency = statistics.median(trip for trip, _ in counted) / 2
    return Talk(latency, speed, offset, quickest / 2)


def _transfer(comm: Any, peer: Rank) -> float:
    """Send large messages; return the bytes per second of the fastest."""
    nbytes, best = FIRST_TRANSFER_BYTES, 0.0
    reply, buffer = bytearray(_CLOCK.size), bytearray(b"\1") * TRANSFER_BYTES
    end = time.perf_counter() + TRANSFER_S
    for _ in range(TRANSFERS_MAX):
        comm.Send(_NUMBER.pack(nbytes), peer, _TALK_TAG)
        comm.Recv(reply, peer, _TALK_TAG)  # its memory is ready
        start = time.perf_counter()
        comm.Send(memoryview(buffer)[:nbytes], peer, _TALK_TAG)
        comm.Recv(reply, peer, _TALK_TAG)
        speed = nbytes / (time.perf_counter() - start)
        best = max(best, speed)
        left = end - time.perf_counter()
        if left <= 0:
            break
        nbytes = int(max(FIRST_TRANSFER_BYTES, min(TRANSFER_BYTES, speed * TRANSFER_S / 2)))
    return best


def talk_second(comm: Any, order: Order) -> None:
    """Answer the first rank of a talk until it ends it."""
    peer, asked = order.peer, bytearray(_NUMBER.size)
    buffer = bytearray()
    while True:
        comm.Recv(asked, peer, _TALK_TAG)
        (number,) = _NUMBER.unpack(asked)
        if number == _END:
            return
        if number != _PING:
            if len(buffer) != number:
                buffer = bytearray(b"\1") * number
            comm.Send(_CLOCK.pack(time.time()), peer, _TALK_TAG)
            comm.Recv(buffer, peer, _TALK_TAG)
        comm.Send(_CLOCK.pack(time.time()), peer, _TALK_TAG)


# --- all ranks -------------------------------------------------------------------------------


def serve(comm: Any, facts: RankFacts) -> None:
    """Tell rank 0 what this rank sees, and talk as it says, until it says that all is done."""
    comm.send(facts, 0, _TAG)
    while True:
        while not comm.iprobe(0, _TAG):
            time.sleep(_NAP_S)
        order: Order | None = comm.recv(source=0, tag=_TAG)
        if order is None:
            return
        if order.first:
            comm.send(talk_first(comm, order), 0, _TAG)
        else:
            talk_second(comm, order)


class Collector:
    """Rank 0's side."""

    def __init__(self, comm: Any, deadline: float) -> None:
        self._comm = comm
        #: A rank that has not answered at this time is missing.
        self._deadline = deadline

    def collect(self, own: RankFacts) -> tuple[RankFacts, ...]:
        """Return what all ranks see; raises `NoAnswer` if some are silent."""
        found: dict[Rank, RankFacts] = {0: own}
        self._wait_for(range(1, self._comm.Get_size()), found.__setitem__)
        return tuple(found[rank] for rank in sorted(found))

    def _wait_for(self, ranks: Sequence[Rank], take: Callable[[Rank, Any], None]) -> None:
        silent = dict.fromkeys(ranks)
        while silent:
            for rank in list(silent):
                if self._comm.iprobe(rank, _TAG):
                    take(rank, self._comm.recv(source=rank, tag=_TAG))
                    del silent[rank]
            if silent and time.monotonic() > self._deadline:
                raise NoAnswer(silent)
            if silent:
                time.sleep(_NAP_S)

    def measure(self, hosts: Sequence[str]) -> tuple[tuple[PairFacts, ...], tuple[ClockFacts, ...]]:
        """Have ranks talk, and return how fast messages are and how far clocks differ."""
        plan = make_plan(hosts)
        now = time.monotonic()
        end = min(now + TALKS_S_MAX, now + (self._deadline - now) / 2)
        clocks, pairs = [], []
        for rank in plan.clocks:
            if time.monotonic() < end:
                talk = self._have_talk(0, rank, CLOCK_PINGS, transfer=False)
                clocks.append(ClockFacts(hosts[rank], talk.offset_s, talk.uncertainty_s))
        for first, second in plan.pairs:
            if time.monotonic() < end:
                talk = self._have_talk(first, second, PINGS_MAX, transfer=True)
                pairs.append(PairFacts((first, second), talk.latency_s, talk.bytes_per_s))
        return tuple(pairs), tuple(clocks)

    def _have_talk(self, first: Rank, second: Rank, pings: int, *, transfer: bool) -> Talk:
        orders = {
            first: Order(second, first=True, pings=pings, transfer=transfer),
            second: Order(first, first=False, pings=pings, transfer=transfer),
        }
        for rank, order in orders.items():
            if rank != 0:
                self._comm.send(order, rank, _TAG)
        if first == 0:
            return talk_first(self._comm, orders[0])
        if second == 0:
            talk_second(self._comm, orders[0])
        results: dict[Rank, Talk] = {}
        self._wait_for([first], results.__setitem__)
        return results[first]

    def dismiss(self) -> None:
        """Tell all ranks that all is done."""
        for rank in range(1, self._comm.Get_size()):
            self._comm.send(None, rank, _TAG)
