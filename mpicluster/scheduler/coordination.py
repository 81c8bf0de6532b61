"""Who holds which lock, and what waits in which queue?

Locks, semaphores, events, queues and variables that tasks and scripts share by name. Pure: a
request goes in, answers come out, at once or when their turn has come. A client that leaves gives
back what it holds.

Futures in queues and variables keep their values alive: items name their keys, and
`take_changed_keys` says which keys began or ceased to be held here. Who takes such an item holds it
until it says "received", since by then it has futures of its own.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mpicluster.ids import ClientId, Key

#: (client, request, body): the answer to a request.
Reply = tuple[ClientId, int, Any]
#: A request that waits: (client, request, arguments).
Waiting = tuple[ClientId, int, list[Any]]
#: A pickle, and the keys of the futures in it.
Item = tuple[bytes, list[Key]]


@dataclass(slots=True)
class Shared:
    """One named thing."""

    #: Leases that may be out at the same time (a lock has one); 0 until the first is asked for.
    leases_max: int = 0
    #: {client: leases it holds}.
    holders: dict[ClientId, int] = field(default_factory=dict)
    is_set: bool = False
    #: The oldest first; of a variable at most one.
    items: deque[Item] = field(default_factory=deque)
    #: Items that fit; 0 for any number, until somebody names one.
    items_max: int = 0
    #: Who waits to take (a lease, an item, the event) and who waits to put, in order.
    takers: deque[Waiting] = field(default_factory=deque)
    putters: deque[Waiting] = field(default_factory=deque)

    @property
    def leases(self) -> int:
        """How many leases are out."""
        return sum(self.holders.values())

    def is_as_new(self, kind: str) -> bool:
        """Return whether a new thing of this name and kind would be the same."""
        limited = self.items_max or (kind == "semaphore" and self.leases_max)
        busy = self.holders or self.items or self.takers or self.putters or self.is_set
        return not (limited or busy)


class Coordination:
    """Everything that is shared by name."""

    def __init__(self) -> None:
        #: {(kind, name): shared}.
        self.shared: dict[tuple[str, str], Shared] = {}
        #: {key: in how many places} of futures that lie in items, wait to be put or were taken.
        self.held: dict[Key, int] = {}
        #: {(client, request): keys} of items that a client has taken and not yet received.
        self._taken: dict[tuple[ClientId, int], list[Key]] = {}
        #: {key: None} whose count has changed.
        self._changed: dict[Key, None] = {}
        self._actions: dict[tuple[str, str], Callable[[Shared, Waiting], Iterator[Reply]]] = {
            ("lock", "acquire"): self._acquire,
            ("lock", "release"): self._release,
            ("lock", "count"): lambda shared, w: iter([(w[0], w[1], shared.leases)]),
            ("semaphore", "acquire"): self._acquire,
            ("semaphore", "release"): self._release,
            ("semaphore", "count"): lambda shared, w: iter([(w[0], w[1], shared.leases)]),
            ("semaphore", "close"): self._close,
            ("event", "wait"): self._wait,
            ("event", "set"): self._set,
            ("event", "clear"): self._clear,
            ("event", "is_set"): lambda shared, w: iter([(w[0], w[1], shared.is_set)]),
            ("queue", "put"): self._put,
            ("queue", "get"): self._get,
            ("queue", "received"): self._received,
            ("queue", "size"): lambda shared, w: iter([(w[0], w[1], len(shared.items))]),
            ("variable", "set"): self._assign,
            ("variable", "get"): self._look,
            ("variable", "received"): self._received,
            ("variable", "delete"): self._delete,
            ("dataset", "publish"): self._publish,
            ("dataset", "get"): self._look_now,
            ("dataset", "received"): self._received,
            ("dataset", "delete"): self._delete,
            ("dataset", "names"): self._dataset_names,
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
            replies = self._withdraw(shared, client, request, arguments)
        elif (kind, action) in self._actions:
            replies = list(self._actions[kind, action](shared, (client, request, arguments)))
        else:
            replies = [(client, request, None)]
        if shared.is_as_new(kind):  # names are often made for one use
            del self.shared[kind, name]
        return replies

    def client_left(self, client: ClientId) -> list[Reply]:
        """Give back what a client holds and forget what it waits for."""
        replies: list[Reply] = []
        for taken in [taken for taken in self._taken if taken[0] == client]:
            self._let_go(self._taken.pop(taken))
        for shared in self.shared.values():
            for waiting in shared.putters:
                if waiting[0] == client:
                    self._let_go(waiting[2][1])
            shared.takers = deque(w for w in shared.takers if w[0] != client)
            shared.putters = deque(w for w in shared.putters if w[0] != client)
            if shared.holders.pop(client, None) is not None:
                replies += self._grant(shared)
        self.shared = {key: one for key, one in self.shared.items() if not one.is_as_new(key[0])}
        return replies

    def _withdraw(
        self, shared: Shared, client: ClientId, request: int, arguments: list[Any]
    ) -> list[Reply]:
        """Somebody waits no longer: answered with True if the request was still waiting."""
        for waiting in (shared.takers, shared.putters):
            for entry in waiting:
                if entry[:2] == (client, arguments[0]):
                    waiting.remove(entry)
                    if waiting is shared.putters:
                        self._let_go(entry[2][1])
                    return [(client, request, True)]
        return [(client, request, False)]

    # --- keys of futures in items ---

    def take_changed_keys(self) -> list[Key]:
        """Return the keys that are held now, or not any more, since the last call; see `held`."""
        changed, self._changed = self._changed, {}
        return list(changed)

    def _hold(self, keys: list[Key]) -> None:
        for key in keys:
            self.held[key] = self.held.get(key, 0) + 1
            self._changed[key] = None

    def _let_go(self, keys: list[Key]) -> None:
        for key in keys:
            self._changed[key] = None
            self.held[key] -= 1
            if not self.held[key]:
                del self.held[key]

    def _hand_over(self, client: ClientId, request: int, items: list[Item]) -> Reply:
        """Answer with the pickles of items, and whether the client must say "received"."""
        keys = [key for _, found in items for key in found]
        if keys:
            self._hold(keys)
            self._taken[client, request] = keys
        return client, request, [[content for content, _ in items], bool(keys)]

    def _received(self, _shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        """A client has made futures of what it took; nobody waits for an answer."""
        self._let_go(self._taken.pop((waiting[0], waiting[2][0]), []))
        return iter(())

    # --- locks and semaphores ---

    def _acquire(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        client, request, (leases_max,) = waiting
        shared.leases_max = shared.leases_max or leases_max
        if leases_max != shared.leases_max:
            yield client, request, shared.leases_max
            return
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

    def _close(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        """Forget a semaphore and its leases; who waits for one is told that there is none."""
        yield waiting[0], waiting[1], True
        while shared.takers:
            client, request, _ = shared.takers.popleft()
            yield client, request, False
        shared.holders.clear()
        shared.leases_max = 0

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
        client, request, (_, keys, items_max) = waiting
        shared.items_max = shared.items_max or items_max
        if items_max not in (0, shared.items_max):
            yield client, request, shared.items_max
            return
        self._hold(keys)
        shared.putters.append(waiting)
        yield from self._move_items(shared)

    def _get(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        client, request, (count,) = waiting
        if count:
            shared.takers.append(waiting)
        else:  # all that there are, and nobody waits for none
            yield self._hand_out(shared, client, request, len(shared.items))
        yield from self._move_items(shared)

    def _hand_out(self, shared: Shared, client: ClientId, request: int, count: int) -> Reply:
        items = [shared.items.popleft() for _ in range(count)]
        reply = self._hand_over(client, request, items)
        for _, keys in items:
            self._let_go(keys)
        return reply

    def _move_items(self, shared: Shared) -> Iterator[Reply]:
        """Let items in while there is room, and out while somebody waits for enough of them."""
        moving = True
        while moving:
            moving = False
            while shared.putters and not 0 < shared.items_max <= len(shared.items):
                client, request, arguments = shared.putters.popleft()
                shared.items.append((arguments[0], arguments[1]))
                moving = True
                yield client, request, True
            while shared.takers and shared.items:
                client, request, (count,) = shared.takers[0]
                if len(shared.items) < count:
                    break
                shared.takers.popleft()
                moving = True
                yield self._hand_out(shared, client, request, count)

    # --- variables ---

    def _assign(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        content, keys = waiting[2]
        self._hold(keys)
        self._clear_items(shared)
        shared.items.append((content, keys))
        yield waiting[0], waiting[1], True
        while shared.takers:
            client, request, _ = shared.takers.popleft()
            yield self._hand_over(client, request, [shared.items[0]])

    def _look(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        if shared.items:
            yield self._hand_over(waiting[0], waiting[1], [shared.items[0]])
        else:
            shared.takers.append(waiting)

    def _delete(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        """Take the value away; answered with whether there was one."""
        yield waiting[0], waiting[1], bool(shared.items)
        self._clear_items(shared)

    # --- datasets: variables that nobody waits for ---

    def _publish(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        client, request, (content, keys, override) = waiting
        if shared.items and not override:
            yield client, request, False
        else:
            yield from self._assign(shared, (client, request, [content, keys]))

    def _look_now(self, shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        if shared.items:
            yield from self._look(shared, waiting)
        else:
            yield waiting[0], waiting[1], None

    def _dataset_names(self, _shared: Shared, waiting: Waiting) -> Iterator[Reply]:
        names = [
            name for (kind, name), one in self.shared.items() if kind == "dataset" and one.items
        ]
        yield waiting[0], waiting[1], names

    def _clear_items(self, shared: Shared) -> None:
        while shared.items:
            self._let_go(shared.items.popleft()[1])
