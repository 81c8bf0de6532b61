"""How do workers of one host lend each other values?"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mpicluster import messages as m
from mpicluster.cluster.hosts import host_identity
from mpicluster.config import Config
from mpicluster.errors import ConfigError
from mpicluster.serialization.frames import frame_offsets
from mpicluster.transport.local import LocalFabric
from mpicluster.worker.arena_file import open_arena_file
from mpicluster.worker.fetching import want_value
from mpicluster.worker.records import Lane, WorkerState
from mpicluster.worker.segments import Arena
from mpicluster.worker.store import LargeValue, Store
from mpicluster.worker.values import ValueTraffic

KEY = 7
CONTENT = b"x" * 100_000
HOME = host_identity()


class Side:
    """One worker's store and its traffic."""

    def __init__(self, fabric: LocalFabric, rank: int, folder: Path, home: str = HOME) -> None:
        self.rank = rank
        self.store = Store(Arena(1 << 26, 1 << 24, open_arena_file(True)[0]), lambda: folder)
        self.transport = fabric.ends[rank]
        self.values = ValueTraffic(self.store, self.transport, home)

    def put(self) -> None:
        """Keep a value as if a task had made it."""
        extents = [1, len(CONTENT)]
        offsets, nbytes = frame_offsets(extents)
        segment = self.store.arena.allocate(nbytes)
        segment.view()[offsets[1] :] = CONTENT
        self.store.put(KEY, LargeValue(segment, extents))

    def sent(self) -> list[m.Message]:
        """Return the messages that have come from the other side."""
        return [message for _, messages in self.transport.receive() for message in messages]

    @property
    def stored(self) -> LargeValue:
        """The value, which must be here."""
        value = self.store.get(KEY)
        assert isinstance(value, LargeValue)
        return value


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    fabric = LocalFabric(2)
    lender, borrower = Side(fabric, 0, tmp_path), Side(fabric, 1, tmp_path)
    lender.put()
    yield lender, borrower
    for side in (borrower, lender):
        side.store.close()
        side.values.sharing.close()
        side.store.arena.close()
        side.transport.close()


def borrow(lender: Side, borrower: Side) -> m.LargeValueShared:
    """Let one side fetch the value from the other; return the answer."""
    lender.values.send_values(borrower.rank, m.FetchValues(1, [KEY], HOME))
    (answer,) = borrower.sent()
    assert isinstance(answer, m.LargeValueShared)
    return answer


def test_a_lent_value_is_the_lenders_memory(sides: tuple[Side, Side]) -> None:
    lender, borrower = sides
    stored = borrower.values.keep_shared(lender.rank, borrow(lender, borrower))
    assert stored is not None
    assert stored.keys == [KEY]
    assert bytes(borrower.stored.segment.view()[64:]) == CONTENT
    lender.stored.segment.view()[64:] = b"y" * len(CONTENT)
    assert bytes(borrower.stored.segment.view()[64:70]) == b"yyyyyy"
    assert borrower.store.memory_nbytes == 0
    assert borrower.store.nbytes == lender.store.nbytes


def test_a_segment_stays_until_it_is_given_back(sides: tuple[Side, Side]) -> None:
    lender, borrower = sides
    borrower.values.keep_shared(lender.rank, borrow(lender, borrower))
    segment = lender.stored.segment
    lender.store.drop(KEY)
    assert segment.users == 1
    borrower.stored.segment.hold()  # a task reads it
    borrower.store.drop(KEY)
    borrower.values.sharing.give_back()
    assert lender.sent() == []
    next(iter(borrower.values.sharing._borrowed)).let_go()
    borrower.values.sharing.give_back()
    (returned,) = lender.sent()
    assert isinstance(returned, m.SharesReturned)
    lender.values.sharing.take_back(returned.shares)
    assert segment.users == 0


def test_what_a_lost_rank_had_borrowed_comes_back(sides: tuple[Side, Side]) -> None:
    lender, borrower = sides
    borrow(lender, borrower)
    assert lender.stored.segment.users == 2
    lender.values.sharing.rank_lost(borrower.rank)
    assert lender.stored.segment.users == 1


def test_memory_that_cannot_be_opened_is_copied(sides: tuple[Side, Side]) -> None:
    lender, borrower = sides
    answer = borrow(lender, borrower)
    answer.path = "/proc/0/fd/0"
    assert borrower.values.keep_shared(lender.rank, answer) is None
    borrower.values.sharing.give_back()
    fetch, returned = lender.sent()
    assert fetch == m.FetchValues(1, [KEY])
    assert isinstance(returned, m.SharesReturned)
    lender.values.sharing.take_back(returned.shares)
    assert lender.stored.segment.users == 1
    assert isinstance(fetch, m.FetchValues)
    lender.values.send_values(borrower.rank, fetch)
    (copy,) = borrower.sent()
    assert isinstance(copy, m.LargeValueSent)


def test_other_homes_get_copies(sides: tuple[Side, Side]) -> None:
    lender, borrower = sides
    lender.values.send_values(borrower.rank, m.FetchValues(1, [KEY], "another host"))
    (answer,) = borrower.sent()
    assert isinstance(answer, m.LargeValueSent)


def test_a_borrowed_value_is_lent_on(sides: tuple[Side, Side], tmp_path: Path) -> None:
    lender, borrower = sides
    borrower.values.keep_shared(lender.rank, borrow(lender, borrower))
    third = Side(LocalFabric(3), 2, tmp_path)
    share = borrower.values.sharing.lend(2, 5, KEY, borrower.stored)
    assert third.values.keep_shared(borrower.rank, share) is not None
    assert bytes(third.stored.segment.view()[64:]) == CONTENT
    third.store.close()
    third.values.sharing.close()
    third.store.arena.close()


def test_neighbours_are_asked_first() -> None:
    state = WorkerState(1, HOME, neighbours=[5])
    fetch = want_value(state, KEY, 10, [2, 3, 5], rank=4)
    assert fetch is not None
    assert fetch.lane == Lane(5, promised=False)


@pytest.mark.parametrize(("word", "meant"), [("no", False), ("0", False), ("True", True)])
def test_truth_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, word: str, meant: bool
) -> None:
    monkeypatch.setenv("MPICLUSTER_SHARE_MEMORY", word)
    assert Config.load().share_memory is meant


def test_a_word_that_is_no_truth_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be bool, as for example True"):
        Config().update({"share_memory": "perhaps"}, "a test")
