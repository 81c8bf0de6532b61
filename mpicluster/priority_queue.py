"""In which order do ready tasks leave a queue?

By their unique integer `priority`, the smallest first. Used by the scheduler and by workers.
"""

from collections import deque
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar


class HasPriority(Protocol):
    """Anything with a unique priority."""

    priority: int


T = TypeVar("T", bound=HasPriority)


class PriorityQueue(Generic[T]):
    """Adding and taking cost O(1) for what comes in order, else O(log n); removing costs O(1).

    Both kinds of queue hold bare integers, which compare fast; what has been removed is skipped
    when it comes to the front.
    """

    __slots__ = ("_heap", "_items", "_row")

    def __init__(self) -> None:
        #: Priorities that came in order, the smallest first.
        self._row: deque[int] = deque()
        #: The other priorities.
        self._heap: list[int] = []
        self._items: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: T) -> bool:
        return item.priority in self._items

    def add(self, item: T) -> None:
        """Put an item in; none with its priority may be in already."""
        priority, row = item.priority, self._row
        self._items[priority] = item
        if not row or priority > row[-1]:
            row.append(priority)
        else:
            heappush(self._heap, priority)

    def remove(self, item: T) -> None:
        """Take an item out, if it is in."""
        self._items.pop(item.priority, None)
        if not self._items:
            self._row.clear()
            self._heap.clear()

    def first_priority(self) -> int | None:
        """Return the priority of the item that `take` would return."""
        row, heap, items = self._row, self._heap, self._items
        while row and row[0] not in items:
            row.popleft()
        while heap and heap[0] not in items:
            heappop(heap)
        if heap and (not row or heap[0] < row[0]):
            return heap[0]
        return row[0] if row else None

    def first(self) -> T | None:
        """Return the item that `take` would return."""
        priority = self.first_priority()
        return None if priority is None else self._items[priority]

    def take(self) -> T | None:
        """Return the best item and remove it."""
        taken = self.take_some(1)
        return taken[0] if taken else None

    def take_some(self, count: int, last: int | None = None) -> list[T]:
        """Return up to `count` of the best items, the best first, and remove them.

        With `last` only those whose priority is not larger.
        """
        row, heap, pop_item = self._row, self._heap, self._items.pop
        taken: list[T] = []
        while len(taken) < count and (row or heap):
            from_heap = heap and (not row or heap[0] < row[0])
            if last is not None and (heap[0] if from_heap else row[0]) > last:
                break
            item = pop_item(heappop(heap) if from_heap else row.popleft(), None)
            if item is not None:
                taken.append(item)
        return taken

    def items(self) -> list[T]:
        """Return all items in no useful order, for checks and dumps."""
        return list(self._items.values())
