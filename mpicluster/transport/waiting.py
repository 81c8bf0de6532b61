"""How does a loop wait without burning a core and without being late?

MPI has nothing to wait on, so a rank asks again and again. While something is expected it only
yields the core between two questions, for a short time after the last message; then it sleeps,
longer each time. Sockets (of slots, of the local transport) end each sleep at once.

Between two yields it asks nothing but that: where ranks share cores, what a rank does before it
yields is the time that the message of another one waits.
"""

import ctypes
import os
import select
import time
from collections.abc import Callable

from mpicluster.config import Config

_PR_SET_TIMERSLACK = 29


class Ladder:
    """The pauses of one loop."""

    def __init__(
        self, config: Config, wake_fd: int | None, arrived: Callable[[], bool]
    ) -> None:
        self._config = config
        self._arrived = arrived
        self._epoll = select.epoll()
        #: The transport wakes us itself, so a sleep may last until the next deadline.
        self._woken = wake_fd is not None
        if wake_fd is not None:
            self.watch(wake_fd)
        self._last_traffic = time.monotonic()
        self._sleep_s = 0.0
        _ask_for_precise_sleeps()

    def watch(self, fd: int) -> None:
        """Let a descriptor end sleeps."""
        self._epoll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor that is about to be closed."""
        self._epoll.unregister(fd)

    def traffic(self, now: float) -> None:
        """Something came or went: begin at the bottom again."""
        self._last_traffic = now
        self._sleep_s = 0.0

    def ready(self) -> list[int]:
        """Return the descriptors that can be read now."""
        return [fd for fd, _ in self._epoll.poll(0)]

    def pause(
        self, now: float, expecting: bool, deadline: float | None, *, moving: bool = False
    ) -> None:
        """Wait until something may have happened, at most until `deadline`.

        While a large value is `moving`, MPI makes progress only when it is called, so the rank
        does no more than yield.
        """
        config = self._config
        quiet_s = now - self._last_traffic
        if self._woken:
            sleep_s = config.status_interval_s
        elif moving:
            os.sched_yield()
            return
        elif expecting and quiet_s < config.spin_s:
            self._spin(deadline)
            return
        else:
            longest_s = (
                config.idle_sleep_s_max if quiet_s > config.idle_after_s else config.sleep_s_max
            )
            self._sleep_s = min(max(self._sleep_s * 2, config.sleep_s_min), longest_s)
            sleep_s = self._sleep_s
        if deadline is not None:
            sleep_s = min(sleep_s, max(deadline - now, 0.0))
        # The epoll descriptor is itself selectable, and select knows microseconds.
        select.select([self._epoll.fileno()], [], [], sleep_s)

    def _spin(self, deadline: float | None) -> None:
        """Yield until something has come, at most until `deadline` or the end of spinning."""
        arrived, poll, clock = self._arrived, self._epoll.poll, time.monotonic
        end = self._last_traffic + self._config.spin_s
        if deadline is not None:
            end = min(end, deadline)
        while True:
            os.sched_yield()
            if arrived() or poll(0) or clock() >= end:
                return

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()


def _ask_for_precise_sleeps() -> None:
    """Ask Linux not to round this thread's sleeps up by 50 us (prctl(2), PR_SET_TIMERSLACK)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    except (AttributeError, OSError):
        return
