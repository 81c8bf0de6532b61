"""How does a slot wait for its worker?

Short waits without sleeping, as ranks do (`transport/waiting.py`): to wake a process on another
core takes its waker 10 to 20 us. Long ones in poll(2), because who sleeps in recv(2) is also woken
when the worker has read a result, in vain and at the worker's cost.
"""

import math
import os
import select
import socket
import time
from typing import Final

#: After a wait that was shorter than this, the next one begins without sleeping, for as long, in
#: seconds. A round of one task at a time takes half of it.
SPIN_S: Final = 0.0005


class Waiting:
    """The waits of one slot for its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._last_wait_s = math.inf

    def wait(self) -> None:
        """Wait until the socket can be read, or its peer is gone."""
        poll, clock = self._poll.poll, time.perf_counter
        started = clock()
        spin_end = started + SPIN_S if self._last_wait_s < SPIN_S else started
        while not poll(0):
            if clock() < spin_end:
                os.sched_yield()
            else:
                poll()
                break
        self._last_wait_s = clock() - started
