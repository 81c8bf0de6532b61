"""What do the ranks tell each other?

Every message is declared here once, grouped by direction; the docstrings are the protocol text.
Commands are imperative, reports are past participles. Many tasks travel in one message as
columns: entry i of every column belongs to task i. On the wire a message is a msgpack array of its
code and the array of its fields in order; a bundle is an array of messages to one rank.

Three classes, the highest of a bundle being its tag: ADMIN (states, sizes, commands), TASK (the
functions and arguments inside are pickles that the scheduler never opens) and DATA (values).
A DATA message with `extents` is followed by that many raw buffers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Final, TypeAlias

from mpicluster.codec import Codec
from mpicluster.ids import Attempt, ClientId, FunctionId, Key, NBytes, Rank
from mpicluster.task_options import NO_OPTIONS as NO_OPTIONS  # noqa: PLC0414  (for all users)
from mpicluster.task_options import TaskOptions as TaskOptions  # noqa: PLC0414


class MessageClass(IntEnum):
    """The three classes of messages, which are also their MPI tags."""

    ADMIN = 1
    TASK = 2
    DATA = 3


#: In place of the size of a value that is being made.
PROMISED: Final = -1
#: What went wrong with a task, as a msgpack array: pickled exception (empty if there is none), the
#: name of its type, its text, the pickled traceback, the traceback's text, rank, host.
ErrorColumns: TypeAlias = list[Any]


@dataclass(slots=True)
class Message:
    """The base of all messages."""

    message_class: ClassVar[MessageClass] = MessageClass.ADMIN
    #: Buffers follow the message; only the two "large" messages say so.
    has_buffers: ClassVar[bool] = False


# --- client -> scheduler ---------------------------------------------------------------------


@dataclass(slots=True)
class ClientStarted(Message):
    """A client is there and speaks; the answer is `ClusterStarted`."""

    versions: dict[str, str]


@dataclass(slots=True)
class DefineFunctions(Message):
    """These numbers stand for these functions from now on.

    Also sent on from the scheduler to a worker before the first task that needs them. `prefixes`
    are the names under which the tasks are counted in metrics.
    """

    message_class = MessageClass.TASK
    functions: list[FunctionId]
    prefixes: list[str]
    codes: list[bytes]


@dataclass(slots=True)
class SubmitTasks(Message):
    """Compute these tasks; they come in priority order, each input of a task before it and once.

    `dependencies` may be empty when no task has any. `wanted[i]` is 1 where the client holds a
    future. `options` holds for all tasks of the message, see `TaskOptions.to_columns`.
    Each message uses up one credit, which `TasksAccepted` gives back.

    A graph that needs several messages has a number, `graph`: none of its tasks is released before
    `CloseGraph`, since tasks that need their values may still be on their way.
    `placed_on` is the worker to which the client has sent the tasks itself, 0: none.
    """

    message_class = MessageClass.TASK
    keys: list[Key]
    functions: list[FunctionId]
    payloads: list[bytes]
    dependencies: list[list[Key]]
    wanted: bytes
    options: list[Any] | None
    graph: int = 0
    placed_on: Rank = 0


@dataclass(slots=True)
class CloseGraph(Message):
    """All tasks of this graph have been sent: what nobody needs of it may go."""

    graph: int


@dataclass(slots=True)
class DeclareValues(Message):
    """The client sends these values straight to workers (`scatter`), each to the rank named.

    The values may be there before this message is; `ranks` tells which of them are lost with a
    worker that never reported them.
    """

    keys: list[Key]
    ranks: list[Rank] = field(default_factory=list)


@dataclass(slots=True)
class ReplicateKeys(Message):
    """Copy values to all `ranks`, as a tree; the answer names the keys that have none any more."""

    keys: list[Key]
    ranks: list[Rank]
    request: int = 0  # 0: no answer is wanted


@dataclass(slots=True)
class WantKeys(Message):
    """The client holds futures of these keys (which another client may have submitted)."""

    keys: list[Key]


@dataclass(slots=True)
class ReleaseKeys(Message):
    """The client has dropped its futures of these keys."""

    keys: list[Key]


@dataclass(slots=True)
class FinishKeys(Message):
    """Compute these keys even when no client wants them any more (`fire_and_forget`)."""

    keys: list[Key]


@dataclass(slots=True)
class CancelKeys(Message):
    """Give up these tasks and all that depend on them; answered by `KeysCancelled`."""

    keys: list[Key]
    force: bool


@dataclass(slots=True)
class AskScheduler(Message):
    """Tell me something about the cluster; answered by `Answer` with the same request number."""

    request: int
    question: str
    arguments: list[Any]


@dataclass(slots=True)
class Coordinate(Message):
    """Do something with a lock, semaphore, event, queue or variable of that name.

    Answered by `Answer` with the same request number when its turn has come.
    """

    request: int
    kind: str
    name: str
    action: str
    arguments: list[Any]


@dataclass(slots=True)
class ClientStopped(Message):
    """The client leaves; everything that only it wanted may go. With `stop`, all ranks end."""

    stop: bool


# --- scheduler -> client ---------------------------------------------------------------------


@dataclass(slots=True)
class ClusterStarted(Message):
    """All workers have reported; `workers` holds one description per worker."""

    workers: list[dict[str, Any]]


@dataclass(slots=True)
class TasksAccepted(Message):
    """The scheduler has taken in this many `SubmitTasks` messages: as many credits are back."""

    messages: int


@dataclass(slots=True)
class KeysFinished(Message):
    """These values are in memory, each on the rank named."""

    keys: list[Key]
    sizes: list[NBytes]
    ranks: list[Rank]


@dataclass(slots=True)
class KeysErred(Message):
    """These keys have no value, all for the same reason."""

    keys: list[Key]
    error: ErrorColumns


@dataclass(slots=True)
class KeysCancelled(Message):
    """These keys were given up."""

    keys: list[Key]
    reason: str


@dataclass(slots=True)
class Answer(Message):
    """The answer to `AskScheduler` or `ReplicateKeys`."""

    request: int
    body: Any


@dataclass(slots=True)
class WorkerLost(Message):
    """A worker's rank is gone; workers are told too, so that they stop waiting for its values.

    The rank that is named gets it as well: should it still live, it leaves.
    """

    rank: Rank
    reason: str


@dataclass(slots=True)
class ClusterStopped(Message):
    """Every worker has ended its slots; the ranks leave now."""


# --- scheduler -> worker ---------------------------------------------------------------------


@dataclass(slots=True)
class ComputeTasks(Message):
    """Run these tasks. `push_to[i]` is the client to which a small result goes at once, or 0.

    Clients send single tasks too, as `CLIENT_ATTEMPT`; what cannot begin at once is yielded.
    `dependencies` may be empty when no task has any. `holders` says for each input that the
    scheduler does not know to be on this worker where it is: (key, size, [rank, ...]). The size is
    `PROMISED` where a task of that rank, which may be this one, is still to make the value.
    """

    message_class = MessageClass.TASK
    keys: list[Key]
    attempts: list[Attempt]
    functions: list[FunctionId]
    priorities: list[int]
    payloads: list[bytes]
    push_to: list[ClientId]
    dependencies: list[list[Key]]
    holders: list[list[Any]]


@dataclass(slots=True)
class StealTasks(Message):
    """Give back those of these tasks that have not been started; answered by `TasksYielded`."""

    keys: list[Key]
    attempts: list[Attempt]


@dataclass(slots=True)
class CancelTasks(Message):
    """Nobody needs these attempts any more; do not start them, and drop what they make."""

    keys: list[Key]
    attempts: list[Attempt]


@dataclass(slots=True)
class FreeKeys(Message):
    """Drop these values."""

    keys: list[Key]


@dataclass(slots=True)
class AcquireValues(Message):
    """Fetch a copy of these values: (key, size, [rank, ...]) each.

    Answered by `ValuesAdded` or `CopiesMissed`.
    """

    holders: list[list[Any]]


@dataclass(slots=True)
class StopWorker(Message):
    """End the slots, answer `WorkerStopped` and leave."""


@dataclass(slots=True)
class SchedulerStatus(Message):
    """A sign of life, only with survive = "ranks": a worker without a scheduler must end."""


# --- worker -> scheduler ---------------------------------------------------------------------


@dataclass(slots=True)
class WorkerStarted(Message):
    """The worker is ready; `description` holds host, pid, slots, memory, resources, versions."""

    description: dict[str, Any]


@dataclass(slots=True)
class TasksFinished(Message):
    """These attempts have made values of these sizes in these times (seconds).

    `frees_seen` counts the `FreeKeys` that the worker had taken in before: a value that a later
    one names is gone again by the time the scheduler reads this. `worker`: a client tells for it.
    """

    keys: list[Key]
    attempts: list[Attempt]
    sizes: list[NBytes]
    durations: list[float]
    frees_seen: int = 0
    worker: Rank = 0


@dataclass(slots=True)
class TaskErred(Message):
    """This attempt raised an exception, or its result cannot be pickled."""

    key: Key
    attempt: Attempt
    error: ErrorColumns


@dataclass(slots=True)
class TaskKilled(Message):
    """This attempt ended the process that it ran in; `how` says by which signal or status."""

    key: Key
    attempt: Attempt
    how: str


@dataclass(slots=True)
class InputsMissing(Message):
    """This attempt cannot run: these inputs are not where the scheduler said."""

    key: Key
    attempt: Attempt
    inputs: list[Key]


@dataclass(slots=True)
class ValuesAdded(Message):
    """The worker has fetched these values from peers; `frees_seen` as in `TasksFinished`."""

    keys: list[Key]
    sizes: list[NBytes]
    frees_seen: int = 0


@dataclass(slots=True)
class ValuesArrived(Message):
    """The worker has these values from a client that scattered them."""

    keys: list[Key]
    sizes: list[NBytes]


@dataclass(slots=True)
class CopiesMissed(Message):
    """No rank that `AcquireValues` named had these values."""

    keys: list[Key]


@dataclass(slots=True)
class TasksYielded(Message):
    """These tasks are given back. Those that are `refused` have been started.

    A `CLIENT_ATTEMPT` is given back, too, when it is cancelled: each of them is reported once.
    """

    keys: list[Key]
    attempts: list[Attempt]
    refused: list[Key]


@dataclass(slots=True)
class WorkerStatus(Message):
    """A sign of life with metrics: store and process sizes in bytes, busy share, counters."""

    metrics: dict[str, Any]


@dataclass(slots=True)
class SlotsChanged(Message):
    """For `lent` waiting tasks as many more may run; `abandoned` slots run what nobody wants."""

    lent: int
    abandoned: int = 0


@dataclass(slots=True)
class WorkerPaused(Message):
    """Over its memory limit a worker takes no tasks, at last single ones that no other can take."""

    paused: bool
    last_resort: bool = False


@dataclass(slots=True)
class WorkerStopped(Message):
    """The worker's slots have ended."""


# --- values: worker <-> worker, client <-> worker --------------------------------------------


@dataclass(slots=True)
class FetchValues(Message):
    """Send me these values; answered by the four messages below, with the request number.

    With `promised` a value that a task of the receiver is still to make is sent, or reported
    missing, when the task has ended. Without, it is missing: more requests may have to wait until
    this one is answered, perhaps for what that task needs.
    A rank of the same `home` (see `host_identity`) may lend large ones; "" asks for copies.
    """

    request: int
    keys: list[Key]
    home: str = ""
    promised: bool = False


@dataclass(slots=True)
class ValuesSent(Message):
    """Small values, each a pickle."""

    message_class = MessageClass.DATA
    request: int
    keys: list[Key]
    values: list[bytes]


@dataclass(slots=True)
class LargeValueSent(Message):
    """One large value; its frames (the pickle and its buffers) have the sizes `extents`.

    On the wire the frames are `len(pieces)` raw buffers of those sizes: one for a value that lies
    in one segment, several where they come from a client's own memory.
    """

    message_class = MessageClass.DATA
    has_buffers = True
    request: int
    key: Key
    extents: list[NBytes]
    pieces: list[NBytes]
    buffers: list[memoryview] = field(default_factory=list, repr=False)
    #: Called by the transport when the peer has taken the buffers; never sent.
    on_sent: Callable[[], None] | None = None


@dataclass(slots=True)
class LargeValueShared(Message):
    """One large value, lent: its frames lie in a file of the same host, from `offset` on.

    They stay there until the receiver sends `SharesReturned` with the number `share`.
    """

    message_class = MessageClass.DATA
    request: int
    key: Key
    share: int
    extents: list[NBytes]
    path: str
    offset: int


@dataclass(slots=True)
class SharesReturned(Message):
    """The sender does not use these lent values any more."""

    shares: list[int]


@dataclass(slots=True)
class ValuesMissing(Message):
    """The sender does not hold these values."""

    message_class = MessageClass.DATA
    request: int
    keys: list[Key]


@dataclass(slots=True)
class ValuesPushed(Message):
    """Small results; the client tells the scheduler of the ends `to_tell`: (key, size, seconds)."""

    message_class = MessageClass.DATA
    keys: list[Key]
    values: list[bytes]
    to_tell: list[list[Any]] = field(default_factory=list)


@dataclass(slots=True)
class PutValues(Message):
    """Scattered small values for the worker to keep."""

    message_class = MessageClass.DATA
    keys: list[Key]
    values: list[bytes]


@dataclass(slots=True)
class PutLargeValue(Message):
    """One scattered large value for the worker to keep; frames as in `LargeValueSent`."""

    message_class = MessageClass.DATA
    has_buffers = True
    key: Key
    extents: list[NBytes]
    pieces: list[NBytes]
    buffers: list[memoryview] = field(default_factory=list, repr=False)
    on_sent: Callable[[], None] | None = None


@dataclass(slots=True)
class RunFunction(Message):
    """Run this function in every slot at once (`Client.run`); answered by `FunctionRan`.

    With a name in `keep` it also runs in each slot that is started later, in the place of an
    earlier one of that name; `forget` names one that does so no more.
    """

    message_class = MessageClass.TASK
    request: int
    code: bytes
    keep: str = ""
    forget: str = ""


@dataclass(slots=True)
class FunctionRan(Message):
    """What the function returned (a pickle), or how it failed."""

    message_class = MessageClass.DATA
    request: int
    value: bytes
    error: ErrorColumns | None


@dataclass(slots=True)
class RelayToScheduler(Message):
    """A bundle of a client that lives inside a task, passed on by its worker."""

    message_class = MessageClass.TASK
    client: ClientId
    bundle: bytes


@dataclass(slots=True)
class RelayToClient(Message):
    """A bundle for a client that lives inside a task of the receiving worker."""

    message_class = MessageClass.TASK
    client: ClientId
    bundle: bytes


# --- the codec of these messages -------------------------------------------------------------

MESSAGES: Final[tuple[type[Message], ...]] = tuple(
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, Message) and value is not Message
)
_CODEC: Final = Codec(MESSAGES)


def encode_bundle(messages: Iterable[Message]) -> bytes:
    """Return the wire form of messages to one rank.

    >>> decode_bundle(encode_bundle([FreeKeys([1, 2])]))
    [FreeKeys(keys=[1, 2])]
    """
    return _CODEC.encode(messages)


def decode_bundle(bundle: bytes | memoryview) -> list[Message]:
    """Return the messages of a bundle; a `ProtocolError` names what cannot be understood."""
    return _CODEC.decode(bundle)
