"""Which errors does this package raise?

Every exception of our own is here, and its docstring is the default message. An error sentence
says what was asked, what was found, what would be right and what to do.
"""

import concurrent.futures


class MpiclusterError(Exception):
    """Something went wrong in mpicluster."""

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").strip()


class WorldError(MpiclusterError):
    """The ranks that the launcher started do not make a cluster."""


class ConfigError(MpiclusterError, ValueError):
    """A setting has a name that is not known or a value that makes no sense."""


class ClusterClosedError(MpiclusterError):
    """The cluster has been closed; start a new one to go on computing."""


class KilledWorker(MpiclusterError):  # noqa: N818  (the name that users of distributed know)
    """The task ended its process as often as `allowed_failures` permits."""


class CancelledError(MpiclusterError, concurrent.futures.CancelledError):
    """The future was cancelled, by you or because something that it depends on was."""


class LostValueError(MpiclusterError):
    """The value is gone and cannot be computed again."""


class LostRankError(MpiclusterError):
    """A rank is gone without which the job cannot go on."""

    def __init__(self, rank: int, reason: str) -> None:
        role = {0: "which was the scheduler", 1: "which ran the script"}.get(rank, "a worker")
        end = " The job ends." if rank < 2 else ""
        super().__init__(f"Rank {rank}, {role}, is gone: {reason}.{end}")
        self.rank = rank


class TaskSerializationError(MpiclusterError, TypeError):
    """A function, an argument or a result cannot be pickled."""


class RemoteTaskError(MpiclusterError):
    """A task raised an exception that cannot be rebuilt here; its text and traceback follow."""


class NoValidWorkerError(MpiclusterError, ValueError):
    """No worker of this cluster can ever meet the task's restrictions."""


class VersionMismatchError(MpiclusterError, ValueError):
    """The ranks run different versions of a package."""


class ProtocolError(MpiclusterError):
    """A peer sent what this version does not understand."""


class InvariantError(MpiclusterError, AssertionError):
    """A core found its own state broken; this is a bug in mpicluster."""


#: Errors that the scheduler or a worker makes itself travel by name and are rebuilt from here.
BY_NAME: dict[str, type[MpiclusterError]] = {
    error.__name__: error
    for error in (
        CancelledError,
        KilledWorker,
        LostValueError,
        NoValidWorkerError,
        RemoteTaskError,
        TaskSerializationError,
    )
}
