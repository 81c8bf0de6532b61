"""What does the scheduler answer when a client asks about the cluster?

Only reads the records; keys go out as numbers, the client puts the names to them.
"""

from typing import Any

from mpicluster.scheduler.records import FIRE_AND_FORGET, SchedulerState, TaskRecord, WorkerRecord


def answer(state: SchedulerState, question: str, arguments: list[Any]) -> Any:
    """Return the answer to a question of `AskScheduler`, None if it is not known."""
    if question == "who_has":
        return who_has(state, arguments)
    if question == "has_what":
        return {rank: list(worker.has_what) for rank, worker in _chosen(state, arguments)}
    if question == "processing":
        return {
            rank: [[key, task.prefix] for key, task in worker.processing.items()]
            for rank, worker in _chosen(state, arguments)
        }
    if question == "nbytes":
        return {key: task.nbytes for key, task in _tasks(state, arguments)}
    if question == "nbytes_of_prefixes":
        sums: dict[str, int] = {}
        for _, task in _tasks(state, arguments):
            sums[task.prefix] = sums.get(task.prefix, 0) + task.nbytes
        return sums
    if question == "info":
        return info(state)
    if question == "forgotten":
        return sum(FIRE_AND_FORGET in task.wanted_by for task in state.tasks.values())
    if question == "counts":
        return counts(state)
    if question == "story":
        keys = set(arguments)
        return [
            [now, cause, key, old.name.lower(), new.name.lower()]
            for now, cause, key, old, new in state.history
            if key in keys
        ]
    return None


def who_has(state: SchedulerState, keys: list[Any]) -> dict[int, list[int]]:
    """Return {key: [rank, ...]} for the keys asked for, or for all that are in memory."""
    return {
        key: [worker.rank for worker in task.who_has]
        for key, task in _tasks(state, keys)
    }


def _tasks(state: SchedulerState, keys: list[Any]) -> list[tuple[int, TaskRecord]]:
    if not keys:
        return [(key, task) for key, task in state.tasks.items() if task.who_has]
    return [(key, state.tasks[key]) for key in keys if key in state.tasks]


def _chosen(state: SchedulerState, ranks: list[Any]) -> list[tuple[int, WorkerRecord]]:
    return [(rank, worker) for rank, worker in state.workers.items() if not ranks or rank in ranks]


def worker_descriptions(state: SchedulerState) -> list[dict[str, Any]]:
    """Return one description per worker, by rank."""
    return [
        {**state.workers[rank].description, "rank": rank} for rank in sorted(state.workers)
    ]


def info(state: SchedulerState) -> dict[str, Any]:
    """Return what `Client.scheduler_info` shows."""
    workers = {
        rank: {
            **worker.description,
            "nbytes": worker.nbytes,
            "keys": len(worker.has_what),
            "processing": len(worker.processing),
            "paused": worker.paused,
            "metrics": worker.metrics,
        }
        for rank, worker in sorted(state.workers.items())
    }
    return {"workers": workers, "tasks": counts(state), "prefixes": prefixes(state)}


def counts(state: SchedulerState) -> dict[str, int]:
    """Return how many tasks are in which state."""
    found: dict[str, int] = {}
    for task in state.tasks.values():
        name = task.state.name.lower()
        found[name] = found.get(name, 0) + 1
    return found


def prefixes(state: SchedulerState) -> dict[str, dict[str, float]]:
    """Return for each task prefix the tasks finished and erred, their seconds and bytes."""
    found: dict[str, dict[str, float]] = {}
    for function in state.functions.values():
        row = found.setdefault(
            function.prefix, {"finished": 0, "erred": 0, "duration_s": 0.0, "nbytes": 0}
        )
        row["finished"] += function.finished
        row["erred"] += function.erred
        row["duration_s"] += function.duration_s_total
        row["nbytes"] += function.nbytes_total
    return found
