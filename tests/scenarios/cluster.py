"""What do the ranks tell each other, step by step?

Plays a transcript: lines that begin with `>` are commands, what follows them are the messages that
the command gives rise to, in order, until nothing moves any more. The scheduler, the workers and
the client are the real cores; slots end their tasks only on command.

    python -m tests.scenarios.cluster --rewrite     writes the messages anew into all transcripts
"""

import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.ids import SCHEDULER_RANK, Key, Rank
from mpicluster.scheduler import checks
from mpicluster.scheduler.core import SchedulerCore
from tests.simulation.sim_client import SimClient
from tests.simulation.sim_worker import SimSlot, SimWorker
from tests.simulation.tally import Tally
from tests.simulation.workload import Plan, Spec

TRANSCRIPTS = Path(__file__).parent
CLIENT = 1
#: What is the same in all scenarios and would hide the rest.
UNTOLD = (m.TasksAccepted, m.DefineFunctions, m.WorkerStarted, m.ClientStarted, m.ClusterStarted)


class Cluster:
    """A small cluster that does what a transcript says."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.tally = Tally()
        self.failures: Counter[Key] = Counter()
        self.names: dict[Key, str] = {}
        self.keys: dict[str, Key] = {}
        self.now = 0.0
        self.lines: list[str] = []
        self.moving: deque[tuple[Rank, Rank, list[m.Message]]] = deque()
        #: {(source, target): bundles} of pairs of ranks between which nothing moves.
        self.held: dict[tuple[Rank, Rank], list[list[m.Message]]] = {}
        self.workers: dict[Rank, SimWorker] = {}
        self._commands: dict[str, Callable[..., None]] = {
            "workers": self._workers, "submit": self._submit, "finish": self._finish,
            "raise": self._raise, "kill": self._kill, "release": self._release,
            "cancel": self._cancel, "scatter": self._scatter, "replicate": self._replicate,
            "pause": self._pause, "unpause": self._unpause, "lose": self._lose,
            "hold": self._hold, "let": self._let,
            "wait": self._wait, "where": self._where, "want": self._want,
        }  # fmt: skip

    def play(self, transcript: str) -> str:
        """Return the transcript with the messages that really come."""
        for line in transcript.splitlines():
            if line.startswith(">"):
                self.lines.append(line)
                name, *words = line[1:].split()
                plain = [word for word in words if "=" not in word]
                options = dict(word.split("=") for word in words if "=" in word)
                self._commands[name](*plain, **options)
                self._move()
            elif line.startswith("#") or not line:
                self.lines.append(line)
        return "\n".join(self.lines) + "\n"

    # --- what the parts of the simulator ask of their world ---

    def send(self, source: Rank, target: Rank, messages: list[m.Message]) -> None:
        """Put messages on their way, unless their target is gone."""
        worker = self.workers.get(target)
        if messages and (worker is None or worker.alive):
            self.moving.append((source, target, m.decode_bundle(m.encode_bundle(messages))))

    def executing(self, rank: Rank, key: Key) -> None:
        """Show that a slot begins a task."""
        self.tally.executions[key] += 1
        self.lines.append(f"  {rank} executes {self.names[key]}")

    def run_lost(self, key: Key) -> None:
        """Nothing: transcripts show what follows."""

    # --- moving ---

    def _move(self) -> None:
        """Deliver everything, in the order in which it was sent."""
        self._turn_client([])
        self._turn_scheduler([])
        while True:
            while self.moving:
                source, target, messages = self.moving.popleft()
                if (source, target) in self.held:
                    self.held[source, target].append(messages)
                    continue
                for message in messages:
                    self._show(source, target, message)
                if target == SCHEDULER_RANK:
                    self._turn_scheduler([(source, messages)])
                elif target == CLIENT:
                    self._turn_client([(source, messages)])
                elif self.workers[target].alive:
                    self._turn_worker(self.workers[target], [(source, messages)])
            if any(self._start_tasks(worker) for worker in self.workers.values()):
                continue
            due = self.client.core.next_deadline()
            if due is None:
                return
            self.now = max(self.now, due)
            self._turn_client([])

    def _turn_scheduler(self, arrived: list[tuple[Rank, list[m.Message]]]) -> None:
        for source, messages in arrived:
            for message in messages:
                self.scheduler.receive(source, message, self.now)
        for rank, bundle in self.scheduler.outgoing(self.now):
            self.send(SCHEDULER_RANK, rank, bundle)
        checks.check_state(self.scheduler.state)

    def _turn_client(self, arrived: list[tuple[Rank, list[m.Message]]]) -> None:
        self.client.turn(arrived, self.now)

    def _turn_worker(
        self, worker: SimWorker, arrived: list[tuple[Rank, list[m.Message]]]
    ) -> None:  # fmt: skip
        worker.turn(arrived, self.now)

    def _start_tasks(self, worker: SimWorker) -> bool:
        """Let free slots begin what they have been given; return whether anything happened."""
        if not worker.alive:
            return False
        happened = any(slot.sent for slot in worker.slots)
        for slot in worker.slots:
            while worker.give_back(slot) or slot.inbox or (slot.queue and slot.current is None):
                if slot.inbox or slot.current is None:
                    worker.slot_step(slot, report_late=False)
                happened = True
        if happened:
            self._turn_worker(worker, [])
        return happened

    # --- showing ---

    def _show(self, source: Rank, target: Rank, message: m.Message) -> None:
        if not isinstance(message, UNTOLD):
            self.lines.append(f"  {source} -> {target}  {self._describe(message)}")

    def _named(self, keys: list[Key]) -> str:
        return " ".join(self.names[key] for key in keys)

    def _describe(self, message: m.Message) -> str:
        name, found = type(message).__name__, message
        attempts: list[int] | None = getattr(found, "attempts", None)
        if attempts is not None:
            keys: list[Key] = getattr(found, "keys", [])
            text = " ".join(
                f"{self.names[k]}#{a}" for k, a in zip(keys, attempts, strict=True)
            )  # fmt: skip
        elif hasattr(found, "keys"):
            text = self._named(found.keys)
        elif hasattr(found, "key"):
            text = f"{self.names[found.key]}" + (
                f"#{found.attempt}" if hasattr(found, "attempt") else ""
            )
        else:
            text = ""
        return f"{name} {text}{self._details(message)}".rstrip()

    def _details(self, message: m.Message) -> str:
        """Return what matters of a message beside its keys."""
        if isinstance(message, m.ComputeTasks | m.AcquireValues):
            rows = [f"{self.names[key]} on {ranks}" for key, _, ranks in message.holders]
            own = "" if isinstance(message, m.ComputeTasks) else " ".join(rows)
            return own or (f"  (fetch {', '.join(rows)})" if rows else "")
        if isinstance(message, m.KeysErred | m.TaskErred):
            name: str = message.error[1]
            raised = self.names.get(int(name[5:])) if name[5:].isdigit() else None
            return f"  (raised by {raised})" if raised else f"  ({name})"
        if isinstance(message, m.TaskKilled):
            return f"  ({message.how})"
        if isinstance(message, m.InputsMissing):
            return f"  (not found: {self._named(message.inputs)})"
        if isinstance(message, m.TasksYielded) and message.refused:
            return f"  (kept: {self._named(message.refused)})"
        if isinstance(message, m.KeysFinished):
            return f"  (on {' '.join(map(str, message.ranks))})"
        if isinstance(message, m.WorkerLost):
            return str(message.rank)
        if isinstance(message, m.WorkerPaused):
            return f"{message.paused}{' (takes single ones)' * message.last_resort}"
        if isinstance(message, m.SlotsChanged):
            return f"{message.lent} lent, {message.abandoned} abandoned"
        return ""

    # --- commands ---

    def _workers(self, count: str, **options: str) -> None:
        """Start a cluster; options are settings, slots, or hosts that the workers share."""
        slots, hosts = int(options.pop("slots", 1)), int(options.pop("hosts", count))
        config = Config().update(options, "a transcript")
        ranks = list(range(2, 2 + int(count)))
        self.scheduler = SchedulerCore(config, ranks)
        self.client = SimClient(config, CLIENT, self.plan, self.send)
        for rank in ranks:
            self.workers[rank] = SimWorker(config, rank, slots, self)
            description = {"slots": slots, "host": f"host{(rank - 2) * hosts // int(count)}"}
            self.send(rank, SCHEDULER_RANK, [m.WorkerStarted(description)])

    def _submit(self, *names: str, **options: str) -> None:
        """Submit tasks; `needs=a,b`, `workers=2,3`, `retries=1`, `seconds=0.1` and `nbytes=8` hold
        for all.
        """
        needs = tuple(self.keys[name] for name in options.get("needs", "").split(",") if name)
        ranks = tuple(int(rank) for rank in options.get("workers", "").split(",") if rank)
        specs = []
        for name in names:
            key = self._key(name)
            spec = Spec(
                key, needs, "value", int(options.get("nbytes", 10_000)),
                float(options.get("seconds", 0.001)), 1,
                options=m.TaskOptions(workers=ranks),
            )  # fmt: skip
            self.plan.add(spec, CLIENT)
            specs.append(spec)
        self.client.submit(specs, [True] * len(specs), int(options.get("retries", 0)), 0)

    def _key(self, name: str) -> Key:
        self.keys[name] = self.client.core.next_number()
        self.names[self.keys[name]] = name
        return self.keys[name]

    def _slot_of(self, name: str) -> tuple[SimWorker, SimSlot]:
        for worker in self.workers.values():
            for slot in worker.slots:
                if slot.current is not None and slot.current.key == self.keys[name]:
                    return worker, slot
        raise LookupError(f"no slot executes {name}")

    def _finish(self, *names: str) -> None:
        for name in names:
            worker, slot = self._slot_of(name)
            worker.slot_step(slot, report_late=False)

    def _end_as(self, name: str, kind: str) -> None:
        spec = self.plan.specs[self.keys[name]]
        self.plan.specs[spec.key] = replace(spec, kind=kind)
        self._finish(name)
        self.plan.specs[spec.key] = spec

    def _raise(self, name: str) -> None:
        self._end_as(name, "raise")

    def _kill(self, name: str) -> None:
        self._end_as(name, "kill")

    def _release(self, *names: str) -> None:
        self.client.release([self.keys[name] for name in names])

    def _cancel(self, *names: str) -> None:
        self.client.cancel([self.keys[name] for name in names], force=False)

    def _want(self, *names: str) -> None:
        for name in names:
            self.client.want(self.keys[name])

    def _scatter(self, name: str, rank: str) -> None:
        key = self._key(name)
        self.plan.add(Spec(key, (), "scattered", 1000, 0.0, 0), CLIENT)
        self.client.scatter([key], [int(rank)], 65536)

    def _replicate(self, name: str, *ranks: str) -> None:
        keys = [self.keys[name]]
        self.client.core.to_scheduler(m.ReplicateKeys(keys, [int(rank) for rank in ranks]))

    def _pause(self, rank: str, last_resort: str = "no") -> None:
        paused = m.WorkerPaused(True, last_resort == "yes")
        self.send(int(rank), SCHEDULER_RANK, [paused])

    def _unpause(self, rank: str) -> None:
        self.send(int(rank), SCHEDULER_RANK, [m.WorkerPaused(False)])

    def _lose(self, rank: str) -> None:
        self.workers[int(rank)].alive = False
        lost: Any = m.WorkerLost(int(rank), "lost in a transcript")
        self.scheduler.receive(SCHEDULER_RANK, lost, self.now)

    def _hold(self, source: str, target: str) -> None:
        self.held[int(source), int(target)] = []

    def _let(self, source: str, target: str) -> None:
        pair = (int(source), int(target))
        self.moving.extend((*pair, messages) for messages in self.held.pop(pair))

    def _wait(self, seconds: str) -> None:
        """Let time pass; silent slots are asked, workers that are behind give tasks back."""
        self.now += float(seconds)
        for worker in self.workers.values():
            if worker.alive:
                self._turn_worker(worker, [])

    def _where(self) -> None:
        """Show which values are where, and which tasks are with whom."""
        for rank, worker in self.scheduler.state.workers.items():
            values = self._named(list(worker.has_what)) or "nothing"
            tasks = self._named(list(worker.processing)) or "nothing"
            self.lines.append(f"  {rank} has {values}, processes {tasks}")


def rewrite() -> None:
    """Write what really comes into all transcripts."""
    for path in sorted(TRANSCRIPTS.glob("*.txt")):
        path.write_text(Cluster().play(path.read_text()))


if __name__ == "__main__":
    if "--rewrite" in sys.argv:
        rewrite()
    else:
        print(__doc__)
