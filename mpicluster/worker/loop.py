"""What does a worker's rank run?

The same short shape as the other loops: take all that has arrived, from ranks and from slots, let
the core decide, send, carry out its effects, pause.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.errors import LostRankError
from mpicluster.ids import FIRST_WORKER_RANK, SCHEDULER_RANK, Key, Rank
from mpicluster.transport.base import LargeMessage, Transport
from mpicluster.transport.silence import Silence
from mpicluster.transport.waiting import Ladder
from mpicluster.worker import events as e
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.core import WorkerCore
from mpicluster.worker.everywhere import Everywhere
from mpicluster.worker.memory_watch import MemoryWatch
from mpicluster.worker.preparing import Prepared
from mpicluster.worker.relay import ClientRelay, FromClient
from mpicluster.worker.reports import client_tells
from mpicluster.worker.scratch import open_scratch, warn_if_unusable
from mpicluster.worker.segments import Arena
from mpicluster.worker.slot import SlotSettings
from mpicluster.worker.slots import SlotLink, SlotPool, describe_end
from mpicluster.worker.store import Store
from mpicluster.worker.values import ValueTraffic


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is given of its host."""

    host: str
    slots: int
    memory_limit: int
    resources: dict[str, float]
    versions: dict[str, str]
    #: Which processes can open this one's files, see `host_identity`.
    home: str = ""
    #: The other workers of the host.
    neighbours: tuple[Rank, ...] = ()


class WorkerLoop:
    """One worker: transport, slots, store and core."""

    def __init__(
        self, transport: Transport, config: Config, settings: WorkerSettings, prepared: Prepared
    ) -> None:
        self.transport = transport
        self.config = config
        self.settings = settings
        home = settings.home if config.share_memory else ""
        self.core = WorkerCore(config, transport.rank, settings.slots, home, settings.neighbours)
        cache_bytes = min(config.segment_cache_bytes, settings.memory_limit // 4)
        arena = Arena(settings.memory_limit, cache_bytes, prepared.arena_fd)
        self.store = Store(arena, partial(open_scratch, config.scratch))
        self.values = ValueTraffic(self.store, transport, home)
        self.ladder = Ladder(config, transport)
        board_fd = self._board_fd = os.memfd_create("mpicluster-board", os.MFD_CLOEXEC)
        os.truncate(board_fd, p.BOARD_SLOTS * p.TICKET.size)
        self.pool = SlotPool(prepared.zygote, self._slot_settings(board_fd), board_fd)
        self.relay = ClientRelay(self.pool, transport, self.values)
        self.function_codes: dict[int, tuple[str, bytes]] = {}
        self.everywhere = Everywhere(self.pool, transport, settings.host)
        #: {slot: why} of slots that were ended for their size.
        self._too_large: dict[int, str] = {}
        self._starting = settings.slots
        self._next_status = 0.0
        self._started = time.monotonic()
        self._silence = Silence(config) if config.survive == "ranks" else None
        #: How many signs of life have come from the scheduler.
        self._scheduler_signs = 0
        #: Why the others go on without this worker, if they do.
        self.lost_because = ""
        self.memory = MemoryWatch(config, settings.memory_limit, self.store)
        if all(transport.rank < other for other in settings.neighbours):  # once for a host
            warn_if_unusable(config.scratch, settings.host)
        self._handlers: dict[type[m.Message], Callable[[Rank, Any, float], None]] = {
            m.FetchValues: self._on_fetch_values,
            m.ValuesSent: self._on_values_sent,
            m.PutValues: self._on_put_values,
            m.LargeValueSent: self._on_large_value,
            m.PutLargeValue: self._on_large_value,
            m.LargeValueShared: self._on_shared_value,
            m.SharesReturned: self._on_shares_returned,
            m.ValuesMissing: self._on_values_missing,
            m.RelayToClient: self._on_relay_to_client,
            m.DefineFunctions: self._on_define_functions,
            m.RunFunction: self._on_run_function,
            m.WorkerLost: self._on_worker_lost,
            m.SchedulerStatus: self._on_scheduler_status,
        }

    def _slot_settings(self, board_fd: int) -> SlotSettings:
        return SlotSettings(
            index=0,
            rank=self.transport.rank,
            host=self.settings.host,
            arena_path=self.store.arena.path,
            board_path=f"/proc/{os.getpid()}/fd/{board_fd}",
            client=0,
            config=self.config,
        )

    def run(self) -> None:
        """Work until the scheduler says that all is over."""
        self.ladder.watch(self.pool.zygote.socket.fileno())
        for index in range(self.settings.slots):
            self._start_slot(index)
        try:
            while not self.core.stopping:
                self._turn()
        finally:
            self.close()
        if not self.lost_because:
            self.transport.send(SCHEDULER_RANK, [m.WorkerStopped()])

    def _turn(self) -> None:
        """One turn of the loop."""
        core, now = self.core, time.monotonic()
        busy = False
        for source, messages in self.transport.receive():
            busy = True
            for message in messages:
                self._take(source, message, now)
        for rank in self.transport.lost_ranks():
            lost = m.WorkerLost(rank, "MPI reports that its process has failed")
            self._on_worker_lost(rank, lost, now)
        for fd in self.ladder.ready():
            if fd in self.pool.by_fd:
                busy = True
                self._read_slot(fd, now)
            elif fd == self.pool.zygote.socket.fileno():
                self._read_zygote(now)
        for rank, bundle in core.outgoing(now):
            busy = True
            self.transport.send(rank, bundle)
        for effect in core.effects():
            self._carry_out(effect)
        if now >= self._next_status:
            self._send_status(now)
        if self.memory.is_due(now, bool(core.state.running)):
            self._watch_memory(now)
        self.values.sharing.give_back()
        self._flush_slots()
        if busy:
            self.ladder.traffic(now)
        moving = self.transport.sending()
        self.ladder.pause(now, self._deadline(), moving=moving, load=core.load)

    def _deadline(self) -> float:
        deadline = self.core.next_deadline()
        return self._next_status if deadline is None else min(deadline, self._next_status)

    # --- messages ---

    def _take(self, source: Rank, message: m.Message, now: float) -> None:
        """Handle what concerns values and functions here, give the rest to the core."""
        handler = self._handlers.get(type(message), self.core.receive)
        handler(source, message, now)

    def _on_fetch_values(self, source: Rank, message: m.FetchValues, _now: float) -> None:
        message = self.core.promise(source, message)
        if message.keys:
            self.values.send_values(source, message)

    def _on_values_sent(self, source: Rank, message: m.ValuesSent, now: float) -> None:
        self._values_came(source, message.request, message.keys, message.values, now)

    def _on_put_values(self, source: Rank, message: m.PutValues, now: float) -> None:
        self._values_came(source, 0, message.keys, message.values, now)

    def _on_large_value(self, source: Rank, message: LargeMessage, now: float) -> None:
        self.core.receive(source, self.values.keep_large(message), now)
        self.relay.values_arrived([message.key])

    def _on_shared_value(self, source: Rank, message: m.LargeValueShared, now: float) -> None:
        stored = self.values.keep_shared(source, message)
        if stored is not None:
            self.core.receive(source, stored, now)
            self.relay.values_arrived([message.key])

    def _on_shares_returned(self, _source: Rank, message: m.SharesReturned, _now: float) -> None:
        self.values.sharing.take_back(message.shares)

    def _on_values_missing(self, source: Rank, message: m.ValuesMissing, now: float) -> None:
        self.core.receive(source, e.FetchFailed(message.request, message.keys), now)
        self.relay.values_arrived(message.keys)

    def _on_relay_to_client(self, _source: Rank, message: m.RelayToClient, _now: float) -> None:
        self.relay.to_client(message)

    def _on_define_functions(self, _source: Rank, message: m.DefineFunctions, _now: float) -> None:
        rows = zip(message.functions, message.prefixes, message.codes, strict=True)
        for function, prefix, code in rows:
            self.function_codes[function] = (prefix, code)

    def _on_run_function(self, source: Rank, message: m.RunFunction, _now: float) -> None:
        self.everywhere.run(source, message)

    def _on_scheduler_status(
        self, _source: Rank, _message: m.SchedulerStatus, _now: float
    ) -> None:
        self._scheduler_signs += 1

    def _on_worker_lost(self, _source: Rank, message: m.WorkerLost, now: float) -> None:
        """Go on without another worker; leave if this one is meant."""
        if message.rank < FIRST_WORKER_RANK:
            raise LostRankError(message.rank, message.reason)
        if message.rank == self.transport.rank:
            self.lost_because = message.reason
            self.core.stopping = True
            return
        self.transport.lose(message.rank)
        self.core.receive(SCHEDULER_RANK, message, now)
        self.relay.rank_lost(message.rank)
        self.values.sharing.rank_lost(message.rank)

    def _values_came(
        self, source: Rank, request: int, keys: list[Key], values: list[bytes], now: float
    ) -> None:
        self.core.receive(source, self.values.keep_small(request, keys, values), now)
        self.relay.values_arrived(keys)

    # --- slots ---

    def _start_slot(self, index: int) -> None:
        for fd in self.pool.start(index, self.everywhere.set_ups):
            self.ladder.watch(fd)

    def _read_slot(self, fd: int, now: float) -> None:
        link, messages = self.pool.read(fd)
        if messages is None:
            if fd == link.tasks.fileno():
                self.ladder.forget(fd)  # how it ended comes from the zygote
            return
        for message in messages:
            self._take_from_slot(link, message, now)

    def _take_from_slot(self, link: SlotLink, message: Any, now: float) -> None:
        core, slot = self.core, link.index
        if isinstance(message, p.TasksDone):
            if message.holding:
                self._take_earlier(link, now)
            self._take_results(link, message, now)
        elif isinstance(message, p.TaskRaised):
            self.values.run_ended(slot, [message.ticket], ())
            core.receive(-1, e.SlotRaised(slot, message.ticket, message.error), now)
        elif isinstance(message, p.WantSegment):
            self.pool.send(link, p.GrantSegment(self.values.lend_segment(slot, message.nbytes)))
        elif isinstance(message, p.Unmapped):
            self.values.unmapped(slot, message.places)
        elif isinstance(message, p.TasksReturned):
            self.values.run_ended(slot, message.tickets, ())
            core.receive(-1, e.SlotReturned(slot, message.tickets), now)
        elif isinstance(message, p.SlotStarted):
            self._slot_started(link, message.pid, now)
        elif isinstance(message, p.RanNow):
            self.everywhere.ran(link, message)
        elif isinstance(message, FromClient):
            self._pass_on(link, message, now)
        elif isinstance(message, p.SlotLent):
            core.receive(-1, e.SlotLent(slot, message.lent), now)

    def _pass_on(self, link: SlotLink, message: FromClient, now: float) -> None:
        """Pass on what the client in a slot sends, and do what concerns this worker."""
        for todo in self.relay.from_slot(link, message):
            if isinstance(todo, e.ValuesStored):
                self.core.receive(self.transport.rank, todo, now)
            else:
                self._take(self.transport.rank, todo, now)

    def _take_earlier(self, link: SlotLink, now: float) -> None:
        """Take what the client of a slot had sent before its tasks ended: the scheduler must know
        the futures in their values before anybody asks for them.
        """
        for message in link.readers[link.control.fileno()].read_all():
            self._take_from_slot(link, message, now)

    def _slot_started(self, link: SlotLink, pid: int, now: float) -> None:
        link.pid = pid
        self.core.receive(-1, e.SlotStarted(link.index), now)
        if self._starting:
            self._starting -= 1
            if not self._starting:
                started = m.WorkerStarted(self.description())
                self.transport.send(SCHEDULER_RANK, [started, m.WorkerStatus(self._metrics(now))])

    def _take_results(self, link: SlotLink, message: p.TasksDone, now: float) -> None:
        """Store results, push the small ones to who wants them, tell the core their sizes."""
        slot = link.index
        running, keep = self.core.state.running, self.values.keep_result
        push_bytes_max = self.config.push_bytes_max
        pushed: dict[int, m.ValuesPushed] = {}
        sizes = []
        rows = zip(message.tickets, message.values, message.durations, strict=True)
        for ticket, found, duration_s in rows:
            task = running.get(ticket)
            # Abandoned runs have left `tasks`; another attempt of the key may be there instead.
            wanted = task is not None and self.core.state.tasks.get(task.key) is task
            key = task.key if task is not None and wanted else None
            sizes.append(keep(slot, key, found))
            if task is not None and wanted and task.push_to and sizes[-1] <= push_bytes_max:
                message_out = pushed.get(task.push_to)
                if message_out is None:
                    message_out = pushed[task.push_to] = m.ValuesPushed([], [])
                message_out.keys.append(task.key)
                message_out.values.append(found)
                if client_tells(task, sizes[-1], duration_s, self.config):
                    message_out.to_tell.append([task.key, sizes[-1], duration_s])
            if ticket in message.holding:
                if key is not None:
                    link.holding[key] = ticket
                else:
                    self.pool.send(link, p.LetFuturesGo([ticket]))
        if pushed:
            self.values.push_results(pushed)
        self.values.run_ended(slot, message.tickets, message.mapped)
        event = e.SlotFinished(slot, message.tickets, sizes, message.durations)
        self.core.receive(-1, event, now)

    def _read_zygote(self, now: float) -> None:
        ends = self.pool.ended()
        if ends is None:
            raise ChildProcessError(
                f"The process that forks the slots of rank {self.transport.rank} "
                f"({self.settings.host}) has ended. It may have been killed for lack of memory."
            )
        for ended in ends:
            link = self.pool.links.get(ended.index)
            if link is None or (link.pid and link.pid != ended.pid):
                continue
            if not link.pid:
                raise ChildProcessError(
                    f"A slot of rank {self.transport.rank} ({self.settings.host}) could not "
                    f"start: {describe_end(ended.status)}."
                )
            self._drain(link, now)
            tickets = list(self.core.state.slots[link.index].tasks)
            self.values.slot_ended(link.index, tickets)
            self.relay.slot_ended(link)
            ticket = self.pool.board.read(link.index)
            for fd in link.readers:
                self._forget(fd)
            self.pool.remove(link)
            how = self._too_large.pop(link.index, None) or describe_end(ended.status)
            self.everywhere.slot_ended(link, how)
            self.core.receive(-1, e.SlotLost(link.index, ticket, how), now)

    def _drain(self, link: SlotLink, now: float) -> None:
        """Take the results that a slot had sent before it ended."""
        for reader in link.readers.values():
            for message in reader.read_all():
                if not isinstance(message, p.WantSegment | p.WantRoom):
                    self._take_from_slot(link, message, now)

    def _flush_slots(self) -> None:
        """Send on to slots, and wake up when one that is full takes more."""
        for fd, awaited in self.pool.flush_all():
            with suppress(OSError):  # the slot has ended
                self.ladder.await_room(fd, awaited)

    def _forget(self, fd: int) -> None:
        try:
            self.ladder.forget(fd)
        except (OSError, ValueError):
            return  # it was forgotten when the socket closed

    # --- effects ---

    def _carry_out(self, effect: e.Effect) -> None:
        if isinstance(effect, e.RunTasks):
            self._run_tasks(effect)
        elif isinstance(effect, e.DropValues):
            for key in effect.keys:
                self.store.drop(key)
            for some in self.pool.links.values():
                some.kept.forget_dropped(effect.keys)
                if some.holding:
                    self._let_futures_go(some, effect.keys)
        elif isinstance(effect, e.AskSlot):
            link = self.pool.links.get(effect.slot)
            if link is not None:
                self.pool.send_control(link, p.ReportNow())
        elif isinstance(effect, e.StartSlot):
            self._start_slot(effect.slot)
        elif isinstance(effect, e.SendValue):
            for rank, request, home in effect.promised:
                self.values.send_values(rank, m.FetchValues(request, [effect.key], home))

    def _let_futures_go(self, link: SlotLink, dropped: list[Key]) -> None:
        """Tell a slot whose values with futures are gone."""
        holding = link.holding
        tickets = [holding.pop(key) for key in dropped if key in holding]
        if tickets:
            self.pool.send(link, p.LetFuturesGo(tickets))

    def _run_tasks(self, effect: e.RunTasks) -> None:
        link = self.pool.links[effect.slot]
        tasks, known = effect.tasks, link.functions
        definitions: list[list[Any]] = []
        for task in tasks:
            if task.function not in known:
                known.add(task.function)
                definitions.append([task.function, self.function_codes[task.function][1]])
        inputs_for, kept = self.values.inputs_for, link.kept
        inputs = [inputs_for(task, link.index, kept) if task.inputs else [] for task in tasks]
        self.pool.send(link, p.RunTasks(
            definitions=definitions,
            keep=kept.take_to_keep(),
            tickets=[task.ticket for task in tasks],
            functions=[task.function for task in tasks],
            payloads=[task.payload for task in tasks],
            inputs=inputs,
            names=[self.function_codes[task.function][0] for task in tasks],
        ))  # fmt: skip

    # --- reports ---

    def description(self) -> dict[str, Any]:
        """Return what the cluster is told about this worker."""
        settings = self.settings
        return {
            "host": settings.host, "pid": os.getpid(), "slots": settings.slots,
            "memory_limit": settings.memory_limit, "resources": settings.resources,
            "versions": settings.versions, "threads_per_slot": self.config.threads_per_slot,
        }  # fmt: skip

    def _send_status(self, now: float) -> None:
        self._next_status = now + self.config.status_interval_s
        if self._silence is not None:
            self._watch_scheduler(self._silence, now)
        if not self._starting:
            self.transport.send(SCHEDULER_RANK, [m.WorkerStatus(self._metrics(now))])

    def _metrics(self, now: float) -> dict[str, Any]:
        """Return what is measured of this worker, sizes in bytes and times in seconds."""
        state = self.core.state
        busy_s = sum(slot.seconds_busy for slot in state.slots)
        return {
            "store_bytes": self.store.nbytes,
            "spilled_bytes": self.store.spilled_nbytes,
            "borrowed_bytes": self.store.borrowed_nbytes,
            "segment_bytes": self.store.arena.nbytes,
            "memory_bytes": self.memory.usage.total,
            "executing": len(state.running),
            "ready": len(state.ready),
            "fetching": len(state.fetches),
            "busy_s": busy_s,
            "busy_share": busy_s / max((now - self._started) * self.settings.slots, 1e-9),
            "sent_bytes": self.values.sent_nbytes,
            "received_bytes": self.values.received_nbytes,
        }

    def _watch_scheduler(self, silence: Silence, now: float) -> None:
        """Let the zygote see that this rank is alive; see whether the scheduler is."""
        self.pool.zygote.tell_alive()
        signs = {SCHEDULER_RANK: self._scheduler_signs}
        silent_s = silence.look(now, signs)[SCHEDULER_RANK]
        if silent_s > self.config.lost_after_s:
            reason = f"nothing has been heard from it for {silent_s:.0f} s"
            raise LostRankError(SCHEDULER_RANK, reason)

    def _watch_memory(self, now: float) -> None:
        """Do what the memory policy says."""
        pids = {link.index: link.pid for link in self.pool.links.values() if link.pid}
        if self.memory.is_tight():
            for link in self.pool.links.values():
                link.kept.forget_all()  # what they map cannot be spilled
        slots = [slot for slot in self.core.state.slots if slot.tasks]
        waiting = sum(1 for slot in slots if slot.lent)
        memory = self.memory
        known = (memory.paused, memory.last_resort)
        ended = memory.act(now, pids, len(slots) > waiting, waiting > 0)
        if (memory.paused, memory.last_resort) != known:
            self.core.state.paused = memory.paused
            message = m.WorkerPaused(memory.paused, memory.last_resort)
            self.transport.send(SCHEDULER_RANK, [message])
        if ended is not None:
            self._too_large[ended.slot] = ended.text

    def close(self) -> None:
        """End the slots and give everything back."""
        self.pool.close()
        self.ladder.close()
        self.store.close()
        self.values.sharing.close()
        self.store.arena.close()
        os.close(self._board_fd)
