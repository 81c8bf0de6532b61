"""What do progress and track count and print?"""

import threading
from types import SimpleNamespace

import pytest

from mpicluster.client import progress as module
from mpicluster.client.future import Future
from mpicluster.client.records import CANCELLED, ERROR, FINISHED, FutureRecord


class FakeClient:
    """A client whose tasks end when the test says so."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.steps = []

    def watch(self, record, callback):
        record.callbacks = [*(record.callbacks or []), callback]

    def wait_until(self, done, _timeout):
        if self.steps:
            self.steps.pop(0)()
        return done()

    def drop(self, record):
        pass

    def task(self, prefix, status=None):
        record = FutureRecord(1, prefix, None, None)
        if status is not None:
            record.status = status
        return Future(record, self)


def end(future, status=FINISHED):
    record = future._record
    record.status = status
    for callback in record.callbacks or ():
        callback(record)


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: found.now)
    return found


def test_tasks_are_counted_by_prefix():
    client = FakeClient()
    futures = [client.task("load"), client.task("load"), client.task("sum", FINISHED)]
    tally = module.Tally(futures, multi=True, complete=True)
    end(futures[0])
    end(futures[1], ERROR)
    assert [group.text() for group in tally.groups.values()] == [
        "load 2 of 2 (1 erred)", "sum 1 of 1",
    ]  # fmt: skip
    assert tally.left == 0


def test_without_multi_all_tasks_share_a_line():
    client = FakeClient()
    futures = [client.task("load", CANCELLED), client.task("sum")]
    tally = module.Tally(futures, multi=False, complete=True)
    assert [group.text() for group in tally.groups.values()] == ["tasks 1 of 2 (1 cancelled)"]


def test_without_complete_tasks_that_are_done_are_left_out():
    client = FakeClient()
    tally = module.Tally([client.task("a", FINISHED), client.task("a")], True, complete=False)
    assert tally.groups["a"].total == 1


def test_progress_prints_at_growing_intervals_and_at_the_end(capsys, clock):
    client = FakeClient()
    futures = [client.task("load") for _ in range(8)]

    def step(seconds, future):
        def act():
            clock.now += seconds
            end(future)

        return act

    client.steps = [step(1.0, future) for future in futures]
    assert module.progress(futures, notebook=False) is None
    assert capsys.readouterr().out.splitlines() == [
        "[   2.0 s] load 2 of 8",
        "[   5.0 s] load 5 of 8",
        "[   8.0 s] load 8 of 8",
    ]


def test_progress_of_nothing_prints_nothing(capsys):
    assert module.progress([]) is None
    assert capsys.readouterr().out == ""


def test_lines_name_a_few_prefixes_and_count_the_others(capsys, clock):
    groups = [module.Group(f"p{number}", 1, int(number == 0)) for number in range(9)]
    module.LogLines().close(groups)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("p1 0 of 1, p2 0 of 1, p3 0 of 1, p4 0 of 1, p5 0 of 1, p6 0 of 1, "
                         "and 3 more prefixes")  # fmt: skip


def test_track_yields_everything_and_says_so(capsys, clock):
    assert list(module.track([1, 2, 3], "steps")) == [1, 2, 3]
    assert capsys.readouterr().out.splitlines() == ["[   0.0 s] steps 3 of 3"]


def test_track_ends_its_display_when_the_loop_is_left(capsys, clock):
    for item in module.track(iter(range(10)), "steps", total=10):
        if item == 4:
            break
    assert capsys.readouterr().out.splitlines() == ["[   0.0 s] steps 4 of 10"]


def test_terminal_has_a_size(monkeypatch):
    monkeypatch.setattr(module.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module.sys.stdout, "fileno", lambda: 1, raising=False)
    for columns, expected in ((0, False), (80, True)):
        size = module.os.terminal_size((columns, 24))
        monkeypatch.setattr(module.os, "get_terminal_size", lambda _fd, size=size: size)
        assert module.in_terminal() is expected
