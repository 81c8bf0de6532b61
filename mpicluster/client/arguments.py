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

#: As many bytes may be collected before they are sent, and be under way before a call waits.
UNDER_WAY_BYTES_MAX: Final = 64 << 20
#: Calls with more bytes of large arguments are not compared: each has a task of its own.
COMPARED_BYTES_MAX: Final = 1 << 20
#: Arguments up to this size stay in their task where workers may be lost.
KEPT_BYTES_MAX: Final = 1 << 20
#: What a cell of a table takes at least, in bytes.
CELL_BYTES: Final = 8


class LargeArgument:
    """One large argument; among the inputs of a call it stands for the key that it gets."""

    __slots__ = ("frames", "future", "key", "nbytes", "value")

    def __init__(self, value: Any, frames: Frames) -> None:
        #: Kept, so that no other value gets its id.
        self.value = value
        #: Its memory, until it is sent.
        self.frames = [memoryview(frame).cast("B") for frame in frames]
        self.nbytes: NBytes = sum(map(len, self.frames))
        #: 0 before it has one.
        self.key: Key = 0
        #: Holds the value on its worker.
        self.future: Future | None = None

    def digest(self) -> bytes:
        """Return what is equal for equal arguments only."""
        digest = sha256()
        for frame in self.frames:
            digest.update(len(frame).to_bytes(8, "little"))
            digest.update(frame)
        return digest.digest()


class LargeArguments:
    """The large arguments of one `submit`, `map` or graph.

    All but `wait` is used under the client's lock. With `constant` no value changes meanwhile, as
    the literals of a graph; otherwise one that is met again after `forget` counts as another.
    """

    def __init__(
        self, client: ClientBase, options: m.TaskOptions = m.NO_OPTIONS, constant: bool = False
    ) -> None:
        self._client = client
        #: Those of the tasks that take the arguments.
        self.options = options
        self._constant = constant
        #: An argument of more bytes is large.
        self.limit = large_bytes(client.config)
        #: Whether there has been one.
        self._any = False
        #: {id of a value: what was made of it}.
        self._known: dict[int, LargeArgument] = {}
        #: Those with a key that have not been sent, and the worker each goes to.
        self._pending: list[tuple[LargeArgument, Rank]] = []
        self._pending_nbytes: NBytes = 0
        #: {worker: bytes that were sent to it and have not left}.
        self._under_way: dict[Rank, NBytes] = {}

    def find(self, value: Any) -> LargeArgument | None:
        """Return what stands for a large array or table, None for everything else."""
        known = self._known.get(id(value))
        if known is not None:
            return known
        return self.take(value) if may_be_large(value, self.limit) else None

    def take(self, value: Any, limit: NBytes = -1) -> LargeArgument | None:
        """Return what stands for a value whose pickle has more than `limit` bytes, if it has."""
        known = self._known.get(id(value))
        if known is not None:
            return known
        frames = to_frames(value, self.limit if limit < 0 else limit)
        if isinstance(frames, bytes):
            return None
        self._any = True
        argument = self._known[id(value)] = LargeArgument(value, frames)
        return argument

    def forget(self) -> None:
        """From now on values may have changed since they were met."""
        if not self._constant:
            self._known.clear()

    def to_keys(self, inputs: Iterable[Key | LargeArgument]) -> list[Key]:
        """Return the keys of a call's inputs; its new large arguments all go to one worker."""
        if not self._any:
            return list(inputs)  # type: ignore[arg-type]
        found = list(inputs)
        new = [one for one in found if isinstance(one, LargeArgument) and not one.key]
        if new:
            rank = self._client.next_rank(self.options)
            for argument in new:
                self._add(argument, rank)
        return [one.key if isinstance(one, LargeArgument) else one for one in found]

    def _add(self, argument: LargeArgument, rank: Rank) -> None:
        core = self._client.loop.core
        record = FutureRecord(core.next_number(), type(argument.value).__name__, None, None)
        core.add(record, named=False)
        argument.key = record.key
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
            key, frames, argument.frames = argument.key, argument.frames, []
            declared.keys.append(key)
            declared.ranks.append(rank)
            sizes = [len(frame) for frame in frames]
            self._under_way[rank] = self._under_way.get(rank, 0) + argument.nbytes
            left = partial(self._left, rank, argument.nbytes)
            core.to_worker(rank, m.PutLargeValue(key, sizes, sizes, frames, left))
        core.to_scheduler(declared)

    def _left(self, rank: Rank, nbytes: NBytes) -> None:
        self._under_way[rank] -= nbytes

    @property
    def under_way(self) -> bool:
        """Whether anything has been collected or sent that may not have left."""
        return bool(self._pending or any(self._under_way.values()))

    def wait(self, under_way_max: NBytes = 0) -> None:
        """Wait until no more than so many bytes are under way."""
        lost = self._client.loop.core.lost_workers

        def have_left() -> bool:
            # MPI may never let go of what is on its way to a worker that is lost.
            left = sum(nbytes for rank, nbytes in self._under_way.items() if rank not in lost)
            return left <= under_way_max

        if self._under_way and not have_left():
            self._client.wait_until(have_left)


def large_bytes(config: Config) -> NBytes:
    """Return how many bytes an argument must exceed to be large."""
    least = KEPT_BYTES_MAX if config.survive == "ranks" else 0
    return max(config.scatter_bytes_min, least)


def may_be_large(value: Any, limit: NBytes) -> bool:
    """Return whether a value says that it is an array or a table of more than `limit` bytes.

    Only its pickle tells: an array may be on a disk. And what other classes say may be an error.
    """
    if isinstance(value, type):
        return False
    try:
        nbytes = getattr(value, "nbytes", None)
        if isinstance(nbytes, int):
            return nbytes > limit
        cells = getattr(value, "size", None)
        return isinstance(cells, int) and cells * CELL_BYTES > limit
    except Exception:  # noqa: BLE001  (code of the user's class)
        return False
