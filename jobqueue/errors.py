"""What can go wrong with a job, and what does each error say?

Every message has four parts: what was asked, what was found, what would be right, what to do. This
file must never import another file of the package, so that all of them can raise these errors.
"""

from __future__ import annotations

from pathlib import Path


class JobqueueError(Exception):
    """Anything that this package reports; its text is meant for the user as it stands."""


class SpecError(JobqueueError, ValueError):
    """A job was described with a value that cannot be right; nothing was written or submitted."""


class ConfigError(JobqueueError, ValueError):
    """A configuration file cannot be read, or holds a key that nothing knows."""


class SystemNotFound(JobqueueError):  # noqa: N818 - says what happened, as JobFailed does
    """No batch system was found on this machine, or the named one does not exist."""


class CommandError(JobqueueError):
    """A command of the batch system could not be run to its end."""

    def __init__(self, message: str, *, started: bool, printed: str = "") -> None:
        super().__init__(message)
        #: whether the command began to run: if so, its effect is not known
        self.started = started
        #: what it had printed on standard output by then
        self.printed = printed


class SubmitError(JobqueueError):
    """The batch system did not take a job.

    `transient` says whether the same submission may succeed later (a busy or silent batch system),
    `in_doubt` whether a job may have come of it all the same, `folder` is the job's folder, whose
    `job.json` repeats the reason, or None when none was made.
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool = False,
        in_doubt: bool = False,
        folder: Path | None = None,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.in_doubt = in_doubt
        self.folder = folder


class StatusError(JobqueueError):
    """The batch system did not say how its jobs are, or said something unreadable."""


class CancelError(JobqueueError):
    """The batch system refused to cancel a job."""


class JobNotFound(JobqueueError):  # noqa: N818
    """No job of this id was submitted from here."""


class JobFailed(JobqueueError):  # noqa: N818
    """A job has no result because it failed, was cancelled, or nobody knows how it ended."""

    def __init__(self, message: str, *, job_id: str, exit_status: int | None) -> None:
        super().__init__(message)
        self.job_id = job_id
        #: the job's exit status, or None when nothing tells it
        self.exit_status = exit_status


class RemoteTraceback(Exception):  # noqa: N818
    """The traceback of an exception as it was printed where it was raised; the cause of the local
    one.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"
