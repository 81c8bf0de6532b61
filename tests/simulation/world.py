"""How does a simulated run go?

One scheduler core, some workers and clients, one network, one virtual clock. A step is one turn
of one rank with some of what has arrived, one step of a slot, an action of a script, or a fault.
In the storm faults happen and safety is checked after each step; in the calm everything must come
to its right end and leave nothing behind.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from hashlib import blake2b

from mpicluster import messages as m
from mpicluster.client.records import PENDING
from mpicluster.config import Config
from mpicluster.ids import SCHEDULER_RANK, Key, Rank
from mpicluster.scheduler import checks
from mpicluster.scheduler.core import SchedulerCore
from tests.simulation import checkers, faults
from tests.simulation.choices import Choices, chance, pick, pick_weighted
from tests.simulation.network import Lane, Network
from tests.simulation.sim_client import SimClient
from tests.simulation.sim_worker import SimSlot, SimWorker
from tests.simulation.tally import Tally
from tests.simulation.workload import Plan

Action = Callable[[], str]
#: Lines of history printed with a failure.
HISTORY_LINES = 50
#: So many deadlines may pass one after the other without anything else happening.
QUIET_STEPS_MAX = 100


class SimulationError(AssertionError):
    """A simulated run has gone wrong."""


@dataclass(frozen=True, slots=True)
class Options:
    """What differs from run to run (swarm testing): drawn first, printed first."""

    workers: int
    slots: int
    clients: int
    survive: str
    #: Steps of the storm, and scripts' actions in it.
    storm_steps: int
    actions: int
    #: Tasks in a graph at most, and how many inputs they have.
    graph_tasks_max: int
    needs_max: int
    #: Percent of tasks that raise, end their slot, raise at first.
    raising: int
    killing: int
    flaky: int
    #: Percent of graphs with restrictions or priorities.
    restricted: int
    #: Tasks take up to so many steps, whatever they say.
    task_steps_max: int
    #: Percent of values that travel on their own.
    large: int
    #: Virtual time per step, in microseconds.
    step_us: int
    #: Percent of what has arrived that a turn takes.
    takes: int
    #: Weight of a fault against 100 for an action.
    fault_weight: int
    slow_worker: int
    #: Weight of futures that come and go, of keys that the scheduler knows.
    churn: int
    #: Percent of submits that are one task without inputs and options.
    alone: int
    #: Whether scripts mostly wait for their tasks before they do anything else.
    patient: bool
    #: Milliseconds of work sent ahead to workers and slots.
    ahead_ms: int
    #: Milliseconds that inputs may take of tasks which are sent before these are made.
    promise_ms: int

    @classmethod
    def draw(cls, choices: Choices) -> "Options":
        """Draw the options of a run."""
        integer = choices.integer
        churn = pick(choices, [0, 0, 0, 100])
        patient = not churn and chance(choices, 30)
        return cls(
            workers=integer(1, 8) if chance(choices, 50) and not churn else integer(1, 2),
            slots=integer(1, 3),
            clients=integer(1, 3) if chance(choices, 50) else 1,
            survive=pick(choices, ["tasks", "ranks"]) if not churn else "ranks",
            storm_steps=integer(60, 300) if not churn and not patient else 400,
            actions=integer(3, 50) if not churn else integer(1, 8),
            graph_tasks_max=integer(1, 8),
            needs_max=integer(1, 4),
            raising=pick(choices, [0, 0, 5, 20]),
            killing=pick(choices, [0, 0, 0, 8]),
            flaky=pick(choices, [0, 0, 20]),
            restricted=pick(choices, [0, 0, 40]),
            task_steps_max=integer(1, 2) if churn or patient else pick(choices, [1, 3, 12, 40]),
            large=pick(choices, [0, 30, 80]),
            step_us=pick(choices, [10, 1000, 20000]),
            takes=pick(choices, [100, 70, 30]),
            fault_weight=pick(choices, [0, 2, 10]),
            slow_worker=pick(choices, [0, 0, 2]),
            churn=churn,
            alone=90 if patient else pick(choices, [0, 0, 30]),
            patient=patient,
            ahead_ms=pick(choices, [2, 20, 2000]),
            promise_ms=pick(choices, [0, 5, 1_000_000, 1_000_000]),
        )

    def __str__(self) -> str:
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))


class World:
    """All that takes part in a run."""

    def __init__(self, choices: Choices, keep_trace: bool = False) -> None:
        self.choices = choices
        self.options = options = Options.draw(choices)
        self.config = Config(
            survive=options.survive, history_length=1_000_000, push_bytes_max=8,
            inline_bytes_max=100, submit_credits=2, fetches_max=2, slot_queue_max=4,
            prefetch_tasks_max=10, prefetch_s=options.ahead_ms * 1e-3,
            slot_queue_s=options.ahead_ms * 1e-3, balance_interval_s=options.step_us * 5e-6,
            steal_after_s=options.step_us * 20e-6, promise_s=options.promise_ms * 1e-3,
        )  # fmt: skip
        self.plan = Plan()
        self.network = Network()
        self.now = 0.0
        self.step_number = 0
        self.storm = True
        #: Steps in a row that only a deadline gave rise to.
        self.quiet_steps = 0
        ranks = list(range(1 + options.clients, 1 + options.clients + options.workers))
        self.scheduler = SchedulerCore(self.config, ranks)
        self.workers = {rank: SimWorker(self.config, rank, options.slots, self) for rank in ranks}
        self.clients = {
            rank: SimClient(self.config, rank, self.plan, self.send)
            for rank in range(1, 1 + options.clients)
        }
        self.resources: dict[Rank, dict[str, float]] = {
            rank: {"GPU": 2.0} if chance(choices, 40) else {} for rank in ranks
        }
        #: Events that come to a rank from outside the network: {rank: [message, ...]}.
        self.notices: dict[Rank, list[m.Message]] = {}
        self.failures: Counter[Key] = Counter()
        self.tally = Tally()
        self.actions_left = options.actions
        self.faults = faults.Faults(self)
        self.history: deque[str] = deque(maxlen=None if keep_trace else HISTORY_LINES)
        self._digest = blake2b(digest_size=16)
        self._start()

    # --- the run ---

    def run(self, until_step: int | None = None) -> None:
        """Run storm and calm; raise `SimulationError` with the history if anything is wrong."""
        try:
            while self.step_number < self.options.storm_steps:
                if not self.step():
                    break
                if self.step_number == until_step:
                    return
            self._calm(until_step)
        except Exception as error:
            raise SimulationError(self._report(error)) from error

    def _calm(self, until_step: int | None) -> None:
        """No more faults: let all come to its end, take the results, release everything."""
        self.storm = False
        self.faults.end()
        for client in self.clients.values():
            client.gathering = True
            self.send_from_script(client)
        self._settle(until_step, lambda: not checkers.unsettled(self))
        checkers.check_results(self)
        for client in self.clients.values():
            client.gathering = False
            client.release(list(client.futures))
            self.send_from_script(client)
        self._settle(until_step, lambda: True)
        checkers.check_nothing_left(self)

    def _settle(self, until_step: int | None, done: Callable[[], bool]) -> None:
        """Step until nothing moves any more and all is done, within a bounded number of steps."""
        most = 3000 + 200 * len(self.plan.specs) * (1 + self.options.task_steps_max // 10)
        for _ in range(most):
            if self.step_number == until_step:
                return
            if not self.step():
                if done():
                    return
                break
            if self.quiet_steps > QUIET_STEPS_MAX:
                break
        raise AssertionError(checkers.describe_stuck(self, most))

    def step(self) -> bool:
        """Do one thing; return False if there is nothing to do."""
        self.now += self.options.step_us * 1e-6
        actions = self._actions()
        self.quiet_steps = 0 if actions else self.quiet_steps + 1
        if not actions and not self._pass_time():
            return False
        self.step_number += 1
        actions = actions or self._actions()
        text = pick_weighted(self.choices, actions)() if actions else "time passes"
        line = f"{self.step_number} {self.now:.6f} {text}"
        self.history.append(line)
        self._digest.update(line.encode())
        return True

    def _pass_time(self) -> bool:
        """Go to the next deadline; return False if there is none."""
        cores = [self.scheduler, *(client.core for client in self.clients.values())]
        cores += [worker.core for worker in self.workers.values() if worker.alive]
        deadlines = [found for core in cores if (found := core.next_deadline()) is not None]
        if not deadlines:
            return False
        self.now = max(self.now, min(deadlines))
        return True

    @property
    def digest(self) -> str:
        """A short text that two runs share if they went the same way."""
        return self._digest.hexdigest()

    # --- what can happen ---

    def _actions(self) -> list[tuple[int, Action]]:
        """Return all that could happen now, with weights."""
        actions: list[tuple[int, Action]] = []
        ready = {**self.network.targets(self.step_number), **dict.fromkeys(self.notices)}
        for rank in ready:
            actions.append((40, partial(self._turn, rank)))
        for rank, worker in self.workers.items():
            if not worker.alive:
                continue
            slow = self.storm and rank == self.faults.slow_rank
            weight = self.options.slow_worker if slow else 40
            for slot in worker.slots:
                if slot.busy:
                    actions.append((weight or 1, partial(self._slot_step, worker, slot)))
            deadline = worker.core.next_deadline()
            due = deadline is not None and deadline <= self.now
            if rank not in ready and (due or any(slot.sent for slot in worker.slots)):
                actions.append((40, partial(self._turn, rank)))
        for rank, client in self.clients.items():
            deadline = client.core.next_deadline()
            if rank not in ready and deadline is not None and deadline <= self.now:
                actions.append((40, partial(self._turn, rank)))
        deadline = self.scheduler.next_deadline()
        if SCHEDULER_RANK not in ready and deadline is not None and deadline <= self.now:
            actions.append((40, partial(self._turn, SCHEDULER_RANK)))
        if self.storm:
            started = [client for client in self.clients.values() if client.started]
            if self.actions_left and started:
                waits = self.options.patient and all(client.held(PENDING) for client in started)
                actions.append((3 if waits else 60, self._script_action))
            actions += self.faults.possible()
        return actions

    def _turn(self, rank: Rank) -> str:
        """Let a rank take some of what has arrived for it."""
        arrived: list[tuple[Rank, list[m.Message]]] = []
        lanes = self.network.waiting(rank, self.step_number)
        for lane in lanes:
            while lane in self.network.lanes and (
                not arrived or chance(self.choices, self.options.takes)
            ):
                arrived.append((lane[0], self._deliver(lane)))
        arrived += [(SCHEDULER_RANK, [notice]) for notice in self.notices.pop(rank, ())]
        if rank == SCHEDULER_RANK:
            self._scheduler_turn(arrived)
        elif rank in self.clients:
            self.clients[rank].turn(arrived, self.now)
        else:
            self.workers[rank].turn(arrived, self.now)
        return f"rank {rank} takes " + "; ".join(
            f"from {source}: {', '.join(map(repr, messages))}" for source, messages in arrived
        )

    def _deliver(self, lane: Lane) -> list[m.Message]:
        return self.network.deliver(lane)

    def _scheduler_turn(self, arrived: list[tuple[Rank, list[m.Message]]]) -> None:
        core = self.scheduler
        for source, messages in arrived:
            for message in messages:
                core.receive(source, message, self.now)
                checks.check_state(core.state, decided=False)
        more = bool(self.network.waiting(SCHEDULER_RANK, self.step_number))
        for rank, bundle in core.outgoing(self.now, more=more):
            self.send(SCHEDULER_RANK, rank, bundle)
            if any(isinstance(message, m.ComputeTasks) for message in bundle):
                checkers.check_pause(core.state, rank)
            for message in bundle:
                if isinstance(message, m.Answer) and rank in self.clients:
                    checkers.check_copies(core.state, self.clients[rank], message)
        checks.check_state(core.state)
        self.tally.read(core.state)
        checkers.check_holders(self)

    def _slot_step(self, worker: SimWorker, slot: SimSlot) -> str:
        late = chance(self.choices, 50) if len(slot.queue) else False
        worker.slot_step(slot, late)
        return f"rank {worker.rank} slot {slot.index} goes on with {slot.current}"

    def _script_action(self) -> str:
        started = [client for client in self.clients.values() if client.started]
        at_rest = [client for client in started if not client.held(PENDING)]
        client = pick(self.choices, (self.options.patient and at_rest) or started)
        self.actions_left -= 1
        text = self.faults.script.act(client)
        self.send_from_script(client)
        return f"client {client.client} {text}"

    # --- what ranks do to each other ---

    def _start(self) -> None:
        for client in self.clients.values():
            client.turn([], 0.0)
        for rank in self.workers:
            description = {
                "host": f"host{rank // 2}", "slots": self.options.slots, "memory_limit": 100_000,
                "resources": self.resources[rank],
            }  # fmt: skip
            self.send(rank, SCHEDULER_RANK, [m.WorkerStarted(description)])

    def send(self, source: Rank, target: Rank, messages: list[m.Message]) -> None:
        """Put messages on their way, unless their target is gone."""
        worker = self.workers.get(target)
        if messages and (worker is None or worker.alive):
            self.network.send(source, target, messages)

    def send_from_script(self, client: SimClient) -> None:
        """Let a client send what its script has asked for."""
        client.turn([], self.now)

    def executing(self, rank: Rank, key: Key) -> None:
        """A slot begins to execute a task."""
        self.tally.executed(key, rank)

    def run_lost(self, key: Key) -> None:
        """A slot ended before it reported a task that it had begun."""
        self.tally.allowed[key] += 1

    # --- failures ---

    def _report(self, error: Exception) -> str:
        return "\n".join([
            f"{type(error).__name__}: {error}",
            f"options: {self.options}",
            f"the last steps, up to {self.step_number} ({'storm' if self.storm else 'calm'}):",
            *(f"  {line[:400]}" for line in list(self.history)[-HISTORY_LINES:]),
            f"  then: {type(error).__name__}",
        ])  # fmt: skip
