"""Which names of `distributed` are not here, and what takes their place?

Scripts that were written for `distributed` and use one of them are told so where they ask for it.
"""

from typing import Any, Final, NoReturn

from mpicluster.errors import MpiclusterError

_SIZE = "The size of a cluster is fixed when it starts: say `mpicluster run -n` or `--nodes`."
_TASKS = "There are no actors: keep state in a `Variable`, or pass it from task to task."
_DISPLAY = (
    "There is no dashboard: use `progress(futures)`, `client.scheduler_info()` and the job's log."
)
_PLUGINS = (
    "Only slots take plugins, as a `WorkerPlugin`; `client.run(function)` runs a function in every "
    "slot."
)
_ASYNC = (
    "There is no `async` interface: use `future.add_done_callback`, `as_completed`, or a thread."
)
_FILES = (
    "`client.upload_file` sends one module or archive; put folders beside the script or on "
    "PYTHONPATH, on a file system that all hosts see."
)
_PLACES = (
    "Values stay where they were computed: `client.replicate` copies them, and full workers write "
    "their oldest values to disk."
)
_METADATA = "Use a `Variable`, or `client.publish_dataset`, which keeps futures too."
_LAUNCH = "Ranks take the place of servers: start them with `mpicluster run` or `mpirun`."
_ADDRESS = "Ranks have no addresses and need no encryption of their own: MPI connects them."
_RETRY = "Say `retries=` when tasks are submitted, or submit those that failed again."
_LOGS = (
    "What ranks print is in the job's log: `mpicluster logs`; what tasks print in those of their "
    "workers: `--role worker-2`."
)
_EVENTS = "There are no topics of events: use a `Queue`, or print to the job's log."

#: What `from mpicluster import ...` may ask for.
NAMES: Final = {
    **dict.fromkeys(("Actor", "ActorFuture", "BaseActorFuture"), _TASKS),
    **dict.fromkeys(("Adaptive", "SpecCluster"), _SIZE),
    **dict.fromkeys(
        ("NannyPlugin", "SchedulerPlugin", "CondaInstall", "InstallPlugin", "PipInstall",
         "Environ"), _PLUGINS,
    ),
    **dict.fromkeys(("UploadDirectory", "UploadFile"), _FILES),
    **dict.fromkeys(("Nanny", "Scheduler", "Worker", "SSHCluster", "SubprocessCluster"), _LAUNCH),
    **dict.fromkeys(("Security", "connect", "rpc"), _ADDRESS),
    **dict.fromkeys(("performance_report", "get_task_stream", "get_task_metadata", "span"),
                    f"{_DISPLAY} `mpicluster bench` and `client.story` tell where time goes."),
    "MultiLock": "Take several `Lock`s, everywhere in the same order.",
    "Reschedule": _RETRY,
    "local_client": "Inside a task `get_client()` is the client.",
}  # fmt: skip

#: What scripts may ask of a client.
OF_CLIENTS: Final = {
    **dict.fromkeys(("retry",), _RETRY),
    "retire_workers": _SIZE,
    "rebalance": _PLACES,
    "amm": _PLACES,
    **dict.fromkeys(("set_metadata", "get_metadata"), _METADATA),
    **dict.fromkeys(
        ("register_scheduler_plugin", "unregister_scheduler_plugin", "run_on_scheduler"), _PLUGINS,
    ),
    **dict.fromkeys(("get_task_stream", "profile", "benchmark_hardware"),
                    f"{_DISPLAY} `mpicluster bench` measures a cluster."),
    **dict.fromkeys(("call_stack", "dump_cluster_state"),
                    "`client.processing()` and `client.story(future)` tell what tasks do."),
    **dict.fromkeys(("get_worker_logs", "get_scheduler_logs", "forward_logging",
                     "unforward_logging"), _LOGS),
    **dict.fromkeys(("log_event", "get_events", "subscribe_topic", "unsubscribe_topic"), _EVENTS),
    **dict.fromkeys(("sync", "start"), _ASYNC),
    "write_scheduler_file": _ADDRESS,
    "scheduler": "The scheduler is rank 0: ask it by `client.scheduler_info()`.",
}  # fmt: skip

#: What scripts may ask of a future.
OF_FUTURES: Final = {
    "retry": _RETRY,
    "type": "Values are not looked at on their way: ask `client.submit(type, future)`.",
}

#: What tasks may ask of their worker.
OF_TASK_WORKERS: Final = {
    **dict.fromkeys(
        ("data", "state", "scheduler", "executor", "plugins", "log_event", "client", "get_client"),
        "It tells where a task runs, no more: `get_client()` is the task's client, and its values "
        "are its arguments.",
    ),
    **dict.fromkeys(("nthreads", "memory_limit", "resources"),
                    "`get_client().scheduler_info()` tells it of all workers."),
    "local_directory": "A task has no folder of its own: use the `tempfile` module.",
}  # fmt: skip

#: What scripts may ask of a cluster.
OF_CLUSTERS: Final = {
    **dict.fromkeys(("scale", "scale_up", "scale_down", "adapt", "plan", "start_worker"), _SIZE),
    **dict.fromkeys(("scheduler_address", "scheduler_info", "scheduler", "workers"),
                    "Ask the client: `client.scheduler_info()` names the ranks and hosts."),
    "get_logs": _LOGS,
    "sync": _ASYNC,
}  # fmt: skip

#: What scripts may give to a client, and the values that mean nothing.
_ARGUMENTS: Final[dict[str, tuple[str, tuple[Any, ...]]]] = {
    "asynchronous": (_ASYNC, (None, False)),
    "scheduler_file": (_ADDRESS, (None,)),
    "security": (_ADDRESS, (None, False)),
}
#: Arguments for servers and connections that distributed has, with nothing to set here.
_WITHOUT_MEANING: Final = (
    "name", "loop", "heartbeat_interval", "serializers", "deserializers", "extensions",
    "direct_to_workers", "connection_limit",
)  # fmt: skip


def refuse_module_name(name: str) -> NoReturn:
    """Raise for a name that the package does not have.

    One that `distributed` has raises `ImportError`, since an `AttributeError` would be replaced by
    a message of the interpreter's own in `from mpicluster import ...`.
    """
    if name in NAMES:
        raise ImportError(f"mpicluster has no {name}, which distributed has. {NAMES[name]}")
    raise AttributeError(f"module 'mpicluster' has no attribute {name!r}")


def refuse_attribute(owner: object, name: str, known: dict[str, str]) -> NoReturn:
    """Raise for an attribute that an object does not have."""
    kind = type(owner).__name__
    if name in known:
        raise AttributeError(
            f"A {kind} of mpicluster has no {name!r}, which that of distributed has. {known[name]}"
        )
    raise AttributeError(f"{kind!r} object has no attribute {name!r}")


def refuse_actors(wanted: Any) -> None:
    """Raise if a task is to make an actor."""
    if wanted:
        raise MpiclusterError(f"A task was to make an actor. {_TASKS}")


def refuse_await(what: str, instead: str) -> NoReturn:
    """Raise for an `await` or `async for` of something that is not made for it."""
    raise TypeError(f"{what}, which is not possible here: {instead}. {_ASYNC}")


def without_connection_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a client that are meant for its cluster."""
    left = {name: value for name, value in options.items() if name not in _WITHOUT_MEANING}
    for name, (sentence, nothing) in _ARGUMENTS.items():
        value = left.pop(name, None)
        if value not in nothing:
            raise MpiclusterError(f"Client was given {name}={value!r}. {sentence}")
    return left
