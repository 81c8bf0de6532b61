"""Which bugs must the simulator find?

Small mutations of the cores, each a piece of a function's source and what takes its place. The
function gets other code for as long as the bug is planted, so everything that refers to it is
affected.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mpicluster.client.untold import Untold
from mpicluster.scheduler import core as scheduler_core
from mpicluster.scheduler import lifecycle, placement, room
from mpicluster.scheduler.client_attempts import ClientAttempts
from mpicluster.scheduler.core import SchedulerCore
from mpicluster.scheduler.replication import Replication
from mpicluster.worker import fetching
from mpicluster.worker.core import WorkerCore

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Bug:
    """A mutation; `found` must occur once in the function's source."""

    name: str
    function: Function
    found: str
    planted: str


BUGS: list[Bug] = [
    Bug(
        "skip the attempt check", SchedulerCore._current,
        "task.attempt == attempt and task.processing_on is worker", "task.processing_on",
    ),
    Bug(
        "forget to clear has_what of a lost worker", SchedulerCore._leave_worker,
        'lifecycle.drop_replica(state, task, worker, "worker lost")', "pass",
    ),
    Bug(
        "forget the tasks of a lost worker", SchedulerCore._leave_worker,
        "if task.processing_on is worker:", "if task.processing_on is None:",
    ),
    Bug(
        "leave a lost worker among the idle ones", SchedulerCore._leave_queues,
        "state.idle, state.roomy,", "state.roomy,",
    ),
    Bug(
        "take a lost worker's report that it has started", SchedulerCore._on_worker_started,
        "if source not in self.worker_ranks:", "if source < 0:",
    ),
    Bug(
        "wait for scattered values on their way to a lost worker", SchedulerCore._lose_scattered,
        "if rank in ranks", "if rank == -2",
    ),
    Bug(
        "place on a paused worker", room.room,
        "if worker.paused or not worker.slots:", "if not worker.slots:",
    ),
    Bug(
        "give a last resort what others could take", placement.use_last_resorts,
        "if len(state.paused) < len(state.workers):", "if False:",
    ),
    Bug(
        "give a last resort restricted tasks that others could take", placement.use_last_resorts,
        "all(one.paused or not has_resources(one, group) for one in workers)", "True",
    ),
    Bug(
        "give no restricted tasks to a last resort", placement.use_last_resorts,
        "if has_resources(worker, group):", "if False:",
    ),
    Bug(
        "give a last resort as many tasks as there are", placement.use_last_resorts,
        "state.ready.take_some(1)", "state.ready.take_some(9)",
    ),
    Bug(
        "leave tasks in a paused worker's queue", SchedulerCore._on_worker_paused,
        "if message.paused:", "if False:",
    ),
    Bug(
        "take an early report of a client's attempt for one that is over", ClientAttempts.is_early,
        "return True", "return False",
    ),
    Bug(
        "keep the attempts of clients on a lost worker", ClientAttempts.worker_lost,
        "if rank != worker", "if True",
    ),
    Bug(
        "wait for a worker that was lost before the client's word came",
        SchedulerCore._take_placed, "if worker is None:", "if False:",
    ),
    Bug(
        "do not report a client's attempt that is cancelled", WorkerCore._cancel,
        "if task.attempt == CLIENT_ATTEMPT:", "if False:",
    ),
    Bug(
        "let worker and client tell of the same end", WorkerCore._on_slot_finished,
        "if client_tells(task, nbytes, duration, self.config):", "if False:",
    ),
    Bug(
        "do not tell that abandoned slots are free again", WorkerCore._leave_slot,
        "self._reports.slots_change = True", "pass",
    ),
    Bug(
        "let the slot of a task that has ended be lent", WorkerCore._leave_slot,
        "if slot.lent and not slot.tasks:", "if False:",
    ),
    Bug(
        "forget an end that the scheduler has not heard of", Untold.take,
        "[*self._sent, *self._ended]", "[*self._sent]",
    ),
    Bug(
        "do not wake dependents", lifecycle.put_in_memory,
        "become_ready(state, dependent, cause)", "pass",
    ),
    Bug(
        "forget to release the inputs of an erred task", lifecycle.let_inputs_go,
        "release_if_unneeded(state, dependency, cause)", "pass",
    ),
    Bug(
        "forget the dependents of an erred task", lifecycle.become_erred,
        "todo.extend((task.dependents or {}).values())", "pass",
    ),
    Bug(
        "do not tell a worker of a task given up", lifecycle.leave_place,
        "state.to_cancel.setdefault(worker, []).append((task.key, task.attempt))", "pass",
    ),
    Bug(
        "do not give resources back", lifecycle.stop_processing,
        "worker.resources_free[name] += amount", "pass",
    ),
    Bug(
        "do not compute released inputs again", lifecycle.wait_for_inputs,
        "released.append(dependency)", "pass",
    ),
    Bug(
        "send orders to drop values after new tasks", SchedulerCore.outgoing,
        "self._send_ends()\n    for worker, tasks in assigned.items():\n",
        "for worker, tasks in (*assigned.items(), (None, [])):\n"
        "        if worker is None:\n            self._send_ends()\n            break\n",
    ),
    Bug(
        "drop scattered values that come before their announcement",
        SchedulerCore._on_values_arrived,
        "state.early[key] = (worker, nbytes)",
        "state.to_free.setdefault(worker, []).append(key)",
    ),
    Bug(
        "let tasks go while more of their graph is coming", SchedulerCore._on_submit_tasks,
        "if message.graph:", "if False:",
    ),
    Bug(
        "keep the interest of a client that cancels what others want",
        SchedulerCore._on_cancel_keys,
        "(source,) if source in task.wanted_by else ()", "()",
    ),
    Bug(
        "retry for ever", SchedulerCore._on_task_erred, "task.retries -= 1", "pass",
    ),
    Bug(
        "lose tasks that were given back", SchedulerCore._on_tasks_yielded,
        'lifecycle.run_again(self.state, task, "stolen")', "pass",
    ),
    Bug(
        "give back tasks that have been started", WorkerCore._on_steal_tasks,
        "if task.state is LocalState.EXECUTING:", "if False:",
    ),
    Bug(
        "forget the tasks that wait at a slot that ends", WorkerCore._on_slot_lost,
        "self._become_ready(task)", "pass",
    ),
    Bug(
        "count the result of an abandoned run", WorkerCore._on_slot_finished,
        "if task.state is LocalState.ABANDONED:", "if False:",
    ),
    Bug(
        "run a task when its first input has come", WorkerCore._value_here,
        "if not task.missing:", "if True:",
    ),
    Bug(
        "wait for values of a lost rank", fetching.rank_lost, "if lane.rank == rank:", "if False:",
    ),
    Bug(
        "leave an empty queue of fetches", fetching.leave_queue, "if not queue:", "if False:",
    ),
    Bug(
        "let tasks wait for a value that a task beside them did not make",
        WorkerCore._end_without_value, "self._broken.append(fetch)", "pass",
    ),
    Bug(
        "do not tell those who were promised a value that it will not come",
        WorkerCore._end_without_value, "self._send(rank, m.ValuesMissing(request, [key]))", "pass",
    ),
    Bug(
        "send nobody the value that was promised", WorkerCore._value_here,
        "self._effects.append(e.SendValue(key, promised))", "pass",
    ),
    Bug(
        "do not note that a task that went out before its inputs can run", lifecycle.catch_up,
        "worker.ahead -= 1", "pass",
    ),
    Bug(
        "do not tell who waits for copies that all are there", Replication._forget,
        "if not request.left:", "if gone and not request.left:",
    ),
    Bug(
        "tell who waits for copies when all are on their way", Replication._plan,
        "return bool(wanted or sending)", "return bool(wanted)",
    ),
    Bug(
        "let tasks wait for a restriction that nobody can meet any more",
        SchedulerCore._fail_hopeless, "and not task.group.workers", "and False",
    ),
]  # fmt: skip


@contextmanager
def plant(bug: Bug) -> Iterator[None]:
    """Run with a bug in place."""
    function = inspect.unwrap(bug.function)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(bug.found) != 1:
        raise LookupError(f"{bug.name!r}: {bug.found!r} is not once in {function.__qualname__}")
    module = vars(inspect.getmodule(function) or scheduler_core)
    namespace: dict[str, Any] = {}
    exec(compile(source.replace(bug.found, bug.planted), "<planted>", "exec"), module, namespace)
    original = function.__code__
    function.__code__ = namespace[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = original
