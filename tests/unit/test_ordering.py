"""Orders of graphs: complete, dependencies first, depth first, linear, cycles named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicluster.ordering import CycleError, depth_first


@st.composite
def graphs(draw):
    """Return a graph without cycles: node n needs smaller ones."""
    count = draw(st.integers(1, 30))
    return {
        n: draw(st.lists(st.integers(0, n - 1), unique=True, max_size=4)) if n else []
        for n in range(count)
    }


@given(graphs(), st.data())
def test_dependencies_come_before_dependents_and_nothing_else_comes(graph, data):
    outputs = data.draw(st.lists(st.sampled_from(sorted(graph)), min_size=1))
    order = depth_first(outputs, graph.__getitem__)
    place = {node: number for number, node in enumerate(order)}
    assert len(place) == len(order)
    assert all(place[needed] < place[node] for node in order for needed in graph[node])
    needed = set(outputs)
    todo = list(outputs)
    while todo:
        new = set(graph[todo.pop()]) - needed
        needed |= new
        todo.extend(new)
    assert set(order) == needed


def test_a_tree_is_finished_branch_by_branch():
    tree = {"root": ["left", "right"], "left": ["a", "b"], "right": ["c", "d"]}
    order = depth_first(["root"], lambda node: tree.get(node, ()))
    assert order == ["a", "b", "left", "c", "d", "right", "root"]


def test_a_reduction_of_many_values_needs_few_at_the_same_time():
    count, level, tree = 64, 0, {}
    while count > 1:
        count //= 2
        for n in range(count):
            tree[level + 1, n] = [(level, 2 * n), (level, 2 * n + 1)]
        level += 1
    order = depth_first([(level, 0)], lambda node: tree.get(node, ()))
    held, most = set(), 0
    for node in order:
        held.add(node)
        most = max(most, len(held))
        held -= set(tree.get(node, ()))
    assert most <= level + 2


def test_long_chains_need_no_recursion():
    order = depth_first([100_000], lambda n: [n - 1] if n else [])
    assert order == list(range(100_001))


@pytest.mark.parametrize(
    ("graph", "named"),
    [({"a": ["a"]}, "a -> a"), ({"a": ["b"], "b": ["c"], "c": ["b"]}, "a -> b -> c -> b")],
)
def test_a_cycle_is_named(graph, named):
    with pytest.raises(CycleError, match=named):
        depth_first(["a"], graph.__getitem__)


def test_a_dependency_that_is_needed_twice_is_no_cycle():
    graph = {"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []}
    assert depth_first(["d"], graph.__getitem__) == ["a", "b", "c", "d"]
