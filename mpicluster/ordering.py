"""In which order should the tasks of a graph be sent and, by that, run?

Depth first from the outputs: what one task needs is finished before anything else is begun, so
that values are used soon after they are made and few lie in memory. Pure; linear in the edges.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

N = TypeVar("N", bound=Hashable)


class CycleError(ValueError):
    """The graph has tasks that need each other, so none of them can run first."""


def depth_first(outputs: Iterable[N], dependencies_of: Callable[[N], Iterable[N]]) -> list[N]:
    """Return all nodes that the outputs need, dependencies before dependents.

    >>> depth_first(["c"], {"c": ["a", "b"], "a": [], "b": ["a"]}.__getitem__)
    ['a', 'b', 'c']
    """
    order: list[N] = []
    #: True once a node is in `order`, False while its dependencies are being visited.
    state: dict[N, bool] = {}
    for output in outputs:
        if output in state:
            continue
        stack = [(output, iter(dependencies_of(output)))]
        state[output] = False
        while stack:
            node, remaining = stack[-1]
            for needed in remaining:
                known = state.get(needed)
                if known is None:
                    state[needed] = False
                    stack.append((needed, iter(dependencies_of(needed))))
                    break
                if not known:
                    cycle = " -> ".join(str(found) for found, _ in stack)
                    raise CycleError(f"The graph has a cycle: {cycle} -> {needed}.")
            else:
                stack.pop()
                state[node] = True
                order.append(node)
    return order
