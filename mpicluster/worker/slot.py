"""What does a slot do?

A slot is a child process that runs user functions, one at a time, and nothing else does. Its main
thread takes tasks and sends results; a second thread answers the worker while a task runs. It
never touches MPI. It ends when its sockets do.
"""

import mmap
import os
import pickle
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Final

from mpicluster.config import Config
from mpicluster.errors import TaskSerializationError
from mpicluster.serialization.calls import ReadsOnly, load_call
from mpicluster.serialization.exceptions import to_error
from mpicluster.serialization.frames import (
    Frames,
    dumps,
    frame_offsets,
    from_frames,
    split_frames,
    to_frames,
)
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.segments import Place, to_place
from mpicluster.worker.slot_waiting import Waiting

#: What a cluster runs with where nobody says otherwise.
DEFAULTS: Final = Config()


@dataclass(frozen=True, slots=True)
class SlotSettings:
    """What a slot is told when it is forked."""

    index: int
    rank: int
    host: str
    arena_path: str
    board_path: str
    #: The address of the client that tasks here may make.
    client: int
    config: Config = DEFAULTS
    #: What clients want in every slot comes before all else.
    prepared: bool = False


#: A task that waits in this slot: ticket, function, payload, inputs, name. A bare tuple, because
#: short tasks cost little more than the objects that are made for them.
QueuedTask = tuple[int, int, bytes, list[Any], str]
#: Results of these types, when they are small, need no look at buffers and classes.
PLAIN_RESULTS = frozenset({int, float, bool, type(None), complex})
#: Where the queue lasts for less than this, more is asked for by reporting when half of it is done:
#: more than the way to the worker and back takes, in seconds.
WAY_S = 0.002


class Slot:
    """The state of one slot process."""

    def __init__(
        self, settings: SlotSettings, tasks: socket.socket, control: socket.socket
    ) -> None:
        self.settings = settings
        self._report_s = settings.config.slot_report_s
        self.tasks = tasks
        self.control = control
        self.reader = p.PacketReader(tasks)
        self._waiting = Waiting(tasks)
        self.arena_fd = os.open(settings.arena_path, os.O_RDWR | os.O_CLOEXEC)
        board_fd = os.open(settings.board_path, os.O_RDWR | os.O_CLOEXEC)
        self.board = p.BoardEntry(board_fd, settings.index)
        os.close(board_fd)
        self.queue: deque[QueuedTask] = deque()
        self.codes: dict[int, bytes] = {}
        self.functions: dict[int, Callable[..., Any]] = {}
        #: Functions that do not change their inputs.
        self.reads_only: set[int] = set()
        #: Typical time of a function's tasks: results wait only for the next short one.
        self.durations: dict[int, float] = {}
        self.granted: deque[int] = deque()
        #: Keys of kept inputs that may go when the tasks that are here are done.
        self.forgetting: dict[int, None] = {}
        #: Mappings that user code keeps alive: place -> mappings.
        self.mapped: dict[Place, list[mmap.mmap]] = {}
        #: Inputs kept for several tasks: key -> pickle or (place, extents).
        self._kept: dict[int, Any] = {}
        #: {key: value} and {key: (place, mapping)} of those that tasks have shared.
        self._shared: dict[int, Any] = {}
        self._shared_mappings: dict[int, tuple[Place, mmap.mmap]] = {}
        #: {path: descriptor} of arenas that this worker borrows from.
        self._borrowed: dict[str, int] = {}
        #: The task that runs, for `get_worker` and messages.
        self.current: QueuedTask | None = None
        self.handlers: dict[type[Any], Callable[[Any], None]] = {}
        #: Notes the futures that are pickled inside; set once tasks here have a client.
        self.note_futures: Callable[[], AbstractContextManager[list[Any]]] | None = None
        #: Sends what that client has queued.
        self.flush_client: Callable[[], None] | None = None
        #: {ticket: futures} in the values of finished tasks: they keep what they stand for.
        self._held: dict[int, list[Any]] = {}
        #: Set when what clients want in every slot has been done here.
        self._ready = threading.Event()
        if not settings.prepared:
            self._ready.set()
        self._lock = threading.Lock()
        #: Another one: who waits for room there must not keep the others from reporting.
        self._control_lock = threading.Lock()
        #: Held by the main thread but for the time in which user code runs: then the control thread
        #: may read the task socket.
        self._reading = threading.Lock()
        #: (ticket, duration, value) of finished tasks that have not been reported. The control
        #: thread takes from it too; appending to a deque and taking from it are atomic.
        self._done: deque[tuple[int, float, Any]] = deque()
        #: Places that finished tasks have left mapped and that have not been reported.
        self._left_mapped: list[Place] = []
        self._last_report = 0.0
        #: Half of what was received last has been reported, so that more is on its way.
        self._half_reported = False
        self._pid = os.getpid()

    # --- the main thread ---

    def run(self) -> None:
        """Take tasks and run them until the worker is gone."""
        threading.Thread(target=self._listen, name="mpicluster-control", daemon=True).start()
        self._reading.acquire()
        self._send(p.SlotStarted(os.getpid()))
        while True:
            try:
                task = self.queue.popleft()
            except IndexError:  # asked for this way because the control thread takes from it too
                task = None
            if task is not None:
                self._run_task(task)
                continue
            self.board.write(0)
            self.report()
            self._forget()
            self.unmap()
            if not self._receive():
                return

    def _receive(self) -> bool:
        """Wait for the worker; return False when it is gone."""
        self._waiting.wait()
        messages = self.reader.read()
        if messages is None:
            return False
        self._take(messages)
        return True

    def _take(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, p.RunTasks):
                self._half_reported = False
                self.codes.update(dict(message.definitions))
                for key, found in message.keep:
                    self._kept[key] = found
                    self.forgetting.pop(key, None)  # an older order
                self.queue.extend(
                    zip(
                        message.tickets, message.functions, message.payloads, message.inputs,
                        message.names, strict=True,
                    )
                )  # fmt: skip
            elif isinstance(message, p.GrantSegment):
                self.granted.append(message.offset)
            elif isinstance(message, p.ForgetInputs):
                self.forgetting.update(dict.fromkeys(message.keys))
            elif isinstance(message, p.LetFuturesGo):
                for ticket in message.tickets:
                    self._held.pop(ticket, None)
            elif isinstance(message, p.SetUp):
                self._set_up(message.codes)

    def _set_up(self, codes: list[bytes]) -> None:
        """Run what clients want in every slot; it went well in others, so tasks may run anyway."""
        for code in codes:
            try:
                function, args, kwargs = pickle.loads(code)
                function(*args, **kwargs)
            except (Exception, SystemExit):  # noqa: BLE001  (whatever user code raises)
                host, rank = self.settings.host, self.settings.rank
                print(
                    f"mpicluster: a plugin or uploaded file failed in a new slot of rank {rank} on "
                    f"{host}, which goes on without it:", file=sys.stderr,
                )  # fmt: skip
                traceback.print_exc()
        self._ready.set()

    def _run_task(self, task: QueuedTask) -> None:
        """Run one task and keep its result for the next report."""
        ticket, function, payload, inputs, _ = task
        report_s = self._report_s
        started = time.perf_counter()
        if self.durations.get(function, 1.0) > report_s:
            self.report()
        self.current = task
        self.board.write(ticket)
        mappings: list[tuple[Place, mmap.mmap]] = []
        try:
            called = self.functions.get(function) or self._define(function)
            if inputs:
                share = function in self.reads_only
                inputs = [self._load_input(found, mappings, share) for found in inputs]
            args, kwargs = load_call(payload, inputs)
            self._reading.release()
            try:
                value = called(*args, **kwargs)
                if type(value) is CoroutineType:
                    value = _await(value)
            finally:
                self._end_if_forked()
                self._reading.acquire()
            del inputs, args, kwargs
            plain = type(value) in PLAIN_RESULTS
            stored = pickle.dumps(value, 5) if plain else self._store(task, value)
            del value
        except BaseException as error:  # noqa: BLE001  (whatever user code raises)
            self._end_if_forked()
            self.report()
            self._send(self._raised(ticket, error))
            stored = None
        self.current = None
        if mappings:
            self._close(mappings)
        if stored is None:
            return
        ended = time.perf_counter()
        duration = self.durations[function] = ended - started
        self._done.append((ticket, duration, stored))
        left = len(self.queue)
        half = not self._half_reported and len(self._done) >= left and left * duration < WAY_S
        self._half_reported |= half
        if half or ended - self._last_report > report_s:
            self.report()

    def _end_if_forked(self) -> None:
        """End a child that user code has forked and that came back from it: it is no slot."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _define(self, function: int) -> Any:
        """Unpickle a function the first time that it is called here."""
        defined: Any = pickle.loads(self.codes[function])
        if isinstance(defined, ReadsOnly):
            defined = defined.function
            self.reads_only.add(function)
        self.functions[function] = defined
        return defined

    def _raised(self, ticket: int, error: BaseException) -> p.TaskRaised:
        settings = self.settings
        return p.TaskRaised(ticket, to_error(error, settings.rank, settings.host))

    # --- values ---

    def _load_input(
        self, found: Any, mappings: list[tuple[Place, mmap.mmap]], share: bool
    ) -> Any:
        """Return an input. A private mapping lets the task write into it and harm nobody.

        Tasks of graphs, which must not write into their inputs, `share` those that are kept.
        """
        if isinstance(found, int):
            if share:
                return self._shared[found] if found in self._shared else self._load_shared(found)
            found = self._kept[found]
        if isinstance(found, bytes):
            return pickle.loads(found)
        place, extents = found
        place = to_place(place)
        mapping = self._map(place, extents)
        mappings.append((place, mapping))
        return from_frames(split_frames(memoryview(mapping), extents))

    def _load_shared(self, key: int) -> Any:
        """Load a kept input once for all tasks that share it."""
        mappings: list[tuple[Place, mmap.mmap]] = []
        value = self._shared[key] = self._load_input(self._kept[key], mappings, False)
        if mappings:
            self._shared_mappings[key] = mappings[0]
        return value

    def _forget(self) -> None:
        """Drop kept inputs that no task to come needs; their memory goes with `unmap`."""
        while self.forgetting:
            key = next(iter(self.forgetting))
            del self.forgetting[key]
            found = self._kept.pop(key, None)
            self._shared.pop(key, None)
            if found is None or isinstance(found, bytes):
                continue
            mappings = self.mapped.setdefault(to_place(found[0]), [])
            if key in self._shared_mappings:
                mappings.append(self._shared_mappings.pop(key)[1])

    def _map(self, place: Place, extents: list[int]) -> mmap.mmap:
        """Map a value from this worker's arena, or from a file that the worker has open."""
        if isinstance(place, int):
            return _map_privately(self.arena_fd, frame_offsets(extents)[1], place)
        path, offset = place
        fd = self._borrowed.get(path)
        if fd is None:
            fd = self._borrowed[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return _map_privately(fd, frame_offsets(extents)[1], offset)

    def _store(self, task: QueuedTask, value: Any) -> Any:
        """Return the form of a result that goes to the worker; large ones into the arena."""
        try:
            with self.note_futures() if self.note_futures else nullcontext() as futures:
                frames = to_frames(value, self.settings.config.inline_bytes_max)
        except Exception as error:
            raise TaskSerializationError(
                f"The result of {task[4]!r}, a {type(value).__name__}, cannot be pickled: "
                f"{error}. A task must return a value that can travel to another process."
            ) from error
        if futures:
            self._held[task[0]] = futures
            if self.flush_client is not None:
                # Who gets this value asks for the futures in it, which must be known by then.
                self.flush_client()
        if isinstance(frames, bytes):
            return frames
        extents = [len(frame) for frame in frames]
        place = self._ask_for_segment(frame_offsets(extents)[1])
        self.write(frames, extents, place)
        return [place, extents]

    def write(self, frames: Frames, extents: list[int], place: int) -> None:
        """Copy frames into the arena; writing to the file spares us page faults."""
        for frame, offset in zip(frames, frame_offsets(extents)[0], strict=True):
            view, position = memoryview(frame), place + offset
            while view.nbytes:
                written = os.pwrite(self.arena_fd, view[: 1 << 30], position)
                view = view[written:]
                position += written

    def _ask_for_segment(self, nbytes: int) -> int:
        self._send(p.WantSegment(nbytes))
        while not self.granted:
            if not self._receive():
                os._exit(0)
        offset = self.granted.popleft()
        if offset < 0:
            raise MemoryError(
                f"The result of {nbytes} bytes does not fit into the memory of rank "
                f"{self.settings.rank} ({self.settings.host})."
            )
        return offset

    def _close(self, mappings: list[tuple[Place, mmap.mmap]]) -> None:
        """Unmap the inputs of a task; report those that user code keeps alive."""
        for place, mapping in mappings:
            try:
                mapping.close()
            except BufferError:
                self.mapped.setdefault(place, []).append(mapping)
                self._left_mapped.append(place)

    def unmap(self) -> None:
        """Try again to unmap what was kept alive."""
        if not self.mapped:
            return
        closed: list[Any] = []
        kept = {to_place(found[0]) for found in self._kept.values() if not isinstance(found, bytes)}
        for place, mappings in list(self.mapped.items()):
            left = [mapping for mapping in mappings if not _closes(mapping)]
            if left:
                self.mapped[place] = left
                continue
            del self.mapped[place]
            if place not in kept:
                closed.append(place)
        if closed:
            self._send(p.Unmapped(closed))

    # --- reports ---

    def report(self) -> None:
        """Send the results that have gathered."""
        self._last_report = time.perf_counter()
        done = self._done
        if not done:
            return
        with self._lock:
            rows = [done.popleft() for _ in range(len(done))]
            mapped, self._left_mapped = self._left_mapped, []
            if rows:
                tickets, durations, values = zip(*rows, strict=True)
                holding = [ticket for ticket in tickets if ticket in self._held]
                message = p.TasksDone(tickets, durations, values, mapped, holding)
                self.tasks.sendall(p.pack([message]))

    def _send(self, message: Any) -> None:
        with self._lock:
            self.tasks.sendall(p.pack([message]))

    # --- the client inside a task ---

    def send_control(self, message: Any) -> None:
        """Send on the control socket, from any thread."""
        with self._control_lock:
            self.control.sendall(p.pack([message]))

    def lend(self, lent: bool) -> None:
        """Let other tasks use this task's place while it waits, or take it back."""
        self._send(p.SlotLent(lent))

    def map_for_client(self, place: Any, extents: list[int]) -> list[memoryview]:
        """Return the frames of a large value that a client here has asked for."""
        mapping = self._map(to_place(place), extents)
        self.mapped.setdefault(to_place(place), []).append(mapping)
        return split_frames(memoryview(mapping), extents)

    # --- the control thread ---

    def _listen(self) -> None:
        reader = p.PacketReader(self.control)
        while (messages := reader.read()) is not None:
            for message in messages:
                if isinstance(message, p.ReportNow):
                    self._give_back()
                elif isinstance(message, p.RunNow):
                    threading.Thread(target=self._run_now, args=(message,), daemon=True).start()
                elif type(message) in self.handlers:
                    self.handlers[type(message)](message)
        os._exit(0)

    def _give_back(self) -> None:
        """Report, and return the tasks that the main thread has not taken, and what is still in the
        socket while that runs user code.
        """
        if self._reading.acquire(blocking=False):
            try:
                self._take(self.reader.read_all())
            finally:
                self._reading.release()
        returned = []
        while self.queue:
            try:
                returned.append(self.queue.popleft()[0])
            except IndexError:
                break
        self.report()
        self._send(p.TasksReturned(returned))

    def _run_now(self, message: p.RunNow) -> None:
        self._ready.wait()  # what was wanted earlier must not come later
        value, error = b"", None
        try:
            function, args, kwargs = pickle.loads(message.code)
            value = dumps(function(*args, **kwargs))
        except BaseException as raised:  # noqa: BLE001
            error = to_error(raised, self.settings.rank, self.settings.host)
        self.send_control(p.RanNow(message.request, value, error))


def _closes(mapping: mmap.mmap) -> bool:
    """Try to unmap; return False if user code still uses the memory."""
    try:
        mapping.close()
    except BufferError:
        return False
    return True


def _await(coroutine: Any) -> Any:
    """Run what a call of an `async` function has given to its end, in an event loop of its own."""
    import asyncio

    return asyncio.run(coroutine)


def _map_privately(fd: int, nbytes: int, offset: int) -> mmap.mmap:
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(fd, nbytes, mmap.MAP_PRIVATE, protection, offset=offset)


#: The slot of this process, None in all others.
current_slot: Slot | None = None


def main(settings: SlotSettings, tasks: socket.socket, control: socket.socket) -> None:
    """Run the slot of this process until its worker is gone."""
    global current_slot
    current_slot = Slot(settings, tasks, control)
    current_slot.run()
