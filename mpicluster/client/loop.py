"""What runs beside the user's script and speaks for its client?

The shape of the other loops, but two may turn it, one at a time: the thread that waits for
something (`result`, `gather`) turns it itself and needs no switch of threads; a background thread
does when nobody waits, so that messages move while the script computes.
"""

import itertools
import os
import select
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from mpicluster import messages as m
from mpicluster.client.copying import copy_frames, fresh_memory
from mpicluster.client.core import ClientCore
from mpicluster.client.lock import ClientLock, Waiting, give_handlers_back
from mpicluster.client.records import FutureRecord
from mpicluster.config import Config
from mpicluster.errors import ClusterClosedError, LostRankError
from mpicluster.ids import CONNECTIONS_MAX, SCHEDULER_RANK, Key, Rank
from mpicluster.serialization.frames import split_frames
from mpicluster.transport.base import Allocate, Transport
from mpicluster.transport.waiting import Ladder

#: Tasks submitted one by one within this time of the last message travel together, in seconds.
FLUSH_S = 0.0002
#: How often it is asked whether tasks of `fire_and_forget` have ended, in seconds.
FORGOTTEN_PAUSE_S = 0.05
#: A user who waits for longer than this is told what for, in seconds.
SAY_S = 3.0
#: Numbers the connections of this process.
_connections = itertools.count()
#: How often the background thread looks whether the thread that turns the loop has stopped.
DRIVEN_REST_S = 0.005
#: The same where that has not stopped for a while: each look takes time of tasks, in seconds.
LONG_REST_S = 0.02
#: A value as it arrives at the client: one pickle, or its frames.
Arrived = bytes | list[memoryview]


class ClientLoop:
    """The connection of a script with its cluster."""

    def __init__(
        self,
        transport: Transport,
        config: Config,
        allocate: Allocate,
        versions: dict[str, str],
        home: str = "",
    ) -> None:
        self.transport = transport
        transport.allocate = allocate
        self.config = config
        #: What this process says to be lent values by workers of its host.
        self.home = home if config.share_memory else ""
        self.core = ClientCore(config, transport.rank, next(_connections) % CONNECTIONS_MAX)
        self.lock = ClientLock()
        #: Counts the values that go to workers in turn. Clients begin with different workers.
        self.turns = itertools.count(transport.rank)
        #: {request: {key: value}} of fetches under way; None for a value that is not there.
        self.fetches: dict[int, dict[Key, Arrived | None]] = {}
        #: {request: answer} of functions run on workers.
        self.ran: dict[int, m.FunctionRan] = {}
        #: Records that have lost a future; filled by finalizers, so it takes no lock.
        self.dropped: deque[FutureRecord] = deque()
        #: Called with True before the loop waits and with False afterwards; a task lends its slot.
        self.on_wait: Callable[[bool], None] | None = None
        #: Called when the scheduler is gone; a job ends then.
        self.on_scheduler_lost: Callable[[LostRankError], None] | None = None
        self.closed = False
        #: This process is a copy that the script has made of itself; it has no part in the cluster.
        self.forked = False
        #: What ended the loop, if something did.
        self.failure: BaseException | None = None
        self._ladder = Ladder(config, transport, self._arrived)
        #: Ends a pause.
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ladder.watch(self._wake_fd)
        self._woken = False
        #: Ends the rest of the background thread.
        self._rest_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rests_long = False
        #: How many threads turn the loop because they wait for something.
        self._drivers = 0
        #: Since when there have been some.
        self._driven_since = 0.0
        #: Clients that are open on this connection.
        self.clients = 0
        self._last_sent = 0.0
        #: The background thread sleeps, or is about to.
        self._resting = False
        _loops.add(self)
        self.core.to_scheduler(m.ClientStarted(versions))
        self._thread = threading.Thread(target=self._run, name="mpicluster-client", daemon=True)

    def start(self) -> None:
        """Start the background thread."""
        self._thread.start()

    # --- turning ---

    def turn(self) -> None:
        """Take what has arrived and send what is due, in a thread that waits for nothing."""
        if self._turn() and self._drivers:
            self.wake()  # perhaps it is what another thread waits for
        elif self.core.next_deadline() is not None:  # the resting thread sends in time what is left
            if self._resting:
                self.wake()
            elif self._rests_long:
                self._rests_long = False
                os.eventfd_write(self._rest_fd, 1)

    def _turn(self) -> bool:
        """Take what has arrived and send what is due; return whether there was anything."""
        now, core = time.monotonic(), self.core
        with self.lock:
            busy = False
            for source, messages in self.transport.receive():
                busy = True
                for message in messages:
                    self._take(source, message, now)
            for rank in self.transport.lost_ranks():
                self._rank_lost(LostRankError(rank, "MPI reports that its process has failed"))
            dropped = self.dropped
            while dropped:
                core.drop_reference(dropped.popleft())
            for rank, bundle in core.outgoing(now):
                busy = True
                self._last_sent = now
                self.transport.send(rank, bundle)
            if busy:
                self._ladder.traffic(now)
        return busy

    def _arrived(self) -> bool:
        with self.lock:
            return self.transport.arrived()

    def _take(self, source: Rank, message: m.Message, now: float) -> None:
        """Keep values here, give everything else to the core."""
        if isinstance(message, m.ValuesSent):
            found = self.fetches.get(message.request)
            if found is not None:
                found.update(zip(message.keys, message.values, strict=True))
        elif isinstance(message, m.LargeValueSent):
            found = self.fetches.get(message.request)
            if found is not None:
                found[message.key] = _frames(message)
        elif isinstance(message, m.LargeValueShared):
            self._copy_shared(source, message)
        elif isinstance(message, m.ValuesMissing):
            found = self.fetches.get(message.request)
            if found is not None:
                found.update(dict.fromkeys(message.keys))
        elif isinstance(message, m.FunctionRan):
            self.ran[message.request] = message
        elif isinstance(message, m.WorkerLost):
            self.transport.lose(message.rank)
            self.core.receive(source, message, now)
        else:
            self.core.receive(source, message, now)

    def _copy_shared(self, lender: Rank, message: m.LargeValueShared) -> None:
        """Copy a value that a worker of this host has lent, and give it back.

        A copy, since the script may keep it for as long as it likes.
        """
        self.core.to_worker(lender, m.SharesReturned([message.share]))
        found = self.fetches.get(message.request)
        if found is None:
            return
        try:
            found[message.key] = copy_frames(message.path, message.offset, message.extents)
        except OSError:
            self.home = ""  # what the workers lend cannot be opened from here
            self.core.to_worker(lender, m.FetchValues(message.request, [message.key]))

    def _rank_lost(self, error: LostRankError) -> None:
        """Without the scheduler there is nothing to wait for; it tells which workers are lost."""
        if error.rank != SCHEDULER_RANK:
            return
        if self.on_scheduler_lost is not None:
            self.on_scheduler_lost(error)
        raise error

    def wait_until(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Turn until `done()`; return False if `timeout` seconds pass before."""
        if done():
            return True
        give_up = None if timeout is None else time.monotonic() + timeout
        with Waiting(self.wake) as signals:
            with self.lock:
                if not self._drivers:
                    self._driven_since = time.monotonic()
                self._drivers += 1
            if self._resting:
                self.wake()
            if self.on_wait is not None:
                self.on_wait(True)
            try:
                self._ladder.expect(time.monotonic())
                while True:
                    self.check()
                    busy = self._turn()
                    if done():
                        return True
                    signals.look()
                    now = time.monotonic()
                    if give_up is not None and now >= give_up:
                        return False
                    if busy and self._drivers > 1:
                        self.wake()  # perhaps it is what another thread waits for
                    self._pause(now, give_up)
            finally:
                if self.on_wait is not None:
                    self.on_wait(False)
                with self.lock:
                    self._drivers -= 1

    def _pause(self, now: float, deadline: float | None, *, expecting: bool = True) -> None:
        if self._drivers > 1:  # one that wakes up may take the message that another waits for
            look_again = now + DRIVEN_REST_S
            deadline = look_again if deadline is None else min(deadline, look_again)
        due = self.core.next_deadline()
        if due is not None:
            deadline = due if deadline is None else min(deadline, due)
        moving, load = self.transport.sending(), self.core.load
        self._ladder.pause(now, deadline, expecting=expecting, moving=moving, load=load)
        if self._woken:
            # The flag goes first: who wakes between the two lines does so once more.
            self._woken = False
            _clear(self._wake_fd)

    def finish_forgotten(self) -> None:
        """Wait for the tasks that somebody has fired and forgotten; say so if that takes long."""
        said = False
        started = time.monotonic()
        while True:
            with self.lock:
                request = self.core.ask("forgotten")
            self.wait_until(lambda request=request: request in self.core.answers)  # type: ignore[misc]
            count = self.core.answers.pop(request)
            if not count:
                return
            if not said and time.monotonic() - started > SAY_S:
                said = True
                print(
                    f"mpicluster: the script has ended; waiting for {count} tasks that it gave to "
                    "fire_and_forget.", file=sys.stderr, flush=True,
                )  # fmt: skip
            self.wait_until(lambda: False, FORGOTTEN_PAUSE_S)

    def flush_soon(self) -> None:
        """Send what was queued: at once after a pause, else together with what follows."""
        if time.monotonic() - self._last_sent > FLUSH_S:
            self.turn()
        elif self._resting or self._drivers:
            self.wake()
        elif self._rests_long:
            self._rests_long = False
            os.eventfd_write(self._rest_fd, 1)

    def flush(self) -> None:
        """Send all that was queued, before this returns."""
        with self.lock:  # at least waits for a thread that is sending
            self.core.hurry()
        self.turn()
        if self.core.backlog:
            self.wait_until(lambda: not self.core.backlog)  # what has no credits

    def drop(self, record: FutureRecord) -> None:
        """Note that a future is gone. Called by finalizers, in any thread, so it takes no lock."""
        self.dropped.append(record)
        if self._resting:
            self.wake()

    def wake(self) -> None:
        """End the pause of the thread that turns the loop."""
        if not self._woken and not self.closed:
            self._woken = True
            os.eventfd_write(self._wake_fd, 1)

    def check(self) -> None:
        """Raise if the cluster is gone."""
        if self.forked:
            raise ClusterClosedError(
                "This process was forked from the one that has the client, whose connection it "
                "cannot use. Use the client where it was made, and give the other process values."
            )
        if self.failure is not None:
            raise ClusterClosedError(
                f"The client's connection has failed: {self.failure!r}. The job ends."
            ) from self.failure
        if self.closed or self.core.stopped:
            raise ClusterClosedError

    def _run(self) -> None:
        """Turn while nobody else does."""
        try:
            while not self.closed:
                now = time.monotonic()
                if self._drivers:
                    self._rests_long = now - self._driven_since > DRIVEN_REST_S
                    rest_s = LONG_REST_S if self._rests_long else DRIVEN_REST_S
                    if select.select([self._rest_fd], [], [], rest_s)[0]:
                        _clear(self._rest_fd)
                    self._rests_long = False
                    continue
                with self.lock:
                    if self._drivers or self._turn():
                        continue
                self._resting = True
                if not self.dropped and not self._drivers:
                    self._pause(now, None, expecting=False)
                self._resting = False
                if self._drivers:
                    self.wake()  # what ended the pause may have been for them
        except BaseException as error:  # noqa: BLE001  (waiting threads must hear of it)
            if not self.closed:
                self.failure = error

    def close(self) -> None:
        """Stop the background thread."""
        self.closed = True
        for fd in (self._wake_fd, self._rest_fd):
            os.eventfd_write(fd, 1)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        self._ladder.close()
        os.close(self._wake_fd)
        os.close(self._rest_fd)
        give_handlers_back()


#: All that have not been forgotten.
_loops: "weakref.WeakSet[ClientLoop]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked process: what it has of the cluster is a copy, and so are its descriptors."""
    for loop in list(_loops):
        loop.forked = loop.closed = True


os.register_at_fork(after_in_child=_leave_to_parent)


def _clear(event_fd: int) -> None:
    with suppress(BlockingIOError):
        os.eventfd_read(event_fd)


def _frames(message: m.LargeValueSent) -> list[memoryview]:
    """Return the frames of a value that has come in one piece or in several."""
    if len(message.buffers) == len(message.extents):
        return message.buffers
    (whole,) = message.buffers
    return split_frames(whole, message.extents)


def allocate_for_client(message: Any) -> list[memoryview]:
    """Return memory for a value that comes to the client."""
    return fresh_memory(message.pieces)
