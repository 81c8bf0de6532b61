"""What can one do with a job that was submitted?

A `Job` joins the three things that know about it: the batch system (through its poller), the job's
folder, and this process. It must never change its state except in `note`, which checks the table of
allowed changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobqueue.errors import CancelError, JobFailed, JobNotFound, SpecError
from jobqueue.folder import BATCH_ROLE, MAIN_ROLE, JobFolder, read_log
from jobqueue.functions import load_result
from jobqueue.polling import wait_all
from jobqueue.spec import Array
from jobqueue.states import ALLOWED, ExitRecord, JobState, JobStatus

if TYPE_CHECKING:
    from jobqueue.system import BatchSystem

logger = logging.getLogger("jobqueue")

#: so many of the last lines of its output stand in the error of a failed job
_LINES_IN_ERROR = 15
#: a job whose end nobody knows is no longer asked about after so many seconds out of the queue
_FORGOTTEN_AFTER_S = 24 * 3600


class Job:
    """A job that a batch system has taken. Get one from `submit` or `attach`."""

    def __init__(
        self, system: BatchSystem, job_id: str, folder: JobFolder | None, array: Array | None = None
    ) -> None:
        self.system = system
        #: the batch system's id
        self.id = job_id
        #: None for a job that was not submitted by jobqueue: there are no files to look at
        self.folder = folder
        self.array = array
        self.name = ""
        #: whether the batch system has agreed to cancel it
        self.cancel_accepted = False
        #: whether nothing more will become known: it has ended, or left the queue without a trace
        self.ended = False
        #: when the queue was first found without it: by the poller's clock, in seconds since 1970
        self.left_at: float | None = None
        self.left_queue_at: float | None = None
        self._status = JobStatus(state=JobState.UNKNOWN if folder is None else JobState.NEW)
        self._restore()

    def _restore(self) -> None:
        """Take from the folder what an earlier process has found out."""
        record = self.folder.read_record() if self.folder else {}
        self.name = str(record.get("name", ""))
        self.cancel_accepted = bool(record.get("cancel_accepted"))
        if self.array is None and record.get("array"):
            self.array = self._restored_array(record["array"])
        left = record.get("left_queue_at")
        self.left_queue_at = float(left) if isinstance(left, (int, float)) else None
        state = next((one for one in JobState if one.value == record.get("state")), None)
        exit_status = record.get("exit_status")
        if state is not None and (state.final or self._forgotten(state)):
            self._status = JobStatus(
                state=state,
                reason=str(record.get("reason", "")),
                native=str(record.get("native", "")),
                exit_status=exit_status if isinstance(exit_status, int) else None,
            )
            self.ended = True
        elif record.get("submission") == "submitted":
            # As another process found it last, should the batch system not answer this one.
            running = state is JobState.RUNNING
            self._status = JobStatus(state=JobState.RUNNING if running else JobState.QUEUED)

    def _restored_array(self, text: object) -> Array | None:
        try:
            return Array.parse(str(text))
        except SpecError as error:
            logger.warning(
                "The record of job %s is damaged, in %s: %s", self.id, self.folder, error
            )
            return None

    def _forgotten(self, state: JobState) -> bool:
        """Whether the job has been out of the queue for so long that nobody will tell its end."""
        left_at = self.left_queue_at
        unknown = state is JobState.UNKNOWN and left_at is not None
        return unknown and time.time() - (left_at or 0) > _FORGOTTEN_AFTER_S

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.system.title}: {self._status.state.value}>"

    # What users ask.

    @property
    def state(self) -> JobState:
        """The state, asked of the batch system unless that was done a moment ago."""
        return self.status.state

    @property
    def status(self) -> JobStatus:
        """The state with its reason, the batch system's own word, the hosts and the exit status."""
        if not self.ended:
            self.system.poller.update()
        return self._status

    @property
    def last_status(self) -> JobStatus:
        """The status as it was found last, without asking."""
        return self._status

    @property
    def exit_status(self) -> int | None:
        """The exit status of the job's command once it has ended: 128 and the signal's number if a
        signal ended it.

        None before that, and when nothing tells it. For an array, the highest of its elements'.
        """
        return self.status.exit_status

    @property
    def exit_statuses(self) -> dict[int, int]:
        """For an array: the exit status of each element that has ended, by index."""
        return {
            index: record.status
            for index, record in self.exit_records().items()
            if index is not None
        }

    def wait(self, timeout_s: float | None = None) -> JobState:
        """Wait until the job has ended and return its state.

        UNKNOWN is returned for a job that has left the queue while neither its folder nor the
        accounting tells how. Raises `TimeoutError` after `timeout_s` seconds, and `StatusError`
        when the batch system is silent for hours.
        """
        if not wait_all([self], timeout_s):
            raise TimeoutError(
                f"Job {self.id} was waited for during {timeout_s:g} s and is "
                f"{self._status.state.value}. It goes on; wait longer."
            )
        return self._status.state

    def cancel(self) -> None:
        """Ask the batch system to end the job; a job that has ended already is left alone, and
        `cancel_accepted` stays False.

        Raises `CancelError` when the batch system refuses and `CommandError` when it does not
        answer.
        """
        if self.ended:
            return
        output = self.system.runner(
            self.system.cancel_command([self.id]), self.system.settings.status_timeout_s
        )
        said = f"{output.stderr} {output.stdout}"
        if any(part in said for part in self.system.already_ended):
            self.system.poller.hurry()  # the next look tells how it ended
            return
        if output.status != 0:
            raise CancelError(
                f"{self.system.title} did not cancel job {self.id}: `{output.command.words[0]}` "
                f"ended with status {output.status} and said: {output.said}. Try again; if it "
                "stays so, ask the administrators."
            )
        self.cancel_accepted = True
        self._remember(cancel_accepted=True)
        self.system.poller.hurry()

    def output(self, role: str = MAIN_ROLE, index: int | None = None) -> str:
        """Return what the job has printed so far, standard output and errors as they came.

        `role` names another of the job's logs (`roles` lists them), `index` an element of an array;
        without it the logs of all elements follow each other.
        """
        return "".join(read_log(log) for log in self.logs(role, index).values())

    def logs(
        self, role: str = MAIN_ROLE, index: int | None = None, *, to_come: bool = False
    ) -> dict[int | None, Path]:
        """Return the files that `output` reads, by element of the array: None for a job without.
        The file of a job that has not begun is not there yet.

        Raises `JobNotFound` for an element that the job does not have, and for a role, unless its
        log may still be `to_come`.
        """
        folder = self._folder()
        elements = self._elements
        if index is not None:
            if index not in elements:
                has = "it is no array" if self.array is None else f"its array is {self.array}"
                raise JobNotFound(
                    f"Element {index} of job {self.id} was asked for, and {has}. "
                    f"{'Leave the index out.' if self.array is None else 'Name one of these.'}"
                )
            elements = (index,)
        logs = {element: folder.log(role, element) for element in elements}
        if to_come or role in (MAIN_ROLE, BATCH_ROLE):
            return logs
        logs = {element: log for element, log in logs.items() if log.exists()}
        if not logs:
            raise JobNotFound(
                f"The log of {role!r} was asked for, and {folder.path} has only: "
                f"{', '.join(self.roles()) or 'none'}. Name one of these."
            )
        return logs

    def roles(self) -> list[str]:
        """Return the names of the job's logs: "output", "batch", "worker-2" and others that the
        program itself writes.
        """
        return self._folder().roles(None if self.array is None else self.array.indices)

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait, and return what the submitted function returned; for an array, a list in the order
        of its indices.

        Raises the function's own exception, with the traceback from the job as its cause, and
        `JobFailed` when the job ended without a result or was no function.
        """
        state = self.wait(timeout_s)
        folder = self._folder()
        patience_s = self.system.settings.file_patience_s
        results = []
        for index in self._elements:
            found = load_result(folder, index, patience_s if state is JobState.COMPLETED else 0)
            if found is None:
                raise JobFailed(
                    self.failure(), job_id=self.id, exit_status=self._status.exit_status
                )
            results.append(found.value(self.id))
        return results[0] if self.array is None else results

    def failure(self) -> str:
        """Return how the job ended, in sentences and with the end of its output."""
        status = self._status
        how = "" if status.exit_status is None else f", with exit status {status.exit_status}"
        text = f"Job {self.id} did not complete: its state is {status.state.value}{how}."
        if status.reason:
            text += f" {status.reason}"
        if self.folder is None:
            return text
        lines = self.output().splitlines()[-_LINES_IN_ERROR:]
        printed = (
            "\n".join(["", "The end of its output:", *lines]) if lines else " It printed nothing."
        )
        return f"{text} Its folder is {self.folder.path}.{printed}"

    # What the poller tells.

    @property
    def n_elements(self) -> int:
        """How many exit records the job leaves."""
        return len(self._elements)

    @property
    def _elements(self) -> Sequence[int | None]:
        """The indices of the array, None alone for a job without."""
        return (None,) if self.array is None else self.array.indices

    def exit_records(self) -> Mapping[int | None, ExitRecord]:
        """Return the exit records that are there."""
        if self.folder is None:
            return {}
        return self.folder.exit_records(self._elements)

    @property
    def ended_by_signal(self) -> bool:
        """Whether its script was told to end; by whom only the batch system knows."""
        return any(record.signal for record in self.exit_records().values())

    def note(self, status: JobStatus) -> bool:
        """Take a new status if the table allows the change; return whether the state is another
        one.
        """
        before = self._status.state
        if status.state is not before and status.state not in ALLOWED[before]:
            logger.debug(
                "Job %s is %s; that it is %s now is ignored.", self.id, before, status.state
            )
            return False
        self._status = status
        if status.state.final:
            self.ended = True
            self._remember(
                state=status.state.value,
                reason=status.reason,
                native=status.native,
                exit_status=status.exit_status,
            )
        elif status.state is not before:
            self._remember(
                state=status.state.value, reason=status.reason, left_queue_at=self.left_queue_at
            )
        return status.state is not before

    def end(self, status: JobStatus | None) -> bool:
        """Take what is known about a job that has left the queue; None: neither folder nor
        accounting tells.
        """
        if status is None and self.cancel_accepted:
            status = self._cancelled()
        if status is None:
            reason = (
                f"{self.system.title} knows no job of this id, nor does jobqueue."
                if self.folder is None
                else f"It left the queue of {self.system.title}; neither its folder nor the "
                "accounting tells how it ended."
            )
            logger.warning("Job %s: %s", self.id, reason)
            status = JobStatus(state=JobState.UNKNOWN, reason=reason)
            self.ended = True
        return self.note(status)

    def leave_queue(self, now: float) -> None:
        """Note that the queue no longer holds the job; `now` by the poller's clock."""
        if self.left_at is None:
            self.left_at, self.left_queue_at = now, time.time()

    def return_to_queue(self) -> None:
        """Note that the queue holds the job, perhaps again."""
        self.left_at = self.left_queue_at = None

    def _cancelled(self) -> JobStatus:
        """Return how a job ended that the batch system agreed to cancel, and of which nothing more
        is known.
        """
        statuses = [record.status for record in self.exit_records().values()]
        # Without a folder nothing tells whether it ran.
        ran = self.folder is None or any(log.exists() for log in self.logs().values())
        return JobStatus(
            state=JobState.CANCELLED,
            reason="The job was cancelled." if ran else "The job was cancelled before it ran.",
            exit_status=max(statuses, default=None),
        )

    def _remember(self, **values: Any) -> None:
        """Write to the folder, so that later processes need not ask; a folder that was deleted
        needs nothing.
        """
        if self.folder is None:
            return
        try:
            self.folder.update_record(**values)
        except OSError as error:
            logger.debug("Job %s: %s cannot be written: %s", self.id, self.folder.path, error)

    def _folder(self) -> JobFolder:
        if self.folder is None:
            raise JobNotFound(
                f"The files of job {self.id} were asked for, and no job of this id was submitted "
                "by jobqueue from here. Jobs submitted in other ways have no folder: look where "
                "their script sends their output."
            )
        return self.folder
