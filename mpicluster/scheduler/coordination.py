"""Who holds which lock, and what waits in which queue?

Locks, semaphores, events, queues and variables that tasks and scripts share by name. Pure: a
request goes in, answers come out, at once or when their turn has come. A client that leaves gives
back what it holds.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mpicluster.ids import ClientId

#: (client, request, body): the answer to a request.
Reply = tuple[ClientId, int, Any]
#: A request that waits: (client, request, arguments).
Waiting = tuple[ClientId, int, list[Any]]


@dataclass(slots=True)
class Shared:
    """One named thing."""

    #: Leases that may be out at the same time (a lock has one).
    leases_max: int = 1
    #: {client: leases it holds}.
    holders: dict[ClientId, int] = field(default_factory=dict)
    is_set: bool = False
    #: Pickles, the oldest first; of a variable at most one.
    items: deque[bytes] = field(default_factory=deque)
    #: Items that fit; 0 for any number.
    items_max: int = 0
    #: Who waits to take (a lease, an item, the event) and who waits to put, in order.
    takers: deque[Waiting] = field(default_factory=deque)
    putters: deque[Waiting] = field(default_factory=deque)

    @property
    def leases(self) -> int:
        """How many leases are out."""
        return sum(self.holders.values())


class Coordination:
    """Everything that is shared by name."""

    def __init__(self) -> None:
        #: {(kind, name): shared}.
        self.shared: dict[tuple[str, str], Shared] = {}
        self._actions: dict[tuple[str, str], Callable[[Shared, Waiting], Iterator[Reply]]] = {
            ("lock", "acquire"): self._acquire,
            ("lock", "release"): self._release,
            ("lock", "count"): lambda shared, w: iter([(w[0], w[1], shared.leases)]),
            ("event", "wait"): self._wait,
            ("event", "set"): self._set,
            ("event", "clear"): self._clear,
            ("event", "is_set"): lambda shared, w: iter([(w[0], w[1], shared.is_set)]),
            ("queue", "put"): self._put,
            ("queue", "get"): self._get,
            ("queue", "size"): lambda shared, w: iter([(w[0], w[1], len(shared.items))]),
            ("variable", "set"): self._assign,
            ("variable", "get"): self._look,
            ("variable", "delete"): self._delete,
        }

    def request(
        self,
        client: ClientId,
        request: int,
        kind: str,
        name: str,
        action: str,
        arguments: list[Any],
    ) -> list[Reply]:
        """Take a request; return the answers that are due now, to whomever they go."""
        shared = self.shared.get((kind, name))
        if shared is None:
            shared = self.shared[kind, name] = Shared()
        if action == "withdraw":
            return self._withdraw(shared, client, request, arguments)
        handler = self._actions.get((kind, action))
        if handler is None:
            return [(client, request, None)]
        return list(handler(shared, (client, request, arguments)))

    def client_left(self, client: ClientId) -> list[Reply]:
        """Give back what a client holds and forget what it waits for."""
        replies: list[Reply] = []
        for shared in self.shared.values():
            shared.takers = deque(w for w in shared.takers if w[0] != client)
            shared.putters = deque(w for w in shared.putters if w[0] != client)
            if shared.holders.pop(client, None) is not None:
                replies += self._grant(shared)
        return replies

    def _withdraw(
        self, shared: Shared, client: ClientId, request: int, arguments: list[Any]
    ) -> list[Reply]:
        """Somebody waits no longer: answered with True if the request was still waiting."""
        for waiting in (shared.takers, shared.putters):
            for entry in waiting:
                if entry[:2] == (client, arguments[0]):
                    waiting.remove(entry)
                    return [(client, request, True)]
        return [(client, request, False)]

    # --- locks and semaphores ---

    def _acquire(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        shared.leases_max = waiting[2][0]
        shared.takers.append(waiting)
        yield from self._grant(shared)

    def _grant(self, shared: Shared) -> Iterator[Reply]:
        while shared.takers and shared.leases < shared.leases_max:
            client, request, _ = shared.takers.popleft()
            shared.holders[client] = shared.holders.get(client, 0) + 1
            yield client, request, True

    def _release(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        client, request, _ = waiting
        # A lock may be passed on and released by another than the one that acquired it.
        holder = client if client in shared.holders else next(iter(shared.holders), None)
        yield client, request, holder is not None
        if holder is not None:
            shared.holders[holder] -= 1
            if not shared.holders[holder]:
                del shared.holders[holder]
            yield from self._grant(shared)

    # --- events ---

    def _wait(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        if shared.is_set:
            yield waiting[0], waiting[1], True
        else:
            shared.takers.append(waiting)

    def _set(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        shared.is_set = True
        yield waiting[0], waiting[1], True
        while shared.takers:
            client, request, _ = shared.takers.popleft()
            yield client, request, True

    def _clear(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        shared.is_set = False
        yield waiting[0], waiting[1], True

    # --- queues ---

    def _put(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        shared.items_max = waiting[2][1]
        shared.putters.append(waiting)
        yield from self._move_items(shared)

    def _get(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        shared.takers.append(waiting)
        yield from self._move_items(shared)

    def _move_items(self, shared: Shared) -> Iterator[Reply]:
        """Let items in while there is room, and out while somebody waits for enough of them."""
        moving = True
        while moving:
            moving = False
            while shared.putters and not 0 < shared.items_max <= len(shared.items):
                client, request, arguments = shared.putters.popleft()
                shared.items.append(arguments[0])
                moving = True
                yield client, request, True
            while shared.takers and shared.items:
                client, request, arguments = shared.takers[0]
                count = arguments[0] or len(shared.items)
                if len(shared.items) < count:
                    break
                shared.takers.popleft()
                moving = True
                yield client, request, [shared.items.popleft() for _ in range(count)]

    # --- variables ---

    def _assign(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        shared.items = deque([waiting[2][0]])
        yield waiting[0], waiting[1], True
        while shared.takers:
            client, request, _ = shared.takers.popleft()
            yield client, request, shared.items[0]

    def _look(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        if shared.items:
            yield waiting[0], waiting[1], shared.items[0]
        else:
            shared.takers.append(waiting)

    def _delete(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        shared.items.clear()
        yield waiting[0], waiting[1], True
