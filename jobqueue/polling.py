"""How are the jobs, asked as seldom as possible?

One status call for all jobs of a batch system, at intervals that grow while nothing happens.
Decides how a job ended that has left the queue: by its exit record and by the accounting, never by
guessing. This file must never take silence for an answer: a batch system that does not answer
changes no state.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from jobqueue.errors import CommandError, StatusError
from jobqueue.shell import Output
from jobqueue.states import JobState, JobStatus, decide_end

if TYPE_CHECKING:
    from jobqueue.job import Job
    from jobqueue.system import BatchSystem

logger = logging.getLogger("jobqueue")

#: Each look without news makes the next interval this much longer.
GROWTH = 1.5

NOT_YET_KNOWN = JobStatus(
    state=JobState.UNKNOWN, reason="It left the queue just now; how it ended is not known yet."
)


class Poller:
    """Asks one batch system about all jobs that exist in this process."""

    def __init__(
        self,
        system: BatchSystem,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.system = system
        self.clock = clock
        self.sleep = sleep
        #: by id; a job that nobody holds any more is not asked about
        self.jobs: weakref.WeakValueDictionary[str, Job] = weakref.WeakValueDictionary()
        #: when the next look is due, by `clock`
        self.next_look = clock()
        #: why the last look failed, None if it succeeded
        self.failure: str | None = None
        self._interval_s = system.settings.poll_interval_s_min
        self._silent_since: float | None = None

    def add(self, job: Job) -> None:
        """Ask about this job from now on."""
        self.jobs[job.id] = job
        if job.left_queue_at is not None:  # an earlier process has found so
            job.left_at = self.clock() - max(time.time() - job.left_queue_at, 0)
        self.hurry()

    def hurry(self) -> None:
        """Look as soon as someone wants to know: something has just happened."""
        self._interval_s = self.system.settings.poll_interval_s_min
        self.next_look = self.clock()

    def update(self) -> None:
        """Bring the states of all unfinished jobs up to date, if a look is due.

        Raises `StatusError` when the batch system has been silent for longer than `silence_s_max`.
        """
        jobs = [job for job in self.jobs.values() if not job.ended]
        now = self.clock()
        if not jobs or now < self.next_look:
            return
        try:
            queue = self._ask(jobs)
        except (CommandError, StatusError) as error:
            self._note_failure(error, now)
            return
        self.failure = self._silent_since = None
        changed, left = False, []
        for job in jobs:
            status = queue.get(job.id)
            if status is None or status.state.final:
                left.append((job, status))
            else:
                job.return_to_queue()
                changed |= job.note(status)
        if left:
            changed |= self._decide(left, now)
            changed |= not all(job.ended for job, _ in left)
        self._schedule(changed)

    def _ask(self, jobs: Sequence[Job]) -> dict[str, JobStatus]:
        ids = [job.id for job in jobs]
        command = self.system.status_command(ids)
        output = self.system.runner(command, self.system.settings.status_timeout_s)
        return self.system.parse_status(ids, output)

    def _note_failure(self, error: Exception, now: float) -> None:
        if self._silent_since is None:
            self._silent_since = now
            logger.warning(
                "%s The states of jobs stay as they were; the question is asked again.", error
            )
        self.failure = str(error)
        self._schedule(changed=False)
        silence_s = now - self._silent_since
        if silence_s >= self.system.settings.silence_s_max:
            raise StatusError(
                f"{self.system.title} was asked about jobs for {silence_s:.0f} s without an "
                f"answer. The last reason: {error} The jobs go on; wait for them again later."
            ) from error

    def _schedule(self, changed: bool) -> None:
        settings = self.system.settings
        if changed:
            self._interval_s = settings.poll_interval_s_min
        self.next_look = self.clock() + self._interval_s
        self._interval_s = min(self._interval_s * GROWTH, settings.poll_interval_s_max)

    def _decide(self, left: Sequence[tuple[Job, JobStatus | None]], now: float) -> bool:
        """Settle the jobs that the queue no longer holds; return whether anything changed."""
        ends = {job: self._end(job, status) for job, status in left}
        asked = [
            job
            for job, status in left
            if (end := ends[job]) is None
            or (end.state is not JobState.COMPLETED and (status is None or end.exit_status is None))
        ]
        told = self._ask_accounting(asked) if asked else {}
        changed = False
        for job, status in left:
            job.leave_queue(now)
            assert job.left_at is not None
            word = told.get(job.id)
            end = self._end(job, word or status)
            patient = now - job.left_at < self.system.settings.file_patience_s
            vague = (
                status is None and word is None and job.ended_by_signal and not job.cancel_accepted
            )
            if word is not None and word.n_elements is not None:
                # Elements that were cancelled before they ran may never get a record.
                vague |= word.n_elements < job.n_elements
            if patient and job.folder is not None and (end is None or vague):
                changed |= job.note(NOT_YET_KNOWN)  # its files or accounting may be on their way
            else:
                changed |= job.end(end)
        return changed

    def _end(self, job: Job, status: JobStatus | None) -> JobStatus | None:
        return decide_end(
            status, job.exit_records().values(), job.n_elements, cancel_asked=job.cancel_accepted
        )

    def _ask_accounting(self, jobs: Sequence[Job]) -> dict[str, JobStatus]:
        """Return what the accounting tells; its commands are tried in turn until every job is
        settled.
        """
        told: dict[str, JobStatus] = {}
        ids = [job.id for job in jobs]
        for command in self.system.accounting_commands(ids):
            if all(job_id in told for job_id in ids):
                break
            try:
                output: Output = self.system.runner(command, self.system.settings.status_timeout_s)
            except CommandError as error:
                logger.debug("%s", error)
                continue
            for job_id, status in self.system.parse_accounting(ids, output).items():
                told.setdefault(job_id, status)
        return told


def wait_all(
    jobs: Iterable[Job], timeout_s: float | None = None, on_look: Callable[[], None] | None = None
) -> bool:
    """Wait until all jobs have ended; return False if `timeout_s` seconds were not enough.

    `on_look` is called after each look. Raises `StatusError` as `Poller.update` does.
    """
    waiting = list(jobs)
    pollers = list({id(job.system.poller): job.system.poller for job in waiting}.values())
    if not pollers:
        return True
    clock, sleep = pollers[0].clock, pollers[0].sleep
    deadline = None if timeout_s is None else clock() + timeout_s
    while True:
        for poller in pollers:
            poller.update()
        if on_look is not None:
            on_look()
        if all(job.ended for job in waiting):
            return True
        now = clock()
        if deadline is not None and now >= deadline:
            return False
        due = min(job.system.poller.next_look for job in waiting if not job.ended)
        pause_s = max(due - now, 0)
        sleep(pause_s if deadline is None else min(pause_s, deadline - now))
