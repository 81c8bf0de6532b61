"""How does a loop wait without burning a core and without being late?

MPI has nothing to wait on, so a rank asks again and again. As long as messages follow each other
closely it only yields the core between two questions; then it sleeps, longer each time. Sockets of
slots end each sleep at once, and so do ranks of the same host that send something (`bells.py`).

Between two yields or sleeps, and after a turn that had something to do, it asks nothing but that:
where ranks share cores, what a rank does in vain is time that tasks or the messages of another rank
wait.
"""

import ctypes
import os
import select
import time
from collections.abc import Callable

from mpicluster.config import Config
from mpicluster.load import Load
from mpicluster.transport.base import Transport, Waking

_PR_SET_TIMERSLACK = 29
#: A sleep lasts this share of the time that messages usually are apart. Where every rank of a ring
#: is late by half of that, a round still gets shorter with each turn, until all of them spin.
SLEEP_SHARE = 0.25
#: The same under full load, when nobody waits for an answer.
FULL_LOAD_SLEEP_SHARE = 0.5
#: MPI may need more looks than one for what a ring announces. So often it is looked for, within one
#: or two milliseconds; most often it has been taken already. Not for some time: under load a rank
#: may get no core for that long, and would rest without having looked.
LOOKS_AFTER_RING = 5
#: A longer gap says nothing about the next one, in seconds.
GAP_MAX_S = 0.02
#: The loop gets a full turn at least this often, in seconds.
TURN_INTERVAL_S = 0.25
#: Who begins to wait for something polls for this long at first, in seconds.
EXPECT_S = 0.002


class Ladder:
    """The pauses of one loop."""

    def __init__(
        self, config: Config, transport: Transport, arrived: Callable[[], bool] | None = None
    ) -> None:
        self._config = config
        self._transport = transport
        self._arrived = arrived or transport.arrived
        self._epoll = select.epoll()
        #: What ends a sleep. Few and made early: select(2) takes none beyond 1023.
        self._enders = [self._epoll.fileno()]
        if transport.wake_fd is not None:
            self._enders.append(transport.wake_fd)
        self._last_traffic = time.monotonic()
        #: How far messages usually are apart.
        self._gap_s = GAP_MAX_S
        self._expected_until = 0.0
        _ask_for_precise_sleeps()

    def watch(self, fd: int) -> None:
        """Let a descriptor end sleeps."""
        self._epoll.register(fd, select.EPOLLIN)

    def await_room(self, fd: int, awaited: bool) -> None:
        """Let room to write into a watched descriptor end sleeps, too, or no more."""
        self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT if awaited else select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor that is about to be closed."""
        self._epoll.unregister(fd)

    def traffic(self, now: float) -> None:
        """Something came or went: begin at the bottom again."""
        gap_s = min(now - self._last_traffic, GAP_MAX_S)
        self._gap_s += 0.5 * (gap_s - self._gap_s)
        self._last_traffic = now

    def expect(self, now: float) -> None:
        """Begin at the bottom: somebody waits from now on, perhaps not for long."""
        self._last_traffic = now
        self._gap_s = 0.0
        self._expected_until = now + EXPECT_S

    def ready(self) -> list[int]:
        """Return the descriptors that can be read now."""
        return [fd for fd, _ in self._epoll.poll(0)]

    def pause(
        self,
        now: float,
        deadline: float | None,
        *,
        expecting: bool = True,
        moving: bool = False,
        load: Load = Load.NONE,
    ) -> None:
        """Wait until something may have happened, at most until `deadline`.

        The more load the longer sleeps are: each time that a rank wakes up it takes the time of
        tasks. While a large value is `moving`, MPI makes progress only when it is called, so the
        rank does no more than yield.
        """
        if self._arrived() or self._epoll.poll(0):
            return
        end = now + TURN_INTERVAL_S if deadline is None else min(deadline, now + TURN_INTERVAL_S)
        if self._transport.waking is Waking.ALWAYS:
            self._sleep(end - now)
            return
        if moving:
            os.sched_yield()
            return
        spin_end = max(self._last_traffic + self._config.spin_s, self._expected_until)
        if self._transport.waking is Waking.RUNG and load is Load.FULL:
            spin_end = now  # nobody waits for an answer, and what comes is heard at once
        if expecting and self._gap_s < self._config.spin_gap_s and now < spin_end:
            self._spin(min(end, spin_end))
        elif self._transport.waking is Waking.RUNG:
            self._listen(now, end)
        else:
            self._nap(now, end, load)

    def _spin(self, end: float) -> None:
        """Yield the core until something has come, at most until `end`."""
        arrived, poll, clock = self._arrived, self._epoll.poll, time.monotonic
        while True:
            os.sched_yield()
            if arrived() or poll(0) or clock() >= end:
                return

    def _nap(self, now: float, end: float, load: Load) -> None:
        """Sleep, longer each time, until something has come, at most until `end`."""
        config = self._config
        share, longest_s = SLEEP_SHARE, config.sleep_s_max
        if load is Load.SOME:
            longest_s = config.working_sleep_s_max
        elif load is Load.FULL:
            share, longest_s = FULL_LOAD_SLEEP_SHARE, config.full_load_sleep_s_max
        while now < end:
            quiet_s = now - self._last_traffic
            sleep_s = max(share * max(quiet_s, self._gap_s), config.sleep_s_min)
            idle = quiet_s > config.idle_after_s
            sleep_s = min(sleep_s, config.idle_sleep_s_max if idle else longest_s)
            if self._sleep(min(sleep_s, end - now)) or self._arrived():
                return
            now = time.monotonic()

    def _listen(self, now: float, end: float) -> None:
        """Sleep until something has come, which rings, at most until `end`."""
        if now >= end:
            return
        hush, arrived = self._transport.hush, self._arrived
        looks, sleep_s = 0, 0.0
        if hush():
            looks, sleep_s = LOOKS_AFTER_RING, self._config.sleep_s_min
        while now < end and not arrived():
            timeout_s = min(sleep_s, end - now) if looks > 0 else end - now
            if self._enders[0] in select.select(self._enders, [], [], timeout_s)[0]:
                return
            now = time.monotonic()
            looks, sleep_s = looks - 1, sleep_s * 2
            if hush():
                looks, sleep_s = LOOKS_AFTER_RING, self._config.sleep_s_min

    def _sleep(self, seconds: float) -> bool:
        """Sleep; return whether a descriptor that is watched has ended it.

        The epoll descriptor is itself selectable, and select knows microseconds.
        """
        ready = select.select(self._enders, [], [], max(seconds, 0.0))[0]
        if self._transport.wake_fd in ready:
            self._transport.hush()
        return self._enders[0] in ready

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()


def _ask_for_precise_sleeps() -> None:
    """Ask Linux not to round this thread's sleeps up by 50 us (prctl(2), PR_SET_TIMERSLACK)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    except (AttributeError, OSError):
        return
