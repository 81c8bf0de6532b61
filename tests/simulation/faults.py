"""What goes wrong in a simulated run, and what do the scripts of its clients do?"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mpicluster import messages as m
from mpicluster.client.records import FINISHED, PENDING
from mpicluster.ids import SCHEDULER_RANK, Key, Rank
from mpicluster.messages import TaskOptions
from tests.simulation.choices import chance, pick, pick_some, pick_weighted
from tests.simulation.sim_client import SimClient
from tests.simulation.sim_worker import SimSlot, SimWorker
from tests.simulation.workload import Spec

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Of three ends of its slot a task would rightly fail with KilledWorker.
SLOT_ENDS_MAX = 2
#: A pair of ranks is silent for at most so many steps.
HOLD_STEPS_MAX = 150


class Faults:
    """The faults of one run, and what they have done."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.script = Script(world)
        #: {rank: whether it takes tasks as a last resort} of paused workers.
        self.paused: dict[Rank, bool] = {}
        self.lost: dict[Rank, None] = {}
        self.slot_ends: Counter[Key] = Counter()
        self.slow_rank: Rank = -1
        if world.options.slow_worker:
            self.slow_rank = pick(world.choices, list(world.workers))

    def possible(self) -> list[tuple[int, Callable[[], str]]]:
        """Return the faults that can happen now, with weights."""
        weight = self.world.options.fault_weight
        found: list[tuple[int, Callable[[], str]]] = []
        if self.world.options.churn:
            found.append((10, self._hold_worker))
        if not weight:
            return found
        found += [(weight, self._hold), (weight, self._pause)]
        slots = [
            (worker, slot) for worker in self._alive() for slot in worker.slots
            if slot.alive and (slot.current or slot.done)
        ]  # fmt: skip
        ending = [found for found in slots if self._may_end(found[1])]
        if ending:
            found.append((weight, partial(self._end_slot, ending)))
        lending = [found for found in slots if found[1].current]
        if lending:
            found.append((weight, partial(self._lend, lending)))
        if self.world.options.survive == "ranks" and len(self._alive()) > 1:
            found.append((max(1, weight // 3), self._lose_worker))
        return found

    def end(self) -> None:
        """Begin the calm: nothing is held any more, and paused workers at least end everything."""
        self.world.network.held_until.clear()
        for rank in list(self.paused):
            if chance(self.world.choices, 50):
                self._unpause(rank)
            else:
                self._make_last_resort(rank)
        for worker in self._alive():
            for slot in worker.slots:
                if slot.lent:
                    worker.lend(slot, say=chance(self.world.choices, 50))
        for number, (graph, _, _) in self.script.graphs.items():
            client = self.world.clients[number]
            if not client.left:
                client.core.to_scheduler(m.CloseGraph(graph))
                self.world.send_from_script(client)

    def _alive(self) -> list[SimWorker]:
        return [worker for worker in self.world.workers.values() if worker.alive]

    def _hold(self) -> str:
        world = self.world
        ranks = [SCHEDULER_RANK, *world.clients, *world.workers]
        pair = (pick(world.choices, ranks), pick(world.choices, ranks))
        until = world.step_number + world.choices.integer(1, HOLD_STEPS_MAX)
        world.network.held_until[pair] = until
        return f"nothing moves from {pair[0]} to {pair[1]} before step {until}"

    def _hold_worker(self) -> str:
        """Let the scheduler and a worker go on without each other for a while."""
        world = self.world
        pair = (pick(world.choices, self._alive()).rank, SCHEDULER_RANK)
        if chance(world.choices, 30):
            pair = (pair[1], pair[0])
        until = world.network.held_until[pair] = world.step_number + world.choices.integer(1, 40)
        return f"nothing moves from {pair[0]} to {pair[1]} before step {until}"

    def _pause(self) -> str:
        rank = pick(self.world.choices, self._alive()).rank
        if rank in self.paused:
            make = pick(self.world.choices, [self._unpause, self._make_last_resort])
            return make(rank)
        self.paused[rank] = False
        self.world.send(rank, SCHEDULER_RANK, [m.WorkerPaused(True)])
        return f"worker {rank} is paused"

    def _make_last_resort(self, rank: Rank) -> str:
        self.paused[rank] = True
        self.world.send(rank, SCHEDULER_RANK, [m.WorkerPaused(True, True)])
        return f"worker {rank} is paused and takes single tasks that no other can"

    def _unpause(self, rank: Rank) -> str:
        del self.paused[rank]
        self.world.send(rank, SCHEDULER_RANK, [m.WorkerPaused(False)])
        return f"worker {rank} takes tasks again"

    def _may_end(self, slot: SimSlot) -> bool:
        begun = [run.key for run, _ in slot.done]
        if slot.current is not None:
            begun.append(slot.current.key)
        return all(self.slot_ends[key] < SLOT_ENDS_MAX for key in begun)

    def _end_slot(self, slots: list[tuple[SimWorker, SimSlot]]) -> str:
        worker, slot = pick(self.world.choices, slots)
        for run, _ in slot.done:
            self.slot_ends[run.key] += 1
        if slot.current is not None:
            self.slot_ends[slot.current.key] += 1
        worker.end_slot(slot)
        return f"slot {slot.index} of worker {worker.rank} ends"

    def _lend(self, slots: list[tuple[SimWorker, SimSlot]]) -> str:
        """A task begins to wait for tasks of its own, or goes on."""
        worker, slot = pick(self.world.choices, slots)
        worker.lend(slot, say=not slot.lent or chance(self.world.choices, 50))
        return f"slot {slot.index} of worker {worker.rank} lent: {slot.lent}"

    def _lose_worker(self) -> str:
        """A rank is gone; the scheduler hears of it at once or after what was sent before."""
        world = self.world
        worker = pick(world.choices, self._alive())
        rank = worker.rank
        worker.alive = False
        self.lost[rank] = None
        self.paused.pop(rank, None)
        world.notices.pop(rank, None)
        world.network.cut(rank, sent_too=chance(world.choices, 50))
        for slot in worker.slots:
            begun = [run.key for run, _ in slot.done]
            begun += [slot.current.key] if slot.current is not None else []
            for key in begun:
                world.run_lost(key)
        known = world.scheduler.state.tasks
        for key, last_rank in world.tally.last_rank.items():
            if last_rank == rank and key not in known:
                world.run_lost(key)  # its client had sent it, and the scheduler has not heard of it
        notice = m.WorkerLost(rank, "a fault")
        world.notices.setdefault(SCHEDULER_RANK, []).append(notice)
        for other in self._alive():
            if chance(world.choices, 30):
                world.notices.setdefault(other.rank, []).append(notice)
        return f"worker {rank} is lost"


class Script:
    """What the users' scripts do, one action at a time."""

    def __init__(self, world: "World") -> None:
        self.world = world
        #: {client: (graph, its keys so far, messages that will follow)}.
        self.graphs: dict[int, tuple[int, list[Key], int]] = {}
        self.forced: dict[Key, None] = {}
        self.fire_and_forget: dict[Key, None] = {}
        #: With churn: a chain of which only the end is kept, so that the others come and go.
        self.base: list[Key] = []

    def act(self, client: SimClient) -> str:
        """Do something as a client's script."""
        if self.base and not self.world.actions_left:
            return self._come_and_go(client)
        if client.client in self.graphs:
            return self._go_on_with_graph(client)
        pending, finished = client.held(PENDING), client.held(FINISHED)
        actions: list[tuple[int, Callable[[SimClient], str]]] = [
            (30, self._submit), (15, self._submit_graph), (8, self._scatter), (8, self._want),
        ]  # fmt: skip
        if self.world.options.churn and not self.base:
            return self._submit_base(client)
        if self.world.options.churn:
            actions.append((self.world.options.churn, self._come_and_go))
        if self.world.options.patient:
            actions.append((150, self._submit_alone))
        if client.futures:
            actions += [(12, self._release), (5, self._cancel), (3, self._gather)]
        if pending:
            actions.append((3, self._finish))
        if finished:
            actions.append((8, self._replicate))
        if sum(other.started for other in self.world.clients.values()) > 1:
            actions.append((1, self._leave))
        return pick_weighted(self.world.choices, actions)(client)

    # --- tasks ---

    def _specs(self, client: SimClient, needs_from: list[Key], count: int) -> list[Spec]:
        """Make up tasks that may need each other and `needs_from`."""
        world, choices, options = self.world, self.world.choices, self.world.options
        usable = list(dict.fromkeys(needs_from))
        restrictions = TaskOptions(priority=choices.integer(-1, 1))
        impossible = False
        if chance(choices, options.restricted):
            restrictions, impossible = self._restrictions()
        duration_s = pick(choices, [1e-6, 1e-3, 0.1])
        specs: list[Spec] = []
        for _ in range(count):
            key = client.core.next_number()
            kind = self._kind()
            spec = Spec(
                key=key,
                needs=tuple(pick_some(choices, usable, options.needs_max)),
                kind=kind,
                nbytes=1000 if chance(choices, options.large) else pick(choices, [1, 8, 20]),
                duration_s=duration_s,
                steps=choices.integer(1, options.task_steps_max),
                raises=choices.integer(1, 2) if kind == "flaky" else 0,
                options=restrictions,
                impossible=impossible,
            )
            world.plan.add(spec, client.client)
            specs.append(spec)
            usable.append(key)
        return specs

    def _kind(self) -> str:
        options = self.world.options
        number = self.world.choices.integer(0, 99)
        for kind, share in (
            ("raise", options.raising), ("kill", options.killing), ("flaky", options.flaky)
        ):  # fmt: skip
            number -= share
            if number < 0:
                return kind
        return "value"

    def _restrictions(self) -> tuple[TaskOptions, bool]:
        """Return restrictions, and whether no worker could ever meet them."""
        choices, resources = self.world.choices, self.world.resources
        alive = [worker.rank for worker in self.world.workers.values() if worker.alive]
        if chance(choices, 50):
            offered = any(resources[rank] for rank in alive)
            amount = 1.0 if chance(choices, 90) else 5.0
            return TaskOptions(resources=(("GPU", amount),)), not offered or amount > 2
        some = pick_some(choices, alive, 2) or [alive[0]]
        return TaskOptions(workers=tuple(some), allow_other_workers=chance(choices, 30)), False

    def _submit(self, client: SimClient) -> str:
        """Send independent tasks that may need any future that the client holds."""
        if chance(self.world.choices, self.world.options.alone):
            return self._submit_alone(client)
        count = self.world.choices.integer(1, self.world.options.graph_tasks_max)
        specs = self._specs(client, client.usable(), count)
        wanted = [True] * count
        client.submit(specs, wanted, retries=2, graph=0)
        return f"submits {[spec.key for spec in specs]}"

    def _submit_alone(self, client: SimClient) -> str:
        """Send a task that the client may send to a worker itself."""
        choices = self.world.choices
        kind = "raise" if chance(choices, self.world.options.raising) else "value"
        steps = choices.integer(1, self.world.options.task_steps_max)
        spec = Spec(client.core.next_number(), (), kind, pick(choices, [1, 8, 20]), 1e-3, steps)
        self.world.plan.add(spec, client.client)
        client.submit([spec], [True], retries=0, graph=0)
        return f"submits {spec.key}, alone"

    def _submit_base(self, client: SimClient) -> str:
        """Send a chain whose end stays wanted: its tasks can always be computed again."""
        needs: tuple[Key, ...] = ()
        specs: list[Spec] = []
        for _ in range(4):
            raises = self.world.choices.integer(0, 6)
            spec = Spec(
                client.core.next_number(), needs, "moody", 8, 0.001,
                self.world.choices.integer(1, min(4, self.world.options.task_steps_max)), raises,
            )  # fmt: skip
            self.world.plan.add(spec, client.client)
            specs.append(spec)
            needs = (spec.key,)
        client.submit(specs, [False] * 3 + [True], retries=6, graph=0)
        self.base = [spec.key for spec in specs]
        return f"submits the chain {self.base}"

    def _submit_graph(self, client: SimClient) -> str:
        """Begin a graph that comes in several messages; only some of its tasks are wanted."""
        self.graphs[client.client] = (
            client.core.next_number(), [], self.world.choices.integer(1, 3)
        )  # fmt: skip
        return self._go_on_with_graph(client)

    def _go_on_with_graph(self, client: SimClient) -> str:
        choices = self.world.choices
        graph, keys, messages = self.graphs[client.client]
        count = choices.integer(1, self.world.options.graph_tasks_max)
        specs = self._specs(client, [*client.usable(), *keys], count)
        last = messages <= 1
        wanted = [chance(choices, 30) for _ in specs]
        wanted[-1] = wanted[-1] or last
        client.submit(specs, wanted, retries=2, graph=graph)
        keys += [spec.key for spec in specs]
        if last:
            client.core.to_scheduler(m.CloseGraph(graph))
            del self.graphs[client.client]
        else:
            self.graphs[client.client] = (graph, keys, messages - 1)
        return f"sends {[spec.key for spec in specs]} of graph {graph}{', the last' * last}"

    def _scatter(self, client: SimClient) -> str:
        world, choices = self.world, self.world.choices
        known = [description["rank"] for description in client.core.workers or []]
        if not known:
            return "has no worker left"
        keys: list[Key] = []
        for _ in range(choices.integer(1, 3)):
            key = client.core.next_number()
            nbytes = 1000 if chance(choices, world.options.large) else 8
            world.plan.add(Spec(key, (), "scattered", nbytes, 0.0, 0), client.client)
            keys.append(key)
        ranks = [pick(choices, known) for _ in keys]
        client.scatter(keys, ranks, world.config.inline_bytes_max)
        return f"scatters {keys} to {ranks}"

    # --- futures ---

    def _release(self, client: SimClient) -> str:
        held = [key for key in client.futures if key not in self.base]
        keys = pick_some(self.world.choices, held, 4)
        client.release(keys)
        return f"releases {keys}"

    def _come_and_go(self, client: SimClient) -> str:
        """Let go of a future of the chain, or take one."""
        self.world.actions_left += 1  # until the storm is over
        held = [key for key in self.base[:-1] if key in client.futures]
        if held and chance(self.world.choices, 70):
            client.release(held)
            return f"releases {held}"
        return self._want(client)

    def _cancel(self, client: SimClient) -> str:
        held = [key for key in client.futures if key not in self.base]
        keys = pick_some(self.world.choices, held, 2)
        force = chance(self.world.choices, 30)
        client.cancel(keys, force)
        if force:
            self.forced.update(dict.fromkeys(keys))
        return f"cancels {keys}{' by force' * force}"

    def _gather(self, client: SimClient) -> str:
        client.gathering = not client.gathering
        return "begins to gather" if client.gathering else "stops to gather"

    def _finish(self, client: SimClient) -> str:
        held = [key for key in client.held(PENDING) if key not in self.base]
        if not held:
            return "finds nothing to fire"
        key = pick(self.world.choices, held)
        client.core.to_scheduler(m.FinishKeys([key]))
        client.release([key])
        self.fire_and_forget[key] = None
        return f"fires {key} and forgets it"

    def _replicate(self, client: SimClient) -> str:
        choices = self.world.choices
        keys = pick_some(choices, client.held(FINISHED), 3)
        ranks = pick_some(choices, list(self.world.workers), 8)
        client.replicate(keys, ranks)
        return f"wants {keys} on {ranks}"

    def _want(self, client: SimClient) -> str:
        """Take a future of a key without submitting it, as a future in a result does."""
        others = [key for key in self.world.plan.owners if key not in client.futures]
        if not others:
            return "finds no key that it could want"
        if self.world.options.churn and chance(self.world.choices, 80):
            others = [key for key in others if key in self.base] or others
        key = pick(self.world.choices, others)
        client.want(key)
        return f"wants {key}"

    def _leave(self, client: SimClient) -> str:
        client.leave()
        return "leaves"
