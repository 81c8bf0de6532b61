"""What must hold in a simulated run beyond the cores' own invariants?"""

from typing import TYPE_CHECKING

from mpicluster import messages as m
from mpicluster.ids import Key, Rank
from mpicluster.scheduler import checks
from mpicluster.scheduler.placement import has_resources
from mpicluster.scheduler.records import SchedulerState
from tests.simulation.sim_client import SimClient

if TYPE_CHECKING:
    from tests.simulation.world import World


def check_holders(world: "World") -> None:
    """Check that each value is where the scheduler thinks it is."""
    for rank, record in world.scheduler.state.workers.items():
        worker = world.workers[rank]
        if worker.alive:
            for key in record.has_what:
                checks.demand(
                    key in worker.store, world.scheduler.state, key, f"not in the store of {rank}"
                )


def unsettled(world: "World") -> list[Key]:
    """Return the keys of all futures that have come to no end."""
    return [key for client in world.clients.values() for key in client.unsettled()]


def describe_stuck(world: "World", steps: int) -> str:
    """Say what hangs, with its story."""
    state = world.scheduler.state
    keys = unsettled(world)
    lines = [f"The calm came to no end within {steps} steps; these futures hang: {keys}"]
    for key in keys[:3]:
        for needed in sorted(world.plan.closures[key]):
            lines += [f"{needed} ({state.tasks.get(needed)!r}):", checks.story(state, needed)]
    return "\n".join(lines)


def check_results(world: "World") -> None:
    """Check that every future has the right value or an error that is right."""
    for client in world.clients.values():
        for key in client.futures:
            text = client.problem(key, excuses(world, client, key))
            checks.demand(
                text is None, world.scheduler.state, key, f"the future of {client.client} {text}"
            )
    wanted = world.scheduler.replication.wanted
    assert not wanted, f"copies of {wanted} were never made"
    for client in world.clients.values():
        assert client.left or not client.copying, f"{client.client} waits for {client.copying}"
    for key in world.faults.script.fire_and_forget:
        outcome = world.plan.outcomes[key]
        closure = world.plan.closures[key]
        excused = outcome.errors or world.faults.lost or closure & cancelled_keys(world)
        executed = excused or world.plan.specs[key].kind == "scattered" or (
            world.tally.executions[key] > 0
        )  # fmt: skip
        excused_by_forgetting = closure & foreign_keys(world)
        assert executed or excused_by_forgetting, f"{key} was fired and never executed"


def check_copies(state: SchedulerState, client: SimClient, answer: m.Answer) -> None:
    """Check that copies are there when their client is told that they are.

    Of several values the first that was copied may have been released since.
    """
    keys, ranks = client.copying.get(answer.request, ([], []))
    if len(keys) == 1 and not answer.body:
        holders = {worker.rank for worker in state.tasks[keys[0]].who_has}
        missing = [rank for rank in ranks if rank in state.workers and rank not in holders]
        checks.demand(not missing, state, keys[0], f"has no copies on {missing}")


def check_pause(state: SchedulerState, rank: Rank) -> None:
    """Check that a paused worker which is given tasks gets a single one that no other can take."""
    worker = state.workers[rank]
    if not worker.paused:
        return
    assert worker.last_resort, f"paused worker {rank} gets tasks"
    runs = len(worker.processing) - worker.ahead - worker.lent
    assert runs <= 1, f"paused worker {rank} has {runs} tasks to run"
    task = next(reversed(worker.processing.values()))
    able = state.workers if task.group is None else task.group.workers
    others = [other for other in able.values() if not other.paused]
    if task.group is not None:
        others = [other for other in others if has_resources(other, task.group)]
    assert not others, f"paused worker {rank} gets {task.key}, which {others} could take"


def cancelled_keys(world: "World") -> set[Key]:
    """Return the keys that any client cancelled."""
    return {key for client in world.clients.values() for key in client.cancelled}


def foreign_keys(world: "World") -> set[Key]:
    """Return the keys that a client other than their maker used."""
    return {key for client in world.clients.values() for key in client.foreign}


def excuses(world: "World", client: SimClient, key: Key) -> list[str]:
    """Return the names of errors that a future may have for what happened in the run."""
    closure = world.plan.closures[key]
    found: list[str] = []
    if closure & cancelled_keys(world):
        found += ["CancelledError", "LostValueError"]
    if closure & foreign_keys(world):
        found.append("LostValueError")
    if world.faults.lost:
        specs = [world.plan.specs[needed] for needed in closure]
        if any(spec.kind == "scattered" for spec in specs):
            found.append("LostValueError")
        if any(spec.options.workers or spec.options.resources for spec in specs):
            found.append("NoValidWorkerError")
    return found


def check_nothing_left(world: "World") -> None:
    """Check that released keys are in no store and no record."""
    state = world.scheduler.state
    left = [key for key in state.tasks if key not in world.faults.script.fire_and_forget]
    assert not state.tasks, f"the scheduler still knows {left}: {list(state.tasks.values())}"
    places: dict[str, object] = {
        "arriving": state.arriving, "early": state.early,
        "replication": world.scheduler.replication.wanted,
        "copies on their way": world.scheduler.replication.sending,
        "attempts of clients": world.scheduler.client_attempts.running,
        "early reports of them": world.scheduler.client_attempts.early,
    }  # fmt: skip
    for number, client in state.clients.items():
        places[f"wants of client {number}"] = client.wants
        places[f"graphs of client {number}"] = client.graphs
    for rank, worker in world.workers.items():
        if worker.alive:
            core = worker.core.state
            places[f"store of rank {rank}"] = worker.store
            places[f"tasks of rank {rank}"] = core.tasks
            places[f"slots of rank {rank}"] = core.running
            places[f"fetches of rank {rank}"] = core.fetches
            places[f"requests of rank {rank}"] = core.requests
            places[f"queues of rank {rank}"] = core.fetch_queues
            places[f"promises of rank {rank}"] = core.promised
            record = state.workers[rank]
            places[f"slots counted as lent or abandoned of rank {rank}"] = (
                record.lent or record.abandoned
            )
            places[f"workers without slots after rank {rank}"] = state.without_slots
    for name, content in places.items():
        assert not content, f"{name}: {content} is left though all was released"


