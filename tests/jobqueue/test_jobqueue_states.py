"""Is the end of a job decided by what is known, and never guessed?"""

from __future__ import annotations

import pytest

from jobqueue import JobState, JobStatus
from jobqueue.states import ALLOWED, ExitRecord, combine, decide_end

C, F, X, Q, R, U = (
    JobState.COMPLETED,
    JobState.FAILED,
    JobState.CANCELLED,
    JobState.QUEUED,
    JobState.RUNNING,
    JobState.UNKNOWN,
)


def test_only_three_states_are_final_and_nothing_follows_them() -> None:
    assert [state for state in JobState if state.final] == [C, F, X]
    assert all(not ALLOWED[state] for state in (C, F, X))
    assert set(ALLOWED) == set(JobState)


@pytest.mark.parametrize(
    ("elements", "whole"),
    [
        ([C, C], C),
        ([C, F, X], F),
        ([C, X], X),
        ([C, Q], Q),
        ([C, R, Q], R),
        ([Q, Q], Q),
        ([U, C], U),
        ([U, R], R),
    ],
)
def test_an_array_is_as_its_elements(elements: list[JobState], whole: JobState) -> None:
    assert combine(JobStatus(state=state) for state in elements).state is whole


@pytest.mark.parametrize(
    ("queue", "records", "cancel_asked", "end"),
    [
        # nobody tells
        (None, [], False, None),
        (JobStatus(state=R), [], False, None),
        # only the exit record tells
        (None, [ExitRecord(0)], False, (C, 0)),
        (None, [ExitRecord(3)], False, (F, 3)),
        (None, [ExitRecord(143, "TERM")], False, (F, 143)),
        (None, [ExitRecord(143, "TERM")], True, (X, 143)),
        # only the batch system tells
        (JobStatus(state=C, exit_status=0), [], False, (C, 0)),
        (JobStatus(state=F, exit_status=9), [], False, (F, 9)),
        (JobStatus(state=X), [], False, (X, None)),
        (JobStatus(state=F, exit_status=137), [], True, (X, 137)),
        (JobStatus(state=F, exit_status=3), [], True, (F, 3)),
        # both tell: each is believed for what it knows
        (JobStatus(state=F, exit_status=1), [ExitRecord(3)], False, (F, 3)),
        (JobStatus(state=X), [ExitRecord(143, "TERM")], False, (X, 143)),
        (JobStatus(state=C, exit_status=0), [ExitRecord(3)], False, (F, 3)),
        (JobStatus(state=F, exit_status=None), [ExitRecord(0)], False, (F, None)),
    ],
)
def test_the_end_of_a_job(
    queue: JobStatus | None,
    records: list[ExitRecord],
    cancel_asked: bool,
    end: tuple[JobState, int | None] | None,
) -> None:
    found = decide_end(queue, records, 1, cancel_asked=cancel_asked)
    assert (found and (found.state, found.exit_status)) == end


def test_an_array_with_a_missing_record_has_not_ended() -> None:
    assert decide_end(None, [ExitRecord(0)], 2, cancel_asked=False) is None
