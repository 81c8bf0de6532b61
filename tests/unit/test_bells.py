"""Does a message end the sleep of its receiver, and does nothing depend on it?"""

import select
import time
from collections.abc import Iterator

import pytest

from mpicluster import messages as m
from mpicluster.client.loop import LONG_REST_S, ClientLoop, allocate_for_client
from mpicluster.config import Config
from mpicluster.ids import CLIENT_RANK, SCHEDULER_RANK
from mpicluster.transport.base import Waking
from mpicluster.transport.bells import Bells
from mpicluster.transport.local import LocalFabric, LocalTransport
from mpicluster.transport.waiting import Ladder


@pytest.fixture
def pair() -> Iterator[tuple[Bells, Bells]]:
    """Two ranks, 0 and 1; 1 can ring 0."""
    ours, theirs = Bells(), Bells()
    theirs.reach({0: ours.path})
    yield ours, theirs
    theirs.close()
    ours.close()


def readable(bells: Bells) -> bool:
    return bool(select.select([bells.fd], [], [], 0)[0])


def test_who_reaches_another_rings_it_once(pair: tuple[Bells, Bells]) -> None:
    ours, _ = pair
    assert readable(ours)
    assert ours.heard() == 1
    assert not readable(ours)


def test_rings_are_counted_until_they_are_heard(pair: tuple[Bells, Bells]) -> None:
    ours, theirs = pair
    for _ in range(4):
        theirs.ring(0)
    assert ours.heard() == 5
    assert ours.heard() == 0


def test_a_ring_is_no_greeting(pair: tuple[Bells, Bells]) -> None:
    """A rank that is slow to count has been sent something by one that is not."""
    ours, theirs = pair
    theirs.ring(0)
    assert ours.greeted() == 1
    theirs.ring(0)
    assert ours.greeted() == 0


def test_nobody_waits_for_one_who_does_not_listen(pair: tuple[Bells, Bells]) -> None:
    ours, theirs = pair
    for _ in range(100_000):
        theirs.ring(0)
    assert ours.heard() >= 4096
    assert not readable(ours)
    theirs.ring(0)
    assert ours.heard() == 1


def test_a_rank_that_has_ended_is_not_rung_any_more() -> None:
    ours, theirs = Bells(), Bells()
    theirs.reach({0: ours.path})
    ours.close()
    theirs.ring(0)
    theirs.ring(0)
    assert theirs._others == {}
    theirs.close()


def test_a_rank_out_of_sight_is_left_alone() -> None:
    bells = Bells()
    bells.reach({3: "/proc/0/fd/3"})
    bells.ring(3)
    bells.ring(4)
    bells.close()


class RungTransport(LocalTransport):
    """Something arrives, but only the look after `looks` others finds it."""

    def __init__(self, bells: Bells, waking: Waking, looks: int) -> None:
        super().__init__(LocalFabric(0), 0, 1)
        super().close()  # its own descriptor
        self.bells, self.waking, self.wake_fd, self.looks = bells, waking, bells.fd, looks

    def arrived(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def hush(self) -> bool:
        return bool(self.bells.heard())


@pytest.mark.parametrize("waking", [Waking.RUNG, Waking.PARTLY])
@pytest.mark.parametrize("looks", [1, 4])
def test_what_has_rung_is_found_even_if_it_shows_later(
    pair: tuple[Bells, Bells], waking: Waking, looks: int
) -> None:
    ours, _ = pair
    transport = RungTransport(ours, waking, looks)
    ladder = Ladder(Config(spin_s=0.0), transport)
    now = time.monotonic()
    ladder.pause(now, now + 60.0)
    assert transport.looks == -1
    assert ours.heard() == 0
    ladder.close()


def test_where_everybody_rings_a_sleep_lasts() -> None:
    """A second of rest takes a few looks, and many where somebody may not be heard."""
    looks = {}
    for waking in (Waking.RUNG, Waking.PARTLY):
        bells = Bells()
        transport = RungTransport(bells, waking, 1_000_000)
        ladder = Ladder(Config(), transport)
        end = time.monotonic() + 1.0
        while (now := time.monotonic()) < end:
            ladder.pause(now, end)
        looks[waking] = 1_000_000 - transport.looks
        ladder.close()
        bells.close()
    assert looks[Waking.RUNG] <= 20 < looks[Waking.PARTLY]


@pytest.fixture
def driven() -> Iterator[tuple[LocalFabric, ClientLoop]]:
    """A client whose loop another thread turns, as far as its background thread knows."""
    fabric = LocalFabric(2)
    loop = ClientLoop(fabric.ends[CLIENT_RANK], Config(), allocate_for_client, {})
    loop.start()
    with loop.lock:
        loop._drivers += 1
    yield fabric, loop
    loop.close()


def test_background_thread_takes_nothing_while_another_waits(
    driven: tuple[LocalFabric, ClientLoop],
) -> None:
    """Else the other sleeps on although what it waits for is there."""
    fabric, loop = driven
    end = fabric.ends[CLIENT_RANK]
    fabric.ends[SCHEDULER_RANK].send(CLIENT_RANK, [m.TasksAccepted(1)])
    time.sleep(10 * LONG_REST_S)  # nothing tells that a thread does nothing
    assert end.arrived()
    with loop.lock:
        loop._drivers -= 1
    give_up = time.monotonic() + 10.0
    while end.arrived():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_a_thread_that_changes_something_wakes_the_one_that_waits(
    driven: tuple[LocalFabric, ClientLoop],
) -> None:
    """`cancel` in one thread ends `result` in another, without a message."""
    _, loop = driven
    loop.core.to_scheduler(m.FreeKeys([1]))
    loop.turn()
    assert select.select([loop._wake_fd], [], [], 0)[0]
