"""Are batch systems asked as seldom as possible? With a clock of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobqueue import SGE, Configuration, Job, JobState, Slurm
from jobqueue.folder import JobFolder
from jobqueue.polling import Poller, wait_all
from jobqueue.shell import Command, Output
from jobqueue.spec import Array


class World:
    """A clock that only sleeping moves, and a Slurm that answers from a script."""

    def __init__(self, folder: Path, answers: dict[float, str]) -> None:
        self.now = 0.0
        self.looks: list[float] = []
        self.answers = answers
        self.slurm = Slurm(configuration=Configuration(), runner=self.run)
        self.slurm.poller = Poller(self.slurm, lambda: self.now, self.sleep)
        record = JobFolder(folder)
        record.create("")
        self.job = Job(self.slurm, "1", record)
        self.slurm.poller.add(self.job)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, command: Command, timeout_s: float) -> Output:
        del timeout_s
        if command.words[0] != "squeue":
            return Output(command, 1)
        self.looks.append(round(self.now, 1))
        text = [text for since, text in sorted(self.answers.items()) if since <= self.now][-1]
        if text == "silence":
            return Output(command, 1, "", "Socket timed out")
        return Output(command, 0, f"1|N/A|{text}|n1|Resources\n" if text else "")


def test_intervals_grow_while_nothing_happens_and_shrink_when_something_does(home: Path) -> None:
    world = World(home / "job", {0: "PENDING", 100: "RUNNING", 130: "COMPLETED"})
    assert wait_all([world.job], timeout_s=1000)
    gaps = [round(b - a, 1) for a, b in zip(world.looks, world.looks[1:], strict=False)]
    assert gaps[:6] == pytest.approx([2, 3, 4.5, 6.75, 10.1, 15.2], abs=0.1)
    changed = next(number for number, look in enumerate(world.looks) if look >= 100)
    assert gaps[changed] == 2.0
    assert max(gaps) <= 30
    assert world.job.state is JobState.COMPLETED
    assert len(world.looks) < 20


def test_asking_twice_at_once_looks_once(home: Path) -> None:
    world = World(home / "job", {0: "PENDING"})
    assert [world.job.state for _ in range(5)] == [JobState.QUEUED] * 5
    assert world.looks == [0]


def test_silence_of_an_hour_is_survived(home: Path) -> None:
    world = World(home / "job", {0: "RUNNING", 10: "silence", 3600: "COMPLETED"})
    assert wait_all([world.job])
    assert world.job.state is JobState.COMPLETED
    assert world.slurm.poller.failure is None


def test_a_job_that_left_the_queue_is_given_time_for_its_files(home: Path) -> None:
    world = World(home / "job", {0: "RUNNING", 10: ""})
    assert not wait_all([world.job], timeout_s=17)
    assert world.job.last_status.state is JobState.UNKNOWN
    assert not world.job.ended
    (home / "job" / "exit-status").write_text("0 \n")
    assert wait_all([world.job], timeout_s=15)
    assert world.job.state is JobState.COMPLETED


def test_after_that_time_it_is_unknown(home: Path) -> None:
    world = World(home / "job", {0: "RUNNING", 10: ""})
    assert wait_all([world.job])
    assert world.job.state is JobState.UNKNOWN
    assert 30 <= world.now <= 50


@pytest.mark.parametrize(("told_in_time", "status"), [(True, 137), (False, 0)])
def test_an_array_waits_for_the_accounting_of_all_its_elements(
    home: Path, told_in_time: bool, status: int
) -> None:
    """Grid Engine writes records one after the other, and none for what never ran."""
    record = "===\njobnumber 1\ntaskid {}\nfailed {}\nexit_status {}\n"
    now = 0.0

    def run(command: Command, timeout_s: float) -> Output:
        if command.words[0] == "qstat":
            return Output(command, 0, "<job_info/>")
        text = record.format(1, 0, 0)
        if told_in_time and now >= 8:
            text += record.format(2, 100, 137)
        return Output(command, 0, text)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    sge = SGE(configuration=Configuration(), runner=run)
    sge.poller = Poller(sge, lambda: now, sleep)
    folder = JobFolder(home / "job")
    folder.create("")
    job = Job(sge, "1", folder, Array.parse("1-2"))
    sge.poller.add(job)
    assert not wait_all([job], timeout_s=5)
    assert job.last_status.state is JobState.UNKNOWN
    assert wait_all([job], timeout_s=60)
    assert job.exit_status == status
    assert now >= (8 if told_in_time else sge.settings.file_patience_s)


def test_jobs_that_nobody_holds_are_not_asked_about(home: Path) -> None:
    world = World(home / "job", {0: "PENDING"})
    poller = world.slurm.poller
    del world.job
    poller.update()
    assert world.looks == []


def test_waiting_for_nothing_ends_at_once() -> None:
    assert wait_all([])
