"""How does a dask graph get to the scheduler?

It is culled and ordered, each task becomes a function with arguments and is pickled once, and
full messages go out while the next tasks are being made, so that a large graph runs before its
end has been sent.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef, convert_legacy_task
from dask.utils import key_split

from mpicluster import messages as m
from mpicluster.client.arguments import LargeArguments, may_be_large
from mpicluster.client.client import open_clients
from mpicluster.client.containers import PLAIN
from mpicluster.client.future import Future, belongs_elsewhere, raise_error_of
from mpicluster.client.inspection import format_bytes
from mpicluster.client.options import make_options
from mpicluster.client.records import CANCELLED, ERROR, FutureRecord
from mpicluster.client.submission import InputList, TaskBuffer, dump_call
from mpicluster.errors import LostValueError
from mpicluster.ids import FunctionId, Key
from mpicluster.integrations import legacy
from mpicluster.integrations.compiling import FUNCTIONS, TemplateTable
from mpicluster.integrations.programs import call_for_pieces, identity
from mpicluster.messages import NO_OPTIONS, TaskOptions
from mpicluster.ordering import depth_first
from mpicluster.serialization.calls import Input

if TYPE_CHECKING:
    from mpicluster.client.client import Client

#: The annotations and keyword arguments that are options of tasks.
OPTIONS: Final = ("workers", "allow_other_workers", "resources", "retries", "priority")
#: Task groups that the warning about large graphs names.
WARN_GROUPS: Final = 3


class GraphSubmission:
    """One graph on its way to the scheduler; used under the client's lock."""

    def __init__(
        self,
        client: Client,
        graph: Mapping[Hashable, Any],
        annotations: Mapping[str, Mapping[Hashable, Any]],
        common: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._core = client.loop.core
        #: {key: node}; values in dask's older forms are replaced by nodes when they are met.
        self._graph = graph
        self._nodes: dict[Hashable, GraphNode] = {}
        self._annotations = {name: annotations[name] for name in OPTIONS if annotations.get(name)}
        self._common = {name: common[name] for name in OPTIONS if name in common}
        self._options: dict[str, TaskOptions] = {}
        #: {name: number on the wire} of all tasks before the one that is being made.
        self._keys: dict[Hashable, Key] = {}
        self._futures: dict[Hashable, Future] = {}
        self._templates = TemplateTable()
        self._prefixes: dict[Any, str] = {}
        self._functions: dict[Any, FunctionId] = {}
        #: {input numbers: payload} of calls without literals.
        self._payloads: dict[tuple[int, ...], bytes] = {}
        self._large = LargeArguments(client, constant=True)
        #: {id of a value: value} of literals that are small enough: asking a table takes long.
        self._small: dict[int, Any] = {}
        self._inputs = InputList()
        self._buffer: TaskBuffer | None = None
        self._options_sent: TaskOptions | None = None
        #: The number of the graph once it needs a second message.
        self._number_of_graph = 0
        #: {prefix: [tasks, bytes of their payloads]}.
        self._sizes: dict[str, list[int]] = {}

    def run(self, names: Sequence[Hashable]) -> dict[Hashable, Future]:
        """Send what `names` need, in order; return their futures."""
        wanted = self._resolve(names)
        targets = dict.fromkeys(wanted.values())
        order = depth_first(targets, self.dependencies)
        functions_nbytes = self._client.functions.nbytes
        try:
            for name in order:
                self._add(name, name in targets)
        finally:
            # Also after an error: who asks for the same keys must not wait for what was never sent.
            if self._buffer is not None:
                self._buffer.send()
            if self._number_of_graph:
                self._core.to_scheduler(m.CloseGraph(self._number_of_graph))
        self._client.loop.flush_soon()
        self._large.wait()
        self._warn_if_large(self._client.functions.nbytes - functions_nbytes)
        return {name: self._futures[target] for name, target in wanted.items()}

    # --- which tasks ---

    def _resolve(self, names: Sequence[Hashable]) -> dict[Hashable, Hashable]:
        """Return {name: the key that it is an alias of, or itself}."""
        found: dict[Hashable, Hashable] = {}
        for name in names:
            target, seen = name, {name}
            while self._known(target) is None and target in self._graph:
                node = self._node(target)
                if not isinstance(node, Alias) or node.target in seen:
                    break
                target = node.target
                seen.add(target)
            found[name] = target
        return found

    def _known(self, name: Hashable) -> FutureRecord | None:
        """Return the record of a key that a future of this client holds already."""
        record = self._core.by_name.get(name)
        if record is not None and record.status is not ERROR and record.status is not CANCELLED:
            return record
        return None

    def _node(self, name: Hashable) -> Any:
        """Return dask's object for a task; a tuple where its older form is as good."""
        node = self._nodes.get(name)
        return node if node is not None else self._graph[name]

    def dependencies(self, name: Hashable) -> Iterable[Hashable]:
        """Return the keys that a task needs, none if its value is there already."""
        if self._known(name) is not None:
            return ()
        graph = self._graph
        if name not in graph:
            self._refuse_foreign(name)
            raise LostValueError(
                f"The graph needs the key {name!r}, which is neither in it nor held by a future "
                "of this client. A collection that was persisted keeps its futures; use that one, "
                "and do not release or cancel its futures."
            )
        node = self._node(name)
        if isinstance(node, GraphNode):
            return frozenset(node.dependencies)
        if legacy.is_call(node):
            found = legacy.simple_dependencies(node, graph)
            if found is not None:
                return found
        made = convert_legacy_task(name, node, graph)
        if not isinstance(made, GraphNode):
            made = DataNode(name, made)
        if isinstance(made, Alias) and made.target == name:
            record = self._core.by_name.get(name)
            if record is not None and record.status is ERROR:
                raise_error_of(record)
            self._refuse_foreign(name)
            raise LostValueError(
                f"The collection's value {name!r} is lost: its future was cancelled or its task "
                "failed. Persist the collection again."
            )
        self._nodes[name] = made
        return frozenset(made.dependencies)

    def _refuse_foreign(self, name: Hashable) -> None:
        """Raise if a client of another cluster holds the key; dask's graphs may keep only that."""
        for other in open_clients():
            record = other.loop.core.by_name.get(name)
            if other.loop is not self._client.loop and record is not None:
                raise belongs_elsewhere(record)

    # --- tasks ---

    def _add(self, name: Hashable, wanted: bool) -> None:
        """Make one task and queue it; send the message that it fills."""
        client = self._client
        known = self._known(name)
        if known is not None:
            self._keys[name] = known.key
            if wanted:
                self._futures[name] = client.make_future(known)
            return
        node = self._node(name)
        if not wanted and isinstance(node, Alias):
            self._keys[name] = self._keys[node.target]
            return
        if isinstance(node, DataNode) and self._add_value(name, node.value, wanted):
            return
        prefix = self._prefix(name)
        inputs = self._inputs = InputList()
        function, args, kwargs = self._to_call(node)
        number = self._number(function, prefix)
        buffer = self._buffer_for(name)
        payload = self._pickle(prefix, args, kwargs)
        self._large.options = self._options_sent or NO_OPTIONS
        keys = self._large.to_keys(inputs.keys)
        key = self._keys[name] = self._core.next_number()
        if wanted:
            record = FutureRecord(key, prefix, name, None)
            self._core.add(record, named=True)
            self._futures[name] = client.make_future(record)
        buffer.add(key, number, payload, keys, wanted)
        sizes = self._sizes.get(prefix)
        if sizes is None:
            sizes = self._sizes[prefix] = [0, 0]
        sizes[0] += 1
        sizes[1] += len(payload)
        if buffer.full:
            self._send_first()

    def _add_value(self, name: Hashable, value: Any, wanted: bool) -> bool:
        """Return whether a value of the graph is large; if so give it to a worker."""
        if wanted and may_be_large(value, self._large.limit):
            client = self._client
            future = client.scatter({name: value}, hash=False)[name]
            self._futures[name] = future
            self._keys[name] = future.use_as_input(client.loop)
            return True
        found = None if wanted else self._large.find(value)
        if found is None:
            return False
        self._keys[name] = self._large.to_keys([found])[0]
        return True

    def _prefix(self, name: Hashable) -> str:
        stem = name[0] if type(name) is tuple and name else name
        prefix = self._prefixes.get(stem)
        if prefix is None:
            prefix = self._prefixes[stem] = str(key_split(stem))
        return prefix

    def _number(self, function: Any, prefix: str) -> FunctionId:
        try:
            number = self._functions.get((function, prefix))
        except TypeError:  # it has no hash
            return self._client.functions.number(function, prefix, reads_only=True)
        if number is None:
            number = self._client.functions.number(function, prefix, reads_only=True)
            self._functions[function, prefix] = number
        return number

    def _to_call(self, node: Any) -> tuple[Any, list[Any], dict[str, Any]]:
        """Return a function, its arguments and its keyword arguments."""
        if type(node) is tuple:
            function, args = legacy.simple_call(node, self._graph, self._keys, self._inputs)
            if legacy.makes_pieces(function):
                return call_for_pieces, [function, *args], {}
            return function, args, {}
        if type(node) is Task and type(node.func) in FUNCTIONS and not node.kwargs:
            args = []
            for value in node.args:
                if isinstance(value, TaskRef):
                    args.append(self._inputs.add(self._keys[value.key]))
                elif type(value) in PLAIN:
                    args.append(value)
                else:
                    break
            else:
                return node.func, args, {}
            self._inputs.keys.clear()
        if isinstance(node, DataNode):
            return identity, [self._literal(node.value)], {}
        function, args = self._templates.compile(node, self._input_of, self._literal)
        return function, args, {}

    def _input_of(self, name: Hashable) -> Input:
        return self._inputs.add(self._keys[name])

    # --- payloads ---

    def _literal(self, value: Any) -> Any:
        """Return a literal, or the input that stands for it if it is large."""
        if type(value) in PLAIN or id(value) in self._small:
            return value
        found = self._large.find(value)
        if found is not None:
            return self._inputs.add(found)
        self._small[id(value)] = value
        return value

    def _pickle(self, prefix: str, args: list[Any], kwargs: dict[str, Any]) -> bytes:
        """Return the payload of a call; large arguments become inputs."""
        numbers = None
        if not kwargs and all(type(value) is Input for value in args):
            numbers = tuple([value.index for value in args])
            payload = self._payloads.get(numbers)
            if payload is not None:
                return payload
        payload = dump_call(tuple(args), kwargs, self._inputs, self._large, prefix)
        if numbers is not None:
            self._payloads[numbers] = payload
        return payload

    # --- messages ---

    def _buffer_for(self, name: Hashable) -> TaskBuffer:
        """Return the message that takes a task with the options of `name`."""
        if self._buffer is not None and not self._annotations:
            return self._buffer
        options = self._options_of(name)
        if self._buffer is None or options is not self._options_sent:
            self._send_first()
            self._options_sent = options
            self._buffer = TaskBuffer(self._client.loop, options, self._large)
        return self._buffer

    def _options_of(self, name: Hashable) -> TaskOptions:
        chosen = dict(self._common)
        for option, values in self._annotations.items():
            if name in values:
                chosen[option] = values[name]
        signature = repr(sorted(chosen.items()))
        options = self._options.get(signature)
        if options is None:
            options = make_options(self._client.worker_descriptions(), **chosen)
            self._options[signature] = options
        return options

    def _send_first(self) -> None:
        """Send what there is, which is not all: the scheduler keeps the values until the end."""
        if self._buffer is None or not self._buffer.keys:
            return
        if not self._number_of_graph:
            self._number_of_graph = self._core.next_number()
        self._buffer.graph = self._number_of_graph
        self._client.send_full(self._buffer)

    # --- warnings ---

    def _warn_if_large(self, functions_nbytes: int) -> None:
        """Warn of a graph that carries data, and name the tasks that do."""
        total = functions_nbytes + sum(nbytes for _, nbytes in self._sizes.values())
        if total <= self._client.config.large_graph_bytes:
            return
        rows = sorted(self._sizes.items(), key=lambda row: -row[1][1])[:WARN_GROUPS]
        named = [
            f"{prefix!r} ({count} tasks, {format_bytes(nbytes)})"
            for prefix, (count, nbytes) in rows
        ]
        if functions_nbytes > total // 10:
            named.insert(0, f"the functions themselves ({format_bytes(functions_nbytes)})")
        warnings.warn(
            f"The graph's {sum(count for count, _ in self._sizes.values())} tasks have "
            f"{format_bytes(total)}, which the client must send before they can run. The largest "
            f"are {', '.join(named)}. Load data inside tasks (read_parquet, from_delayed), or give "
            "it to the workers with client.scatter and use the futures; use larger partitions or "
            "chunks if there are many small tasks. The limit is the setting large_graph_bytes.",
            stacklevel=2,
        )
