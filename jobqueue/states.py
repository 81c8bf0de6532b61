"""In which states can a job be, and how does it get from one to the next?

Pure: the words of the batch systems are translated in their own files; here is only what all of
them share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class JobState(Enum):
    """The life of a job, in the words of no batch system."""

    NEW = "new"  #: described, not yet submitted
    QUEUED = "queued"  #: the batch system has it and it does not run
    RUNNING = "running"  #: its processes run, start or end
    COMPLETED = "completed"  #: ended with exit status 0
    FAILED = "failed"  #: ended in any other way of its own, by a limit or with its host
    CANCELLED = "cancelled"  #: ended because someone asked for it
    UNKNOWN = "unknown"  #: the batch system says something unheard of, or nothing at all

    @property
    def final(self) -> bool:
        """Whether a job in this state stays in it for ever."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


_ENDS = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})

#: From which state to which a job may go. Running to queued is a requeue; a batch system may also
#: report an end without ever having reported the start.
ALLOWED: dict[JobState, frozenset[JobState]] = {
    JobState.NEW: _ENDS | {JobState.QUEUED, JobState.RUNNING, JobState.UNKNOWN},
    JobState.QUEUED: _ENDS | {JobState.RUNNING, JobState.UNKNOWN},
    JobState.RUNNING: _ENDS | {JobState.QUEUED, JobState.UNKNOWN},
    JobState.UNKNOWN: _ENDS | {JobState.QUEUED, JobState.RUNNING},
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """What is known about a job at one moment."""

    state: JobState
    #: a sentence: why it waits, or how it ended; empty when there is nothing to say
    reason: str = ""
    #: the batch system's own word for the state
    native: str = ""
    #: None until the job ended, or when nothing tells it
    exit_status: int | None = None
    #: the hosts as the batch system writes them
    hosts: str = ""
    #: of how many elements of an array this was put together; None: of all of them
    n_elements: int | None = None


#: Exit statuses of a job that the signals INT, KILL and TERM ended.
_SIGNALLED = (130, 137, 143)


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """What the job script wrote when it ended (see `script.py`)."""

    status: int
    #: "TERM" when that signal ended the job, else empty
    signal: str = ""


def combine(elements: Iterable[JobStatus]) -> JobStatus:
    """Return one status for the elements of a job array: it ends when all have ended, with the
    worst of their ends.
    """
    found = list(elements)
    states = [element.state for element in found]
    order: tuple[JobState, ...]
    if all(state.final for state in states):
        order = (JobState.FAILED, JobState.CANCELLED, JobState.COMPLETED)
    elif all(state.final or state is JobState.QUEUED for state in states):
        order = (JobState.QUEUED,)
    else:
        order = (JobState.RUNNING, JobState.UNKNOWN, JobState.QUEUED)
    state = next(state for state in order if state in states)
    chosen = next(element for element in found if element.state is state)
    if len(found) == 1:
        return chosen
    exit_statuses = [element.exit_status for element in found]
    worst = max((status for status in exit_statuses if status is not None), default=None)
    return JobStatus(
        state=state,
        reason=chosen.reason,
        native=chosen.native,
        exit_status=worst if state.final else None,
        hosts=chosen.hosts,
    )


def decide_end(
    queue: JobStatus | None, records: Iterable[ExitRecord], expected: int, *, cancel_asked: bool
) -> JobStatus | None:
    """Return how a job ended, from what the batch system and the job's own exit records say; None
    if neither tells.

    `queue` is the batch system's last word (from the queue or its accounting), `records` are the
    exit records of the job or of each element of its array, of which there should be `expected`.
    The batch system knows of limits and cancellations, the record knows the exit status, so each is
    believed for what it knows; nothing is guessed.
    """
    found = list(records)
    complete = len(found) >= expected
    status = max((record.status for record in found), default=None)
    if queue is not None and queue.state.final:
        state, reason = queue.state, queue.reason
        if state is JobState.COMPLETED and status:
            state = JobState.FAILED
        exit_status = queue.exit_status if status is None else status
        if state is not JobState.COMPLETED and not exit_status:
            # A job that was killed after its program had ended well did not end well.
            exit_status = queue.exit_status or None
        if state is JobState.FAILED and cancel_asked and exit_status in _SIGNALLED:
            # Grid Engine's accounting does not tell a cancelled job from one that crashed.
            state, reason = JobState.CANCELLED, "The job was cancelled."
        return JobStatus(
            state=state,
            reason=reason,
            native=queue.native,
            exit_status=exit_status,
            hosts=queue.hosts,
        )
    if not complete:
        return None
    if any(record.signal == "TERM" for record in found):
        if cancel_asked:
            return JobStatus(
                state=JobState.CANCELLED, reason="The job was cancelled.", exit_status=status
            )
        reason = "Signal TERM ended the job: its time limit was reached or someone cancelled it."
        return JobStatus(state=JobState.FAILED, reason=reason, exit_status=status)
    state = JobState.COMPLETED if status == 0 else JobState.FAILED
    return JobStatus(state=state, exit_status=status)
