"""Why does a key have no value, in words for the user?

The errors that the scheduler itself finds; they travel by the name of their class.
"""

from mpicluster.messages import NO_OPTIONS, ErrorColumns
from mpicluster.scheduler.records import TaskRecord, WorkerRecord


def lost_value_error(task: TaskRecord) -> ErrorColumns:
    """Return the error of a value that cannot be computed again."""
    kind = "sent by the client" if task.function is None else f"made by {task.prefix!r}"
    text = (
        f"A value {kind} is on no worker any more. Scattered values and large arguments cannot be "
        "computed again: scatter them with broadcast=True and keep their futures; or start the "
        "cluster with --survive ranks so that computed values are computed again."
    )
    return [b"", "LostValueError", text, b"", "", -1, ""]


def released_value_error() -> ErrorColumns:
    """Return the error of a future whose key is not known any more."""
    text = "The future's value has been released everywhere, so it cannot be used."
    return [b"", "LostValueError", text, b"", "", -1, ""]


def forgotten_input_error(task: TaskRecord) -> ErrorColumns:
    """Return the error of a task one of whose inputs has been released."""
    text = (
        f"The task {task.prefix!r} needs a value that has been released or cancelled. Keep a "
        "future of every value that later tasks use."
    )
    return [b"", "LostValueError", text, b"", "", -1, ""]


def killed_error(task: TaskRecord, worker: WorkerRecord, how: str) -> ErrorColumns:
    """Return the error of a task that ended its process too often."""
    text = (
        f"The task {task.prefix!r} ended the process that ran it {task.failures} times, the last "
        f"time on rank {worker.rank} ({worker.host}): {how}. A crash in compiled code, os._exit "
        "and running out of memory do this; run the task alone to find out."
    )
    return [b"", "KilledWorker", text, b"", "", worker.rank, worker.host]


def no_worker_error(task: TaskRecord) -> ErrorColumns:
    """Return the error of a task that no worker may ever run."""
    options = task.group.options if task.group is not None else NO_OPTIONS
    text = (
        f"The task {task.prefix!r} asks for workers {list(options.workers) or 'any'} and resources "
        f"{dict(options.resources)}, but no worker can ever meet that. "
        "client.scheduler_info() shows what the workers have."
    )
    return [b"", "NoValidWorkerError", text, b"", "", -1, ""]


def no_worker_left_error(task: TaskRecord) -> ErrorColumns:
    """Return the error of a task that would run if the cluster still had workers."""
    text = (
        f"The task {task.prefix!r} cannot run: all workers of this cluster are lost. The job's log "
        "says when and how each of them was; start the job again, with more memory if they were "
        "ended for lack of it."
    )
    return [b"", "NoValidWorkerError", text, b"", "", -1, ""]
