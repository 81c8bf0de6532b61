"""Which worker sends the next copy of a value that is to lie on many workers?

Between hosts copies spread as a tree: every worker that has the value gives it to one other host
at a time, so the number of hosts doubles with each step and no rank sends more than log2(n) times.
On a host that has the value its workers use it where it lies, so each link carries it once.
"""

from collections import deque
from dataclasses import dataclass

from mpicluster.ids import ClientId, Key, Rank
from mpicluster.scheduler.records import SchedulerState, TaskRecord, TaskState, WorkerRecord


@dataclass(slots=True)
class CopyRequest:
    """Who waits for which values: until nobody wants copies of them any more."""

    client: ClientId
    request: int
    #: {key: None} of values that have not been copied yet.
    left: dict[Key, None]
    #: Keys that have no value any more.
    gone: list[Key]


class Replication:
    """The copies that have been asked for and are not there yet."""

    def __init__(self, state: SchedulerState) -> None:
        self.state = state
        #: {key: {rank: None}} that still need a copy and have not been told.
        self.wanted: dict[Key, dict[Rank, None]] = {}
        #: {key: {target rank: source rank}} on their way; the same keys as `wanted`.
        self.sending: dict[Key, dict[Rank, Rank]] = {}
        #: {key: what the last plan was made of: `who_has`, how many wanted, how many on their way}.
        #: The same again would give nothing new.
        self._planned: dict[Key, tuple[tuple[WorkerRecord, ...], int, int]] = {}
        #: {key: requests that wait for its copies}.
        self._requests: dict[Key, list[CopyRequest]] = {}

    def want(self, key: Key, ranks: list[Rank]) -> None:
        """Ask for copies of a value on `ranks`."""
        wanted = self.wanted.setdefault(key, {})
        sending = self.sending.setdefault(key, {})
        for rank in ranks:
            if rank not in sending:
                wanted[rank] = None

    def tell_end(self, client: ClientId, request: int, keys: list[Key]) -> None:
        """Let `next_copies` return a request when nothing is left to be copied for it."""
        found = CopyRequest(client, request, dict.fromkeys(keys), [])
        for key in found.left:
            self._requests.setdefault(key, []).append(found)

    def missed(self, key: Key, target: Rank) -> None:
        """A worker did not find the value where it was to fetch it: plan its copy anew."""
        if self.sending.get(key, {}).pop(target, None) is not None:
            self.wanted[key][target] = None

    def worker_lost(self, rank: Rank) -> None:
        """Expect no copy on a rank that is gone; what it was sending is `missed` by the target."""
        for wanted in self.wanted.values():
            wanted.pop(rank, None)
        for sending in self.sending.values():
            sending.pop(rank, None)

    def next_copies(self) -> tuple[dict[WorkerRecord, list[list[object]]], list[CopyRequest]]:
        """Return what to tell which worker, rows (key, size, [source rank]), and the requests for
        which nothing is left to be copied.
        """
        orders: dict[WorkerRecord, list[list[object]]] = {}
        over: list[CopyRequest] = []
        for key in list(self.wanted):
            task = self.state.tasks.get(key)
            if task is None or task.state in (TaskState.RELEASED, TaskState.ERRED):
                over += self._forget(key, gone=True)
            elif task.state is TaskState.MEMORY and not self._plan(task, orders):
                over += self._forget(key, gone=False)
        return orders, over

    def _plan(self, task: TaskRecord, orders: dict[WorkerRecord, list[list[object]]]) -> bool:
        """Plan the next copies of a value; return whether any are wanted or on their way."""
        wanted, sending = self.wanted[task.key], self.sending[task.key]
        planned = self._planned.get(task.key)
        # The same tuple, not an equal one: a thousand holders are not compared at each decision.
        if (
            planned is not None and planned[0] is task.who_has
            and planned[1:] == (len(wanted), len(sending))
        ):
            return True
        for holder in task.who_has:
            sending.pop(holder.rank, None)
            wanted.pop(holder.rank, None)
        busy = set(sending.values())
        free = deque(holder for holder in task.who_has if holder.rank not in busy)
        on_host = {holder.host: holder for holder in reversed(task.who_has)}
        coming = {self._host(target) for target in sending}
        for rank in list(wanted):
            target = self.state.workers.get(rank)
            if target is None:
                del wanted[rank]
                continue
            source = on_host.get(target.host)
            if source is None:
                if target.host in coming or not free:
                    continue
                source = free.popleft()
                coming.add(target.host)
            del wanted[rank]
            sending[rank] = source.rank
            orders.setdefault(target, []).append([task.key, task.nbytes, [source.rank]])
        self._planned[task.key] = (task.who_has, len(wanted), len(sending))
        return bool(wanted or sending)

    def _forget(self, key: Key, *, gone: bool) -> list[CopyRequest]:
        """Expect no copies of a value any more; return the requests that are over with that."""
        del self.wanted[key], self.sending[key]
        self._planned.pop(key, None)
        over = []
        for request in self._requests.pop(key, ()):
            del request.left[key]
            if gone:
                request.gone.append(key)
            if not request.left:
                over.append(request)
        return over

    def _host(self, rank: Rank) -> str:
        worker = self.state.workers.get(rank)
        return worker.host if worker is not None else ""
