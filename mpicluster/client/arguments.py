"""How do the large arguments of a call travel?

Straight to a worker, where the task takes them as inputs, and not in the task through the
scheduler. Their memory is sent as it is, so a call returns when that has left; those of many calls
are under way together.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from mpicluster import messages as m
from mpicluster.client.records import FutureRecord
from mpicluster.config import Config
from mpicluster.ids import Key, NBytes, Rank
from mpicluster.serialization.frames import Frames, to_frames

if TYPE_CHECKING:
    from mpicluster.client.base import ClientBase
    from mpicluster.client.future import Future

#: Bytes that are on their way to workers before a call waits.
UNDER_WAY_BYTES_MAX: Final = 64 << 20
#: Calls with more bytes of large arguments are not compared: each has a task of its own.
COMPARED_BYTES_MAX: Final = 1 << 20

#: Arguments up to this size stay in their task where workers may be lost.
KEPT_BYTES_MAX: Final = 1 << 20


class LargeArgument:
    """One large argument; among the inputs of a call it stands for the key that it gets."""

    __slots__ = ("frames", "future", "nbytes", "value")

    def __init__(self, value: Any, frames: Frames) -> None:
        #: Kept, so that no other value gets its id.
        self.value = value
        self.frames = [memoryview(frame).cast("B") for frame in frames]
        self.nbytes: NBytes = sum(map(len, self.frames))
        #: Holds the value on its worker, once it has a key.
        self.future: Future | None = None

    @property
    def key(self) -> Key:
        """Its key; only once it has one."""
        assert self.future is not None
        return self.future.use_as_input()

    def digest(self) -> bytes:
        """Return what is equal for equal arguments only."""
        digest = sha256()
        for frame in self.frames:
            digest.update(len(frame).to_bytes(8, "little"))
            digest.update(frame)
        return digest.digest()


class LargeArguments:
    """The large arguments of one `submit`, `map` or graph; used under the client's lock."""

    def __init__(self, client: ClientBase, options: m.TaskOptions = m.NO_OPTIONS) -> None:
        self._client = client
        self._options = options
        #: An argument of more bytes is large.
        self.limit = large_bytes(client.config)
        #: Whether there has been one.
        self._any = False
        #: {id of a value: what was made of it} since `forget`.
        self._known: dict[int, LargeArgument] = {}
        #: Those with a key that have not been sent, and the worker each goes to.
        self._pending: list[tuple[LargeArgument, Rank]] = []
        self._pending_nbytes: NBytes = 0
        #: Bytes that were sent and have not left.
        self._under_way: NBytes = 0

    def find(self, value: Any) -> LargeArgument | None:
        """Return what stands for a large array or table, None for everything else."""
        known = self._known.get(id(value))
        if known is not None:
            return known
        return self.take(value) if nbytes_of(value) > self.limit else None

    def take(self, value: Any) -> LargeArgument | None:
        """Return what stands for a value with a large pickle, None for others."""
        frames = to_frames(value, self.limit)
        if isinstance(frames, bytes):
            return None
        self._any = True
        argument = self._known[id(value)] = LargeArgument(value, frames)
        return argument

    def forget(self) -> None:
        """From now on values may have changed since they were met."""
        self._known.clear()

    def to_keys(self, inputs: Iterable[Key | LargeArgument]) -> list[Key]:
        """Return the keys of a call's inputs; its new large arguments all go to one worker."""
        if not self._any:
            return list(inputs)  # type: ignore[arg-type]
        found = list(inputs)
        new = [one for one in found if isinstance(one, LargeArgument) and one.future is None]
        if new:
            rank = self._client.next_rank(self._options)
            for argument in new:
                self._add(argument, rank)
        return [one.key if isinstance(one, LargeArgument) else one for one in found]

    def _add(self, argument: LargeArgument, rank: Rank) -> None:
        core = self._client.loop.core
        record = FutureRecord(core.next_number(), type(argument.value).__name__, None, None)
        core.add(record, named=False)
        argument.future = self._client.make_future(record)
        self._pending.append((argument, rank))
        self._pending_nbytes += argument.nbytes

    @property
    def full(self) -> bool:
        """Whether what there is should be sent before more is added."""
        return self._pending_nbytes >= UNDER_WAY_BYTES_MAX

    def send(self) -> None:
        """Queue what there is; the tasks that need it must be queued next, or it is gone."""
        self.forget()
        if not self._pending:
            return
        core, pending = self._client.loop.core, self._pending
        self._pending, self._pending_nbytes = [], 0
        declared = m.DeclareValues([], [])
        for argument, rank in pending:
            key = argument.key
            declared.keys.append(key)
            declared.ranks.append(rank)
            sizes = [len(frame) for frame in argument.frames]
            self._under_way += argument.nbytes
            left = partial(self._left, argument.nbytes)
            core.to_worker(rank, m.PutLargeValue(key, sizes, sizes, argument.frames, left))
        core.to_scheduler(declared)

    def _left(self, nbytes: NBytes) -> None:
        self._under_way -= nbytes

    def wait(self, under_way_max: NBytes = 0) -> None:
        """Wait until no more than so many bytes are under way."""
        if self._under_way > under_way_max:
            self._client.wait_until(lambda: self._under_way <= under_way_max)


def large_bytes(config: Config) -> NBytes:
    """Return how many bytes an argument must exceed to be large."""
    least = KEPT_BYTES_MAX if config.survive == "ranks" else 0
    return max(config.scatter_bytes_min, least)


def nbytes_of(value: Any) -> int:
    """Return the bytes of an array or a table, 0 for everything else, classes among it."""
    if isinstance(value, type):
        return 0
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    if hasattr(value, "memory_usage") and hasattr(value, "dtypes"):
        usage = value.memory_usage()
        return int(usage.sum()) if hasattr(usage, "sum") else int(usage)
    return 0
