"""How does a worker start its slots, speak with them and notice their end?

Owns the zygote's process and the sockets; decides nothing about tasks.
"""

import pickle
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mpicluster.ids import ClientId, Key, slot_client
from mpicluster.worker import slot_protocol as p
from mpicluster.worker.kept_inputs import KeptInputs
from mpicluster.worker.slot import SlotSettings
from mpicluster.worker.spawning import ZygoteLink
from mpicluster.worker.zygote import PACKET_BYTES, ForkSlot, SlotEnded

_SOCKET_BYTES: Final = 1 << 20


@dataclass(slots=True, eq=False)
class Outbox:
    """What goes to a slot on one of its sockets; what does not fit is kept, nothing ever waits."""

    socket: socket.socket
    unsent: bytearray = field(default_factory=bytearray)
    #: Somebody looks for room for it.
    awaits_room: bool = False

    def send(self, message: Any) -> None:
        """Send; what does not fit goes with `flush`."""
        self.unsent += p.pack([message])
        self.flush()

    def flush(self) -> None:
        """Send what did not fit."""
        unsent = self.unsent
        try:
            while unsent:
                sent = self.socket.send(unsent)
                del unsent[:sent]
        except BlockingIOError:
            return
        except OSError:
            unsent.clear()  # the slot is gone; its end is noticed on the task socket


@dataclass(slots=True, eq=False)
class SlotLink:
    """Our end of one slot."""

    index: int
    tasks: socket.socket
    control: socket.socket
    readers: dict[int, p.PacketReader]
    #: The address of the client that its tasks may make.
    client: ClientId
    to_tasks: Outbox = field(init=False)
    to_control: Outbox = field(init=False)
    pid: int = 0
    #: Functions that the slot knows.
    functions: set[int] = field(default_factory=set)
    #: {key: ticket} of values that refer to futures which the slot keeps.
    holding: dict[Key, int] = field(default_factory=dict)
    kept: KeptInputs = field(default_factory=KeptInputs)

    def __post_init__(self) -> None:
        self.to_tasks, self.to_control = Outbox(self.tasks), Outbox(self.control)


class SlotPool:
    """All slots of one worker."""

    def __init__(self, zygote: ZygoteLink, settings: SlotSettings, board_fd: int) -> None:
        self.zygote = zygote
        self.settings = settings
        self.board = p.Board(board_fd)
        self._started = 0
        self.links: dict[int, SlotLink] = {}
        #: {descriptor: slot} of all sockets.
        self.by_fd: dict[int, SlotLink] = {}

    def start(self, index: int, set_ups: Sequence[bytes] = ()) -> list[int]:
        """Have a slot forked that runs functions before all else; return the descriptors to watch.
        """
        ours_t, theirs_t = socket.socketpair()
        ours_c, theirs_c = socket.socketpair()
        for sock in (ours_t, theirs_t):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        ours_t.setblocking(False)
        ours_c.setblocking(False)
        self._started += 1
        client = slot_client(self.settings.rank, self._started)
        prepared = bool(set_ups)
        settings = replace(self.settings, index=index, client=client, prepared=prepared)
        self.board.clear(index)
        request = pickle.dumps(ForkSlot(settings))
        socket.send_fds(self.zygote.socket, [request], [theirs_t.fileno(), theirs_c.fileno()])
        theirs_t.close()
        theirs_c.close()
        readers = {sock.fileno(): p.PacketReader(sock) for sock in (ours_t, ours_c)}
        link = SlotLink(index, ours_t, ours_c, readers, client)
        self.links[index] = link
        for fd in readers:
            self.by_fd[fd] = link
        if prepared:
            self.send(link, p.SetUp(list(set_ups)))
        return list(readers)

    def remove(self, link: SlotLink) -> list[int]:
        """Close our end of a slot that has ended; return the descriptors not to watch."""
        fds = list(link.readers)
        for fd in fds:
            del self.by_fd[fd]
        if self.links.get(link.index) is link:
            del self.links[link.index]
        link.tasks.close()
        link.control.close()
        return fds

    def read(self, fd: int) -> tuple[SlotLink, list[Any] | None]:
        """Return what came on a descriptor; None for the messages says that the slot is gone."""
        link = self.by_fd[fd]
        return link, link.readers[fd].read()

    def send(self, link: SlotLink, message: Any) -> None:
        """Send on the task socket, to the main thread."""
        link.to_tasks.send(message)

    def send_control(self, link: SlotLink, message: Any) -> None:
        """Send on the control socket, to the thread that listens while tasks run."""
        link.to_control.send(message)

    def flush_all(self) -> list[tuple[int, bool]]:
        """Send to every slot what did not fit, and what it need not keep any more.

        Return the descriptors for which that has changed: whether room in them is awaited now.
        """
        changed = []
        for link in self.links.values():
            forgotten = link.kept.take_to_forget()
            if forgotten:
                self.send(link, p.ForgetInputs(forgotten))
            for outbox in (link.to_tasks, link.to_control):
                if outbox.unsent:
                    outbox.flush()
                if bool(outbox.unsent) is not outbox.awaits_room:
                    outbox.awaits_room = not outbox.awaits_room
                    changed.append((outbox.socket.fileno(), outbox.awaits_room))
        return changed

    def ended(self) -> list[SlotEnded] | None:
        """Return the slots whose end the zygote reports; None: the zygote itself is gone."""
        ends: list[SlotEnded] = []
        while True:
            try:
                packet = self.zygote.socket.recv(PACKET_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return ends
            except OSError:
                return None
            if not packet:
                return None
            ends.append(pickle.loads(packet))

    def close(self) -> None:
        """End all slots and the zygote."""
        for link in list(self.links.values()):
            self.remove(link)
        self.zygote.stop()


def describe_end(status: int) -> str:
    """Say how a process ended: by a signal or with a status."""
    if status >= 0:
        return f"it ended with status {status} (os._exit or a compiled library called exit)"
    name = signal.Signals(-status).name if -status in list(signal.Signals) else str(-status)
    hint = {
        "SIGSEGV": ", a crash in compiled code",
        "SIGKILL": ", often the kernel's answer to a lack of memory",
        "SIGABRT": ", a failed check in compiled code",
    }.get(name, "")
    return f"it was ended by signal {name}{hint}"
