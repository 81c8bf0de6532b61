"""What does a worker do with a message or a local happening?

The contract of a core: `receive` takes note, `outgoing` decides once and empties the outbox,
`effects` are local actions for the loop. No clock, no I/O, no values.
"""

from collections.abc import Callable, Iterable
from typing import Any

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.errors import ProtocolError
from mpicluster.ids import CLIENT_ATTEMPT, SCHEDULER_RANK, Key, NBytes, Rank
from mpicluster.load import Load
from mpicluster.worker import events as e
from mpicluster.worker import fetching
from mpicluster.worker.records import Fetch, LocalState, LocalTask, SlotRecord, WorkerState
from mpicluster.worker.reports import Reports, client_tells

#: A function whose tasks have not been measured yet.
UNKNOWN_S = 0.5
#: A slot that has said nothing for so much longer than its tasks should take is asked to give back
#: what it has not started; so is one that has more than this to do while another has nothing.
SLOT_SILENT_S = 0.01


class WorkerCore:
    """A worker without its surroundings."""

    def __init__(
        self, config: Config, rank: Rank, slots: int, home: str = "",
        neighbours: Iterable[Rank] = (),
    ) -> None:  # fmt: skip
        self.config = config
        self.rank = rank
        self.state = WorkerState(slots, home, neighbours)
        #: Tasks that run at the same time; there are more slots while some tasks wait for others.
        self.slots = slots
        #: Set when the scheduler says that all is over.
        self.stopping = False
        self._outbox: dict[Rank, list[m.Message]] = {}
        self._reports = Reports(slots)
        self._effects: list[e.Effect] = []
        #: Fetches of values that tasks here were to make and did not.
        self._broken: list[Fetch] = []
        #: {key: None} of values that are to leave the store at the end of this turn.
        self._dropping: dict[Key, None] = {}
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            m.ComputeTasks: self._on_compute_tasks,
            m.StealTasks: self._on_steal_tasks,
            m.CancelTasks: self._on_cancel_tasks,
            m.FreeKeys: self._on_free_keys,
            m.AcquireValues: self._on_acquire_values,
            m.WorkerLost: self._on_worker_lost,
            m.StopWorker: self._on_stop_worker,
            e.SlotStarted: self._on_slot_started,
            e.SlotLent: self._on_slot_lent,
            e.SlotFinished: self._on_slot_finished,
            e.SlotRaised: self._on_slot_raised,
            e.SlotReturned: self._on_slot_returned,
            e.SlotLost: self._on_slot_lost,
            e.ValuesStored: self._on_values_stored,
            e.FetchFailed: self._on_fetch_failed,
        }

    # --- the contract of a core ---

    def receive(self, source: Rank, message: Any, now: float) -> None:
        """Take note of a message or an event."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(
                f"Rank {source} sent {type(message).__name__}, which a worker does not take."
            )
        handler(message, now)

    def outgoing(self, now: float) -> list[tuple[Rank, list[m.Message]]]:
        """Decide, and return what to send to whom."""
        while self._broken:
            fetch = self._broken.pop()
            if self.state.fetches.get(fetch.key) is fetch:
                self._try_next_holder(fetch)  # which may break further ones
        if len(self.state.ready) and not self.stopping:
            self._feed_slots(now)
        self._ask_silent_slots(now)
        for rank, request in fetching.next_requests(self.state, self.config):
            self._send(rank, request)
        self._send_reports()
        outbox, self._outbox = self._outbox, {}
        return list(outbox.items())

    def promise(self, rank: Rank, fetch: m.FetchValues) -> m.FetchValues:
        """Note which of the values asked for are about to be made here; return the other ones."""
        return fetching.promise(self.state, rank, fetch)

    def effects(self) -> list[e.Effect]:
        """Return the local actions that are to be carried out now."""
        effects, self._effects = self._effects, []
        if self._dropping:
            # Last: slots wait for their tasks, nobody waits for this.
            effects.append(e.DropValues(list(self._dropping)))
            self._dropping = {}
        return effects

    def next_deadline(self) -> float | None:
        """Return when a slot will have been silent for too long."""
        return min(
            (
                slot.last_report + slot.expected_s + SLOT_SILENT_S
                for slot in self.state.slots
                if len(slot.tasks) > 1 and not slot.asked
            ),
            default=None,
        )

    @property
    def load(self) -> Load:
        """How much the slots of this worker have to do."""
        state = self.state
        if len(state.ready) and len(state.running) >= self.slots:
            return Load.FULL
        return Load.SOME if state.running else Load.NONE

    def _send(self, rank: Rank, message: m.Message) -> None:
        self._outbox.setdefault(rank, []).append(message)

    def _send_reports(self) -> None:
        for report in self._reports.take(self.state):
            self._send(SCHEDULER_RANK, report)

    # --- slots ---

    def _feed_slots(self, now: float) -> None:
        """Give ready tasks to slots: one to each that has none, then some ahead."""
        state, ready = self.state, self.state.ready
        slots = [slot for slot in state.slots if slot.started and not slot.lent]
        # Slots that were started in the place of waiting tasks stay, but are not used in addition.
        places = self.slots - sum(1 for slot in slots if slot.tasks)
        for slot in slots:
            if not slot.tasks and len(ready) and places > 0:
                self._give(slot, 1, now)
                places -= 1
        limit_s = self.config.slot_queue_s
        for slot in slots:
            if not len(ready):
                return
            if state.abandoned and slot.is_abandoned():
                continue  # it ends whenever it likes
            if slot.tasks and slot.expected_s < limit_s and not slot.asked:
                share = -(-len(ready) // len(slots))
                self._give(slot, min(share, self.config.slot_queue_max - len(slot.tasks)), now)

    def _give(self, slot: SlotRecord, count: int, now: float) -> None:
        """Give up to `count` of the best ready tasks to a slot, no more than it needs ahead."""
        state, limit_s = self.state, self.config.slot_queue_s
        durations, running = state.durations, state.running
        tasks: list[LocalTask] = []
        if not slot.tasks:
            slot.last_report = now
        for _ in range(count):
            task = state.ready.take()
            if task is None:
                break
            ticket = task.ticket = state.next_ticket
            state.next_ticket = ticket + 1
            task.state = LocalState.EXECUTING
            task.slot = slot.index
            slot.tasks[ticket] = running[ticket] = task
            slot.expected_s += durations.get(task.function, UNKNOWN_S)
            tasks.append(task)
            if slot.expected_s >= limit_s:
                break
        if tasks:
            self._effects.append(e.RunTasks(slot.index, tasks))
            self._reports.slots_change |= bool(state.abandoned)

    def _ask_silent_slots(self, now: float) -> None:
        """Take waiting tasks back from a slot that needs longer than expected, and from one that
        has several while another has none.
        """
        slots = self.state.slots
        unused = not len(self.state.ready) and any(
            slot.started and not slot.lent and not slot.tasks for slot in slots
        )
        for slot in slots:
            late_s = now - slot.last_report - slot.expected_s
            if late_s >= SLOT_SILENT_S or (unused and slot.expected_s > SLOT_SILENT_S):
                self._ask_back(slot)

    def _ask_back(self, slot: SlotRecord) -> None:
        """Have a slot give back the tasks that it has not started."""
        if len(slot.tasks) > 1 and not slot.asked:
            slot.asked = True
            self._effects.append(e.AskSlot(slot.index))

    def _on_slot_lent(self, event: e.SlotLent, _now: float) -> None:
        """A task waits for others: let one more run in its place, in a further slot if need be."""
        self._lend(self.state.slots[event.slot], event.lent)

    def _lend(self, slot: SlotRecord, lent: bool) -> None:
        if slot.lent == lent:
            return
        slot.lent = lent
        slots = self.state.slots
        if lent:
            self._ask_back(slot)
        if len(slots) - sum(1 for found in slots if found.lent) < self.slots:
            slots.append(SlotRecord(len(slots)))
            self._effects.append(e.StartSlot(len(slots) - 1))
        self._reports.slots_change = True

    def _on_slot_started(self, event: e.SlotStarted, _now: float) -> None:
        self.state.slots[event.slot].started = True

    def _leave_slot(self, slot: SlotRecord, ticket: int) -> LocalTask | None:
        """Take a run off a slot's list; None if it is not there."""
        task = slot.tasks.pop(ticket, None)
        if task is None:
            return None
        del self.state.running[ticket]
        if self.state.abandoned:
            self._reports.slots_change = True
            if task.state is LocalState.ABANDONED:
                self.state.abandoned -= 1
        if slot.lent and not slot.tasks:
            self._lend(slot, False)  # its task ended without saying that it goes on
        slot.expected_s -= self.state.durations.get(task.function, UNKNOWN_S)
        if not slot.tasks or slot.expected_s < 0:
            slot.expected_s = 0.0
        return task

    def _on_slot_finished(self, event: e.SlotFinished, now: float) -> None:
        state, slot, finished = self.state, self.state.slots[event.slot], self._reports.finished
        slot.last_report = now
        slot.asked = False
        durations = state.durations
        for ticket, nbytes, duration in zip(
            event.tickets, event.sizes, event.durations, strict=True
        ):
            task = self._leave_slot(slot, ticket)
            if task is None:
                continue
            known = durations.get(task.function, duration)
            durations[task.function] = known + 0.5 * (duration - known)
            slot.seconds_busy += duration
            if task.state is LocalState.ABANDONED:
                continue
            task.state = LocalState.GONE
            key = task.key
            del state.tasks[key]
            self._value_here(key, nbytes)
            if client_tells(task, nbytes, duration, self.config):
                continue
            finished.keys.append(key)
            finished.attempts.append(task.attempt)
            finished.sizes.append(nbytes)
            finished.durations.append(duration)
        if slot.tasks:
            slot.expected_s = sum(durations.get(t.function, UNKNOWN_S) for t in slot.tasks.values())

    def _on_slot_raised(self, event: e.SlotRaised, now: float) -> None:
        slot = self.state.slots[event.slot]
        slot.last_report = now
        slot.asked = False
        task = self._leave_slot(slot, event.ticket)
        if task is None or task.state is LocalState.ABANDONED:
            return
        self._end_without_value(task)
        self._send(SCHEDULER_RANK, m.TaskErred(task.key, task.attempt, event.error))

    def _on_slot_returned(self, event: e.SlotReturned, now: float) -> None:
        slot = self.state.slots[event.slot]
        for ticket in event.tickets:
            task = self._leave_slot(slot, ticket)
            if task is not None and task.state is LocalState.EXECUTING:
                self._become_ready(task)
        if len(slot.tasks) > 1:  # some could not come back: ask again, less and less often
            slot.asked = False
            slot.last_report = now
            slot.expected_s = min(max(2 * slot.expected_s, SLOT_SILENT_S), UNKNOWN_S)
        elif slot.tasks:
            slot.expected_s = UNKNOWN_S  # what it executes now lasts longer than was thought

    def _on_slot_lost(self, event: e.SlotLost, _now: float) -> None:
        """The run that ended the slot costs its task an attempt, the others cost nothing."""
        slot = self.state.slots[event.slot]
        for ticket in list(slot.tasks):
            task = self._leave_slot(slot, ticket)
            if task is None or task.state is LocalState.ABANDONED:
                continue
            if ticket == event.ticket:
                self._end_without_value(task)
                self._send(SCHEDULER_RANK, m.TaskKilled(task.key, task.attempt, event.how))
            else:
                self._become_ready(task)
        slot.started = False
        self._lend(slot, False)
        slot.asked = False
        if not self.stopping:
            self._effects.append(e.StartSlot(event.slot))

    # --- tasks ---

    def _become_ready(self, task: LocalTask) -> None:
        task.state = LocalState.READY
        task.slot = -1
        self.state.ready.add(task)

    def _on_compute_tasks(self, message: m.ComputeTasks, _now: float) -> None:
        if message.attempts[0] == CLIENT_ATTEMPT and not self._can_begin(message.keys[0]):
            self._give_back(message.keys[0])
            return
        state = self.state
        tasks, ready, has = state.tasks, state.ready, state.has
        holders = {key: (nbytes, ranks) for key, nbytes, ranks in message.holders}
        rows = zip(
            message.keys, message.attempts, message.functions, message.priorities,
            message.payloads, message.push_to, strict=True,
        )  # fmt: skip
        for index, (key, attempt, function, priority, payload, push_to) in enumerate(rows):
            if key in tasks and tasks[key].attempt == CLIENT_ATTEMPT:
                # Not the scheduler has sent it: its order to give it up may come after this.
                self._cancel(tasks[key])
            task = LocalTask(key, attempt, function, priority, payload)
            task.push_to = push_to
            tasks[key] = task
            if message.dependencies:
                task.inputs = message.dependencies[index]
                missing = [needed for needed in task.inputs if needed not in has]
                if missing:
                    self._fetch_inputs(task, missing, holders)
                    continue
            task.state = LocalState.READY
            ready.add(task)

    def _can_begin(self, key: Key) -> bool:
        """Return whether a task that a client has sent itself would be executed at once."""
        state = self.state
        if len(state.ready) or state.paused or key in state.tasks or key in state.has:
            return False
        slots = [slot for slot in state.slots if slot.started and not slot.lent]
        return sum(1 for slot in slots if slot.tasks) < min(self.slots, len(slots))

    def _give_back(self, key: Key) -> None:
        """Let the scheduler decide about an attempt of a client; each is reported once."""
        self._send(SCHEDULER_RANK, m.TasksYielded([key], [CLIENT_ATTEMPT], []))

    def _fetch_inputs(
        self, task: LocalTask, missing: list[Key], holders: dict[Key, tuple[NBytes, list[Rank]]]
    ) -> None:
        unknown: list[Key] = []
        for key in missing:
            nbytes, ranks = holders.get(key, (0, []))
            fetch = fetching.want_value(self.state, key, nbytes, ranks, self.rank)
            if fetch is None:
                unknown.append(key)
            else:
                fetch.waiters[task.key] = task
        task.missing = len(missing)
        if unknown:
            self._give_up(task, unknown)

    def _on_steal_tasks(self, message: m.StealTasks, _now: float) -> None:
        yielded = m.TasksYielded([], [], [])
        for key, attempt in zip(message.keys, message.attempts, strict=True):
            task = self.state.tasks.get(key)
            if task is None or task.attempt != attempt:
                yielded.refused.append(key)
                continue
            if task.state is LocalState.EXECUTING:
                yielded.refused.append(key)
                self._ask_back(self.state.slots[task.slot])  # for the next time
                continue
            self._drop_task(task)
            yielded.keys.append(key)
            yielded.attempts.append(attempt)
        self._send(SCHEDULER_RANK, yielded)

    def _drop_task(self, task: LocalTask) -> None:
        """Forget a task; a slot that has it goes on, but its result will not count."""
        if task.state is LocalState.READY:
            self.state.ready.remove(task)
        elif task.state is LocalState.WAITING:
            fetching.forget_waiter(self.state, task)
        executing = task.state is LocalState.EXECUTING
        self._end_without_value(task)
        if executing:
            task.state = LocalState.ABANDONED
            self.state.abandoned += 1
            self._reports.slots_change = True

    def _on_cancel_tasks(self, message: m.CancelTasks, _now: float) -> None:
        for key, attempt in zip(message.keys, message.attempts, strict=True):
            task = self.state.tasks.get(key)
            if task is not None and task.attempt == attempt:
                self._cancel(task)

    def _cancel(self, task: LocalTask) -> None:
        if task.state is LocalState.EXECUTING:
            self._ask_back(self.state.slots[task.slot])  # most often it has not begun
        self._drop_task(task)
        if task.attempt == CLIENT_ATTEMPT:
            self._give_back(task.key)

    def _on_free_keys(self, message: m.FreeKeys, _now: float) -> None:
        # What came before this order must be reported as such: see `frees_seen`.
        self._send_reports()
        self.state.frees_seen += 1
        for key in message.keys:
            if self.state.has.pop(key, None) is not None:
                self._dropping[key] = None

    def _on_stop_worker(self, _message: m.StopWorker, _now: float) -> None:
        self.stopping = True

    # --- values ---

    def _value_here(self, key: Key, nbytes: NBytes) -> None:
        """A value is in the store: the tasks that wait for it may run."""
        state = self.state
        state.has[key] = nbytes
        if self._dropping:
            self._dropping.pop(key, None)
        if state.promised and (promised := state.promised.pop(key, None)) is not None:
            self._effects.append(e.SendValue(key, promised))
        fetch = state.fetches.pop(key, None) if state.fetches else None
        if fetch is None:
            return
        fetching.leave_queue(state, fetch)
        for task in fetch.waiters.values():
            task.missing -= 1
            if not task.missing:
                self._become_ready(task)

    def _on_acquire_values(self, message: m.AcquireValues, _now: float) -> None:
        state = self.state
        for key, nbytes, ranks in message.holders:
            if key in state.has:
                self._reports.added.keys.append(key)
                self._reports.added.sizes.append(state.has[key])
                continue
            fetch = fetching.want_value(state, key, nbytes, ranks, self.rank)
            if fetch is None:
                self._reports.missed.append(key)
            else:
                fetch.wanted = True

    def _on_values_stored(self, event: e.ValuesStored, _now: float) -> None:
        reports = self._reports
        report: m.ValuesAdded | m.ValuesArrived
        report = reports.added if event.request else reports.arrived
        for key, nbytes in zip(event.keys, event.sizes, strict=True):
            fetching.answered(self.state, event.request, key)
            self._value_here(key, nbytes)
            report.keys.append(key)
            report.sizes.append(nbytes)

    def _on_fetch_failed(self, event: e.FetchFailed, _now: float) -> None:
        for key in event.keys:
            fetch = fetching.answered(self.state, event.request, key)
            if fetch is not None:
                self._try_next_holder(fetch)

    def _on_worker_lost(self, message: m.WorkerLost, _now: float) -> None:
        for fetch in fetching.rank_lost(self.state, message.rank):
            # Giving up a task for one of them may have made another needless.
            if self.state.fetches.get(fetch.key) is fetch:
                self._try_next_holder(fetch)

    def _try_next_holder(self, fetch: Fetch) -> None:
        """The rank that was asked does not have the value: ask the next, or give up."""
        if fetch.needed and fetch.key in self.state.tasks:
            fetch.asked = self.rank  # a task here has been given to make it since
            return
        fetch.asked = -1
        if fetch.needed and fetching.queue_fetch(self.state, fetch):
            return
        del self.state.fetches[fetch.key]
        if fetch.wanted:
            self._reports.missed.append(fetch.key)
        for task in list(fetch.waiters.values()):
            self._give_up(task, [fetch.key])

    def _give_up(self, task: LocalTask, missing: list[Key]) -> None:
        """Inputs are not where the scheduler said: it must decide anew."""
        fetching.forget_waiter(self.state, task)
        self._end_without_value(task)
        self._send(SCHEDULER_RANK, m.InputsMissing(task.key, task.attempt, missing))

    def _end_without_value(self, task: LocalTask) -> None:
        """A task is over here, and who was promised its value must look elsewhere."""
        state, key = self.state, task.key
        task.state = LocalState.GONE
        del state.tasks[key]
        fetch = state.fetches.get(key) if state.fetches else None
        if fetch is not None and fetch.asked == self.rank:
            self._broken.append(fetch)
        if state.promised:
            for rank, request, _ in state.promised.pop(key, ()):
                self._send(rank, m.ValuesMissing(request, [key]))
