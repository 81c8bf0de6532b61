"""Does the priority queue behave like a sorted list?"""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpicluster.priority_queue import PriorityQueue


@dataclass
class Item:
    priority: int


class QueueAgainstList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue: PriorityQueue[Item] = PriorityQueue()
        self.model: dict[int, Item] = {}

    @rule(priority=st.integers(-20, 20))
    def add(self, priority: int) -> None:
        if priority not in self.model:
            item = self.model[priority] = Item(priority)
            self.queue.add(item)

    @rule(priority=st.integers(-20, 20))
    def remove(self, priority: int) -> None:
        item = self.model.pop(priority, None) or Item(priority)
        self.queue.remove(item)
        assert item not in self.queue

    @rule()
    def take(self) -> None:
        best = self.model.pop(min(self.model)) if self.model else None
        assert self.queue.take() is best

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def take_and_put_back(self, data: st.DataObject) -> None:
        item = self.queue.take()
        assert item is not None
        self.queue.add(item)

    @invariant()
    def they_agree(self) -> None:
        assert len(self.queue) == len(self.model)
        assert self.queue.first_priority() == min(self.model, default=None)
        assert sorted(item.priority for item in self.queue.items()) == sorted(self.model)


TestQueueAgainstList = QueueAgainstList.TestCase
TestQueueAgainstList.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
