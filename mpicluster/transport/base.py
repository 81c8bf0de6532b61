"""What may a loop expect of the way its messages travel?

The contract, which every transport passes as a test:

- Messages from one rank to another arrive in the order in which they were sent, none is lost and
  none comes twice. Between different pairs any delay is possible.
- The buffers of a large value travel apart from the other messages: `LargeValueSent` and
  `PutLargeValue` are delivered when their last byte has come, perhaps after later messages.
- `send` never waits for the receiver. What has not left yet is kept, and `receive` moves it on.
- A rank that the transport finds gone is named by `lost_ranks`, once. Not every transport finds
  out; whoever knows better says so with `lose`. Nothing is sent to a lost rank from then on, and
  what it still sends is dropped.
- Buffers to be sent are let go of (`on_sent`), and those of a large value that will never be
  complete are handed back (`give_up`), also when a rank is lost.
- One thread at a time uses a transport; `hush` may be called by any.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from enum import Enum, auto

from mpicluster.ids import Rank
from mpicluster.messages import LargeValueSent, Message, MessageClass, PutLargeValue, encode_bundle

#: The messages that buffers follow.
LargeMessage = LargeValueSent | PutLargeValue
#: Gives the memory into which the buffers of a message that is announced are received.
Allocate = Callable[[LargeMessage], list[memoryview]]
#: Takes back the buffers of a large value of which the rest will not come.
GiveUp = Callable[[LargeMessage], None]
#: What `receive` returns: who sent what.
Received = list[tuple[Rank, list[Message]]]


class Waking(Enum):
    """Does what arrives end a sleep?"""

    ALWAYS = auto()
    #: Whoever sends sees to it, but what it sends may need more looks than one.
    RUNG = auto()
    #: Only some who send can.
    PARTLY = auto()


class Transport(ABC):
    """The end of the wire that belongs to one rank."""

    #: The address of this end.
    rank: Rank
    #: How many ranks there are.
    size: int
    #: Readable when something may have arrived, until `hush`.
    wake_fd: int | None
    #: Whether to rely on that.
    waking: Waking

    def __init__(self) -> None:
        self.allocate: Allocate = allocate_privately
        self.give_up: GiveUp = forget_buffers
        #: The last call of `receive` has seen that nothing is left.
        self.drained = True

    @abstractmethod
    def send(self, rank: Rank, messages: list[Message]) -> None:
        """Send messages, in this order, as few bundles."""

    @abstractmethod
    def receive(self) -> Received:
        """Return what has arrived, without waiting, and move on what is to be sent."""

    @abstractmethod
    def arrived(self) -> bool:
        """Return whether `receive` would return something: a cheap question, asked often."""

    @abstractmethod
    def hush(self) -> bool:
        """Make `wake_fd` unreadable, before a look at what has arrived; return whether it was
        readable.
        """

    @abstractmethod
    def sending(self) -> bool:
        """Return whether something that was sent has not left yet."""

    @abstractmethod
    def lost_ranks(self) -> list[Rank]:
        """Return the ranks that were found gone since the last call."""

    @abstractmethod
    def lose(self, rank: Rank) -> None:
        """Give a rank up; `lost_ranks` will not name it."""

    @abstractmethod
    def close(self) -> None:
        """Let everything that was sent leave, then give the transport up."""


def allocate_privately(message: LargeMessage) -> list[memoryview]:
    """Return fresh memory of this process for the buffers of a message."""
    return [memoryview(bytearray(nbytes)) for nbytes in message.pieces]


def forget_buffers(_message: LargeMessage) -> None:
    """Leave memory of this process to the garbage collector."""


def let_go_of(messages: Iterable[Message]) -> None:
    """Tell those who lent buffers to messages that will not be sent."""
    for message in messages:
        if isinstance(message, LargeMessage) and message.on_sent is not None:
            message.on_sent()


def to_bundles(messages: Iterable[Message]) -> list[tuple[MessageClass, bytes, list[Message]]]:
    """Return messages as bundles: one, unless buffers follow some of them.

    A bundle has the highest class among its messages. One with buffers ends it, so that a receiver
    knows the buffers that follow.
    """
    bundles = []
    bundle: list[Message] = []
    for message in messages:
        bundle.append(message)
        if message.has_buffers:
            bundles.append((class_of(bundle), encode_bundle(bundle), bundle))
            bundle = []
    if bundle:
        bundles.append((class_of(bundle), encode_bundle(bundle), bundle))
    return bundles


def class_of(bundle: list[Message]) -> MessageClass:
    """Return the highest class among the messages of a bundle."""
    return max(message.message_class for message in bundle)
