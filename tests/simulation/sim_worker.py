"""What stands in for the worker's loop, its store and its slots in a simulated run?

Does with the core's messages, events and effects what `worker/loop.py` and `worker/values.py` do,
without processes: a slot is a list of tasks of which the first takes some steps.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.ids import ClientId, Key, NBytes, Rank
from mpicluster.transport.base import LargeMessage
from mpicluster.worker import checks
from mpicluster.worker import events as e
from mpicluster.worker.core import WorkerCore
from mpicluster.worker.reports import client_tells
from tests.simulation.tally import Tally
from tests.simulation.workload import Plan, raised_error, result_of


class Watcher(Protocol):
    """What a worker tells the world about."""

    plan: Plan
    tally: Tally
    #: {key: how often it has raised or ended its slot}.
    failures: dict[Key, int]

    def executing(self, rank: Rank, key: Key) -> None:
        """A slot begins to execute a task."""

    def run_lost(self, key: Key) -> None:
        """A slot ended with this task begun and not reported, so it may run again."""

    def send(self, source: Rank, target: Rank, messages: list[m.Message]) -> None:
        """Put messages on their way."""


@dataclass(slots=True)
class Run:
    """A task as a slot has it."""

    ticket: int
    key: Key
    inputs: list[bytes]


@dataclass(slots=True)
class SimSlot:
    """A simulated child process."""

    index: int
    #: Batches of runs, or None for the question to report and give back.
    inbox: deque[list[Run] | None] = field(default_factory=deque)
    queue: deque[Run] = field(default_factory=deque)
    #: What it executes and how many steps that still takes.
    current: Run | None = None
    steps_left: int = 0
    #: Finished runs that it has not reported.
    done: list[tuple[Run, bytes]] = field(default_factory=list)
    #: What it has sent and the worker's loop has not read.
    sent: deque[Any] = field(default_factory=deque)
    alive: bool = True
    #: What it executes waits for other tasks.
    lent: bool = False

    @property
    def busy(self) -> bool:
        """Whether it has anything to do."""
        if self.lent:
            return self.alive and bool(self.inbox)
        return self.alive and bool(self.inbox or self.queue or self.current or self.done)


class SimWorker:
    """One worker: core, store and slots."""

    def __init__(self, config: Config, rank: Rank, slots: int, world: Watcher) -> None:
        self.rank = rank
        self.world = world
        self.core = WorkerCore(config, rank, slots)
        self.store: dict[Key, bytes] = {}
        self.functions: set[int] = set()
        self.slots = [SimSlot(index) for index in range(slots)]
        for slot in self.slots:
            slot.sent.append(e.SlotStarted(slot.index))
        self.alive = True
        self.push_bytes_max = config.push_bytes_max
        self.inline_bytes_max = config.inline_bytes_max

    # --- turns of the loop ---

    def turn(self, arrived: list[tuple[Rank, list[m.Message]]], now: float) -> None:
        """Take what has arrived from ranks and slots, send, carry out effects."""
        core = self.core
        for source, messages in arrived:
            for message in messages:
                self._take(source, message, now)
        for slot in self.slots:
            while slot.sent:
                self._take_from_slot(slot, slot.sent.popleft(), now)
        for rank, bundle in core.outgoing(now):
            self.world.send(self.rank, rank, bundle)
        for effect in core.effects():
            self._carry_out(effect)
        checks.check_state(core.state)
        assert core.state.has.keys() == self.store.keys(), (
            f"the store of rank {self.rank} holds {list(self.store)}, "
            f"but its core says {list(core.state.has)}"
        )

    def _take(self, source: Rank, message: m.Message, now: float) -> None:
        if isinstance(message, m.FetchValues):
            message = self.core.promise(source, message)
            if message.keys:
                self._send_values(source, message)
        elif isinstance(message, m.ValuesSent):
            self._keep(source, message.request, message.keys, message.values, now)
        elif isinstance(message, m.PutValues):
            self._keep(source, 0, message.keys, message.values, now)
        elif isinstance(message, LargeMessage):
            request = message.request if isinstance(message, m.LargeValueSent) else 0
            self._keep(source, request, [message.key], [bytes(message.buffers[0])], now)
        elif isinstance(message, m.ValuesMissing):
            self.core.receive(source, e.FetchFailed(message.request, message.keys), now)
        elif isinstance(message, m.DefineFunctions):
            self.functions.update(message.functions)
        else:
            self.core.receive(source, message, now)

    def _keep(
        self, source: Rank, request: int, keys: list[Key], values: list[bytes], now: float
    ) -> None:
        for key, value in zip(keys, values, strict=True):
            assert value == self.world.plan.outcomes[key].value, f"{key} has arrived damaged"
            self.store.setdefault(key, value)
        sizes = [self._nbytes(key) for key in keys]
        self.core.receive(source, e.ValuesStored(request, keys, sizes), now)

    def _nbytes(self, key: Key) -> NBytes:
        return self.world.plan.specs[key].nbytes

    def _send_values(self, rank: Rank, message: m.FetchValues) -> None:
        """Answer a fetch as `ValueTraffic.send_values` does."""
        small = m.ValuesSent(message.request, [], [])
        missing = m.ValuesMissing(message.request, [])
        answers: list[m.Message] = []
        for key in message.keys:
            value = self.store.get(key)
            if value is None:
                missing.keys.append(key)
            elif self._nbytes(key) <= self.inline_bytes_max:
                small.keys.append(key)
                small.values.append(value)
            else:
                size = [len(value)]
                large = m.LargeValueSent(message.request, key, size, size, [memoryview(value)])
                answers.append(large)
        if small.keys:
            answers.insert(0, small)
        if missing.keys:
            answers.insert(0, missing)
        self.world.send(self.rank, rank, answers)

    def _take_from_slot(self, slot: SimSlot, report: Any, now: float) -> None:
        if isinstance(report, list):
            self._take_results(slot, report, now)
            return
        if isinstance(report, e.SlotLost):
            self.slots[slot.index] = SimSlot(slot.index, alive=False)
        self.core.receive(-1, report, now)

    def _take_results(self, slot: SimSlot, done: list[tuple[Run, bytes]], now: float) -> None:
        """Store results, push the small ones, as `WorkerLoop._take_results` does."""
        state = self.core.state
        pushed: dict[ClientId, m.ValuesPushed] = {}
        for run, value in done:
            task = state.running.get(run.ticket)
            if task is None or state.tasks.get(task.key) is not task:
                continue
            self.store.setdefault(task.key, value)
            if task.push_to and self._nbytes(task.key) <= self.push_bytes_max:
                message = pushed.setdefault(task.push_to, m.ValuesPushed([], []))
                message.keys.append(task.key)
                message.values.append(value)
                nbytes = self._nbytes(task.key)
                duration_s = self.world.plan.specs[task.key].duration_s
                if client_tells(task, nbytes, duration_s, self.core.config):
                    message.to_tell.append([task.key, nbytes, duration_s])
        for client, message in pushed.items():
            self.world.send(self.rank, client, [message])
        self.core.receive(-1, e.SlotFinished(
            slot.index,
            [run.ticket for run, _ in done],
            [self._nbytes(run.key) for run, _ in done],
            [self.world.plan.specs[run.key].duration_s for run, _ in done],
        ), now)  # fmt: skip

    def _carry_out(self, effect: e.Effect) -> None:
        if isinstance(effect, e.RunTasks):
            runs = []
            for task in effect.tasks:
                assert task.function in self.functions, f"{task} has an unknown function"
                inputs = [self.store[key] for key in task.inputs]
                runs.append(Run(task.ticket, task.key, inputs))
            self.slots[effect.slot].inbox.append(runs)
        elif isinstance(effect, e.DropValues):
            for key in effect.keys:
                self.store.pop(key, None)
        elif isinstance(effect, e.AskSlot):
            self.slots[effect.slot].inbox.append(None)
        elif isinstance(effect, e.SendValue):
            for rank, request, home in effect.promised:
                self._send_values(rank, m.FetchValues(request, [effect.key], home))
        else:
            slot = SimSlot(effect.slot)
            self.slots[effect.slot : effect.slot + 1] = [slot]
            slot.sent.append(e.SlotStarted(slot.index))

    # --- slots ---

    def slot_step(self, slot: SimSlot, report_late: bool) -> None:
        """Let a slot do one thing; with `report_late` it keeps results while it has more to do."""
        self.give_back(slot)
        if slot.inbox:
            slot.queue.extend(slot.inbox.popleft() or ())
        elif slot.current is not None:
            slot.steps_left -= 1
            if slot.steps_left <= 0:
                self._end_run(slot, slot.current)
                if not (report_late and slot.queue):
                    self._report(slot)
        elif slot.queue:
            slot.current = slot.queue.popleft()
            slot.steps_left = self.world.plan.specs[slot.current.key].steps
            self.world.executing(self.rank, slot.current.key)
        else:
            self._report(slot)

    def give_back(self, slot: SimSlot) -> bool:
        """Let a slot answer if it is asked to; a thread of its own does it, beside its task."""
        asked = False
        while slot.inbox and slot.inbox[0] is None:
            asked = True
            slot.inbox.popleft()
            self._report(slot)
            slot.sent.append(e.SlotReturned(slot.index, [run.ticket for run in slot.queue]))
            slot.queue.clear()
        return asked

    def _report(self, slot: SimSlot) -> None:
        if slot.done:
            slot.sent.append(slot.done)
            slot.done = []

    def _end_run(self, slot: SimSlot, run: Run) -> None:
        spec, failures = self.world.plan.specs[run.key], self.world.failures
        if spec.kind == "kill":
            self.end_slot(slot)
        elif spec.kind == "raise" or (failures[run.key] < spec.raises and self._in_the_mood(run)):
            failures[run.key] += 1
            self._report(slot)
            error = raised_error(run.key, self.rank)
            slot.sent.append(e.SlotRaised(slot.index, run.ticket, error))
            slot.current = None
        else:
            slot.done.append((run, result_of(run.key, run.inputs)))
            slot.current = None

    def _in_the_mood(self, run: Run) -> bool:
        """Return whether a task raises that does so only sometimes."""
        runs, kind = self.world.tally.executions[run.key], self.world.plan.specs[run.key].kind
        return kind == "flaky" or runs % 2 == 0

    def lend(self, slot: SimSlot, say: bool = True) -> None:
        """Let the task of a slot wait for others, or go on, with or without a word about it."""
        slot.lent = not slot.lent
        if say:
            slot.sent.append(e.SlotLent(slot.index, slot.lent))

    def end_slot(self, slot: SimSlot) -> None:
        """Let a slot's process end; what it had finished and not reported is gone."""
        begun = [run for run, _ in slot.done]
        if slot.current is not None:
            begun.append(slot.current)
        for run in begun:
            self.world.run_lost(run.key)
        slot.alive = slot.lent = False
        slot.current, slot.done = None, []
        slot.queue.clear()
        slot.inbox.clear()
        slot.sent.append(e.SlotLost(slot.index, begun[-1].ticket if begun else 0, "a signal"))
