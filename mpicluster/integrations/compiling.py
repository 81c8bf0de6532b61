"""How does one task of a dask graph become a function with arguments?

Most tasks are one already. Nested and fused ones become a `Program`: dask's task objects stay
with the client. Sibling tasks differ in a few literals only, so what they share (the steps, the
user's functions, tables without rows) goes into the program, which each worker gets once.
"""

from collections.abc import Callable, Hashable, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final

from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    List,
    NestedContainer,
    Set,
    Task,
    TaskRef,
    Tuple,
    _execute_subgraph,
    _identity_cast,
)

from mpicluster.client.containers import PLAIN
from mpicluster.integrations.programs import (
    Program,
    Step,
    call,
    identity,
    make_dict,
    make_list,
    make_set,
    make_tuple,
    run_node,
)
from mpicluster.ordering import depth_first
from mpicluster.serialization.calls import Input

#: Types of functions that are always the same object; others (partials) travel as values.
FUNCTIONS: Final = frozenset({FunctionType, BuiltinFunctionType, type})
_CONTAINERS: Final[dict[type, Callable[..., Any]]] = {
    List: make_list, Tuple: make_tuple, Set: make_set, Dict: make_dict,
}  # fmt: skip
_CASTS: Final[dict[Any, Callable[..., Any]]] = {list: make_list, tuple: make_tuple, set: make_set}

#: What is known of the keys inside a fused task: {key: position}; None outside of one.
Scope = dict[Hashable, int] | None


class Compiler:
    """Takes one node apart into steps and arguments.

    While it runs, position i >= 0 is argument i and position ~k is the result of step k.
    """

    def __init__(
        self, input_of: Callable[[Hashable], Any], literal_of: Callable[[Any], Any]
    ) -> None:
        self._input_of = input_of
        self._literal_of = literal_of
        self.steps: list[Step] = []
        self.arguments: list[Any] = []
        self._inputs: dict[Hashable, int] = {}

    def add_node(self, node: GraphNode) -> None:
        """Add a node whose value is the result of all."""
        position = self._place(node, None)
        if position != ~(len(self.steps) - 1) or not self.steps:
            self.steps.append((identity, (position,), ()))

    def _place(self, value: Any, scope: Scope) -> int:
        """Return the position of a value, which may be another node."""
        if isinstance(value, TaskRef):
            return self._look_up(value.key, scope)
        if not isinstance(value, GraphNode):
            return self._add_argument(self._literal_of(value))
        if isinstance(value, Alias):
            return self._look_up(value.target, scope)
        if isinstance(value, DataNode):
            return self._add_argument(self._literal_of(value.value))
        if isinstance(value, NestedContainer):
            builder = _CONTAINERS.get(type(value))
            if builder is not None:
                return self._add_step(builder, value.args, {}, scope)
        elif type(value) is Task:
            if value.func is _execute_subgraph and not value.kwargs:
                return self._add_subgraph(value, scope)
            if value.func is _identity_cast and value.kwargs.get("typ") in _CASTS:
                return self._add_step(_CASTS[value.kwargs["typ"]], value.args, {}, scope)
            return self._add_step(value.func, value.args, value.kwargs, scope)
        return self._add_foreign(value, scope)

    def _look_up(self, key: Hashable, scope: Scope) -> int:
        if scope is not None and key in scope:
            return scope[key]
        position = self._inputs.get(key)
        if position is None:
            position = self._inputs[key] = self._add_argument(self._input_of(key))
        return position

    def _add_argument(self, value: Any) -> int:
        self.arguments.append(value)
        return len(self.arguments) - 1

    def _add_step(
        self, function: Any, args: Sequence[Any], kwargs: dict[str, Any], scope: Scope
    ) -> int:
        positions = [self._place(value, scope) for value in args]
        positions += [self._place(value, scope) for value in kwargs.values()]
        if type(function) not in FUNCTIONS:
            positions.insert(0, self._add_argument(self._literal_of(function)))
            function = call
        self.steps.append((function, tuple(positions), tuple(kwargs)))
        return ~(len(self.steps) - 1)

    def _add_subgraph(self, node: Task, scope: Scope) -> int:
        """Add the steps of a fused task, dependencies before dependents."""
        inner, result, names, *values = node.args
        found: dict[Hashable, int] = {
            name: self._place(value, scope) for name, value in zip(names, values, strict=True)
        }

        def dependencies(key: Hashable) -> Any:
            return () if key in found or key not in inner else inner[key].dependencies

        for key in depth_first([result], dependencies):
            if key not in found and key in inner:
                found[key] = self._place(inner[key], found)
        return self._look_up(result, found)

    def _add_foreign(self, node: GraphNode, scope: Scope) -> int:
        """Add a node of a kind that only dask itself can run."""
        names = list(node.dependencies)
        positions = [self._add_argument(node), self._add_argument(names)]
        positions += [self._look_up(name, scope) for name in names]
        self.steps.append((run_node, tuple(positions), ()))
        return ~(len(self.steps) - 1)


class Template:
    """The steps that sibling tasks have in common, and the arguments that are always the same."""

    def __init__(self, steps: list[Step], arguments: list[Any]) -> None:
        self._steps = steps
        #: The arguments of the first task: what the second has too is shared.
        self._first = arguments
        self._shared: dict[int, Any] | None = None
        self._general: Callable[..., Any] | None = None
        self._special: Callable[..., Any] | None = None

    def fill(self, arguments: list[Any]) -> tuple[Callable[..., Any], list[Any]]:
        """Return the function for a task with these arguments, and those that it is given."""
        if self._shared is None and arguments is not self._first:
            self._shared = {
                place: value
                for place, (value, first) in enumerate(zip(arguments, self._first, strict=True))
                if value is first and type(value) not in PLAIN and type(value) is not Input
            }
            self._special = self._program(self._shared) if self._shared else None
        shared = self._shared or {}
        if self._special is not None and all(arguments[p] is shared[p] for p in shared):
            return self._special, [v for place, v in enumerate(arguments) if place not in shared]
        if self._general is None:
            self._general = self._program({})
        return self._general, arguments

    def _program(self, shared: dict[int, Any]) -> Callable[..., Any]:
        """Return a program in which the `shared` arguments are constants."""
        count = len(self._first)
        places = [place for place in range(count) if place not in shared] + list(shared)
        position_of = {place: position for position, place in enumerate(places)}
        steps = []
        for function, positions, names in self._steps:
            moved = [position_of[p] if p >= 0 else count + ~p for p in positions]
            steps.append((function, tuple(moved), names))
        return Program(steps, list(shared.values()))


class TemplateTable:
    """The templates of one graph, found by their steps."""

    def __init__(self) -> None:
        self._templates: dict[Any, Template] = {}

    def compile(
        self,
        node: GraphNode,
        input_of: Callable[[Hashable], Any],
        literal_of: Callable[[Any], Any],
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Return a function and its arguments, which together make the node's value."""
        compiler = Compiler(input_of, literal_of)
        compiler.add_node(node)
        signature = (tuple(compiler.steps), len(compiler.arguments))
        template = self._templates.get(signature)
        if template is None:
            template = self._templates[signature] = Template(compiler.steps, compiler.arguments)
        return template.fill(compiler.arguments)
