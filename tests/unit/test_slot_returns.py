"""What does a slot give back when it is asked while one of its tasks runs?"""

import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mpicluster.config import Config
from mpicluster.worker import slot as slots
from mpicluster.worker import slot_protocol as p


class SlotProcess:
    """A real slot in a child process, and a worker's end of its sockets."""

    def __init__(self) -> None:
        self.tasks, theirs = socket.socketpair()
        self.control, their_control = socket.socketpair()
        self.board = os.memfd_create("board")
        os.truncate(self.board, p.BOARD_SLOTS * p.TICKET.size)
        path = f"/proc/{os.getpid()}/fd/{self.board}"
        settings = slots.SlotSettings(0, 2, "host", path, path, 0, Config(inline_bytes_max=1000))
        self.pid = os.fork()
        if self.pid == 0:
            self.tasks.close()
            self.control.close()
            try:
                slots.main(settings, theirs, their_control)
            finally:
                os._exit(0)
        theirs.close()
        their_control.close()
        self.reader = p.PacketReader(self.tasks)
        self.tasks.settimeout(10)
        self.messages: list[Any] = []

    def run(self, ticket: int, function: Any, *args: Any) -> None:
        self.tasks.sendall(p.pack([p.RunTasks(
            [[ticket, pickle.dumps(function)]], [], [ticket], [ticket],
            [pickle.dumps((args, {}))], [[]], [f"task {ticket}"],
        )]))  # fmt: skip

    def await_begin(self, ticket: int) -> None:
        board = p.Board(self.board)
        while board.read(0) != ticket:
            time.sleep(0.001)
        time.sleep(0.1)  # it has still to be unpickled

    def ask(self) -> None:
        self.control.sendall(p.pack([p.ReportNow()]))

    def take(self, kind: type[Any]) -> Any:
        while True:
            for number, message in enumerate(self.messages):
                if isinstance(message, kind):
                    return self.messages.pop(number)
            received = self.reader.read()
            assert received is not None, "the slot has ended"
            self.messages += received

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.tasks.close()
        self.control.close()
        os.close(self.board)


@pytest.fixture
def slot() -> Iterator[SlotProcess]:
    process = SlotProcess()
    process.take(p.SlotStarted)
    yield process
    process.close()


def test_what_is_still_in_the_socket_comes_back_too(slot: SlotProcess) -> None:
    """A task that waited for others never ended, since one of those lay behind it, unread."""
    slot.run(1, time.sleep, 1.0)
    slot.await_begin(1)
    slot.run(2, abs, -2)
    slot.ask()
    assert slot.take(p.TasksReturned).tickets == [2]
    assert slot.take(p.TasksDone).tickets == [1]
    slot.run(3, abs, -3)
    done = slot.take(p.TasksDone)
    assert (done.tickets, pickle.loads(done.values[0])) == ([3], 3)


def test_a_slot_that_has_nothing_to_give_back_says_so(slot: SlotProcess) -> None:
    """Or its worker would never ask again."""
    slot.run(1, time.sleep, 1.0)
    slot.await_begin(1)
    slot.ask()
    assert slot.take(p.TasksReturned).tickets == []
    slot.ask()
    assert slot.take(p.TasksReturned).tickets == []
    assert slot.take(p.TasksDone).tickets == [1]


async def add(one: int, two: int) -> int:
    return one + two


def test_an_async_function_runs_to_its_end(slot: SlotProcess) -> None:
    slot.run(1, add, 1, 2)
    assert pickle.loads(slot.take(p.TasksDone).values[0]) == 3
