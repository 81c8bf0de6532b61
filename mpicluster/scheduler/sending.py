"""What do the scheduler's messages about many tasks look like?

Turns records into columns; changes nothing but the note of which functions a worker knows.
"""

from mpicluster import messages as m
from mpicluster.errors import InvariantError
from mpicluster.ids import SLOT_CLIENTS, ClientId, FunctionId, Key
from mpicluster.scheduler.records import FunctionRecord, SchedulerState, TaskRecord, WorkerRecord

#: Holders named for an input that the worker is to fetch: enough to spread the load.
HOLDERS_NAMED_MAX = 4


def compute_tasks(worker: WorkerRecord, tasks: list[TaskRecord]) -> list[m.Message]:
    """Return what assigns tasks to a worker, with the functions that it does not know.

    One pass fills all columns: most messages have few tasks, and for these a comprehension per
    column takes twice as long.
    """
    new_functions: dict[FunctionId, FunctionRecord] = {}
    message = m.ComputeTasks([], [], [], [], [], [], [], [])
    keys, attempts, functions = message.keys, message.attempts, message.functions
    priorities, payloads, push_to = message.priorities, message.payloads, message.push_to
    known = worker.functions
    with_inputs = False
    for task in tasks:
        function = task.function
        if function is None:
            raise InvariantError(f"{task!r} has no function and cannot be assigned.")
        number = function.function
        if number not in known:
            known.add(number)
            new_functions[number] = function
        wanted_by = task.wanted_by
        client = wanted_by[0] if wanted_by and 0 < wanted_by[0] < SLOT_CLIENTS else 0
        task.pushed_to = client
        keys.append(task.key)
        attempts.append(task.attempt)
        functions.append(number)
        priorities.append(task.priority)
        payloads.append(task.payload)
        push_to.append(client)
        if task.dependencies:
            with_inputs = True
    if with_inputs:
        message.dependencies = [[d.key for d in task.dependencies] for task in tasks]
        message.holders = holders_of_inputs(worker, tasks)
    if not new_functions:
        return [message]
    definitions = m.DefineFunctions(
        list(new_functions),
        [function.prefix for function in new_functions.values()],
        [function.code for function in new_functions.values()],
    )
    return [definitions, message]


def holders_of_inputs(worker: WorkerRecord, tasks: list[TaskRecord]) -> list[list[object]]:
    """Return rows (key, size, [rank, ...]) for the inputs that are not on the worker."""
    here = worker.has_what
    missing = {
        dependency.key: dependency
        for task in tasks
        for dependency in task.dependencies
        if dependency.key not in here
    }
    rows: list[list[object]] = []
    for key, task in missing.items():
        if task.processing_on is not None:
            rows.append([key, m.PROMISED, [task.processing_on.rank]])
        else:
            ranks = [holder.rank for holder in task.who_has[:HOLDERS_NAMED_MAX]]
            rows.append([key, task.nbytes, ranks])
    return rows


def news_for_clients(state: SchedulerState) -> list[tuple[ClientId, m.Message]]:
    """Return which client is told that which of its keys are in memory or erred."""
    news: list[tuple[ClientId, m.Message]] = []
    for client, tasks in state.finished_for.items():
        held = [task for task in tasks if task.who_has and client in task.wanted_by]
        if held and client in state.clients:
            news.append((client, m.KeysFinished(
                [task.key for task in held],
                [task.nbytes for task in held],
                [task.who_has[0].rank for task in held],
            )))  # fmt: skip
    for client, tasks in state.erred_for.items():
        if client in state.clients:
            by_error: dict[int, tuple[m.ErrorColumns, list[Key]]] = {}
            for task in tasks:
                if task.error is not None:
                    by_error.setdefault(id(task.error), (task.error, []))[1].append(task.key)
            news += [(client, m.KeysErred(keys, error)) for error, keys in by_error.values()]
    state.finished_for, state.erred_for = {}, {}
    return news
