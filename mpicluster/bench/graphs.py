"""Which plain graphs are computed?

A graph is a list of tasks that refer to earlier ones by their place. `merge` and `tree` are those
of the paper on RSDS (arXiv 2010.11105), so that figures can be compared.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from mpicluster.bench import work


@dataclass(frozen=True, slots=True)
class Task:
    """`function(*literals, *values of the dependencies)`."""

    function: Callable[..., Any]
    literals: tuple[Any, ...]
    #: Places of earlier tasks.
    dependencies: tuple[int, ...] = ()


@dataclass(slots=True)
class Graph:
    """Tasks of which the last one is wanted."""

    tasks: list[Task] = field(default_factory=list)
    #: What the last task returns.
    expected: Any = None

    def add(
        self,
        function: Callable[..., Any],
        literals: tuple[Any, ...],
        dependencies: tuple[int, ...] = (),
    ) -> int:
        """Add a task and return its place."""
        self.tasks.append(Task(function, literals, dependencies))
        return len(self.tasks) - 1

    def to_dict(self, prefix: str) -> tuple[dict[Hashable, Any], Hashable]:
        """Return the graph as dask writes it, and the key that is wanted."""
        names = [(prefix, place) for place in range(len(self.tasks))]
        plain: dict[Hashable, Any] = {
            name: (task.function, *task.literals, *(names[place] for place in task.dependencies))
            for name, task in zip(names, self.tasks, strict=True)
        }
        return plain, names[-1]


def merge(size: int) -> Graph:
    """Return `size` independent tasks and one that takes all their results."""
    graph = Graph(expected=10 * sum(range(size)))
    places = tuple(graph.add(work.times_ten, (number,)) for number in range(size))
    graph.add(work.add_all, (), places)
    return graph


def tree(size: int) -> Graph:
    """Return the sum of 0, 1, ... `size` - 1 by pairs; half of the tasks add two numbers."""
    graph = Graph(expected=sum(range(size)))
    level = [graph.add(work.add, (number, number + 1)) for number in range(0, size, 2)]
    while len(level) > 1:
        pairs = list(zip(level[::2], level[1::2], strict=False))
        rest = level[2 * len(pairs) :]
        level = [*(graph.add(work.add, (), pair) for pair in pairs), *rest]
    return graph
