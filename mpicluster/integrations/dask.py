"""How do dask's collections run on a client?

By dask's documented hook: `dask.config.set(scheduler=client)` makes `dask.compute` call
`client.get` and `dask.persist` call `client.persist`. The graph that a collection makes is sent by
`graphs.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import dask
from dask._task_spec import TaskRef
from dask.base import named_schedulers
from dask.core import flatten
from dask.utils import ensure_dict

from mpicluster.client.collector import rare_collections
from mpicluster.client.future import Future as BaseFuture
from mpicluster.errors import MpiclusterError
from mpicluster.integrations.graphs import OPTIONS, GraphSubmission

if TYPE_CHECKING:
    from mpicluster.client.client import Client


class Future(BaseFuture, TaskRef):  # type: ignore[misc]
    """A future that dask recognises in its graphs; users see but one class of that name."""


def future_type() -> type[BaseFuture]:
    """Return the class of futures to use where dask is installed."""
    return Future


def set_scheduler(client: Client) -> Callable[[], None]:
    """Make a client dask's scheduler; return a function that undoes it.

    The client answers for the names "distributed" and "dask.distributed" too.

    Shuffle and rechunk by tasks: dask's default goes through a local disk, which other hosts do
    not see, and its other method belongs to distributed's own workers. Of several clients the
    newest that is open counts; with the last one dask's configuration is as before the first.
    """
    changes = dask.config.set({
        "scheduler": client,
        "dataframe.shuffle.method": "tasks",
        "array.rechunk.method": "tasks",
    })  # fmt: skip
    if not _clients:
        _restore.append(lambda: changes.__exit__(None, None, None))
        found = {name: named_schedulers[name] for name in NAMES if name in named_schedulers}
        _restore.append(lambda: _restore_names(found))
    _clients.append(client)
    named_schedulers.update(dict.fromkeys(NAMES, client.get))

    def undo() -> None:
        _clients.remove(client)
        if not _clients:
            while _restore:
                _restore.pop()()
            return
        named_schedulers.update(dict.fromkeys(NAMES, _clients[-1].get))
        if dask.config.get("scheduler", None) is client:
            dask.config.set(scheduler=_clients[-1])

    return undo


def _restore_names(found: Mapping[str, Any]) -> None:
    for name in NAMES:
        named_schedulers.pop(name, None)
    named_schedulers.update(found)


#: What scripts written for distributed call their scheduler.
NAMES: Final = ("distributed", "dask.distributed")
#: Open clients that dask uses, the newest last, and what gives dask's configuration back.
_clients: list[Client] = []
_restore: list[Callable[[], None]] = []


# --- the three calls of dask -----------------------------------------------------------------


def get(client: Client, dsk: Any, keys: Any, sync: bool = True, **options: Any) -> Any:
    """Compute a graph and return the values of `keys` in their nesting."""
    check_options("get", options, strict=False)
    names = list(flatten([keys])) if isinstance(keys, list) else [keys]
    dsk, fused = fuse(dsk)
    found = submit_graph(client, dsk, [fused.get(name, name) for name in names], options)
    futures = {name: found[fused.get(name, name)] for name in names}
    if not sync:
        return _nest(keys, futures)
    values = dict(zip(futures, client.gather(list(futures.values())), strict=True))
    return _nest(keys, values)


def fuse(dsk: Any) -> tuple[Any, dict[Hashable, Hashable]]:
    """Fuse the partition-wise steps of one DataFrame, which `dask.compute` leaves apart.

    Returns {key before: key after} too. Of several collections the parts that they share would
    be computed several times, so these are left as they are.
    """
    from dask._expr import Expr, _ExprSequence

    expr = dsk
    if isinstance(dsk, _ExprSequence) and len(dsk.operands) == 1:
        expr = dsk.operands[0]
    if not isinstance(expr, Expr) or isinstance(expr, _ExprSequence):
        return dsk, {}
    fused = expr.fuse()
    before, after = list(flatten(expr.__dask_keys__())), list(flatten(fused.__dask_keys__()))
    if fused is expr or len(before) != len(after):
        return dsk, {}
    return fused, dict(zip(before, after, strict=True))


def compute(
    client: Client, collections: Any, sync: bool = False, optimize_graph: bool = True,
    traverse: bool = True, **options: Any,
) -> Any:  # fmt: skip
    """Compute collections: one future each, with the whole result; or the values."""
    from dask._expr import FinalizeCompute
    from dask.base import collections_to_expr, is_dask_collection, unpack_collections

    check_options("compute", options)
    single = not isinstance(collections, list | tuple | set | frozenset)
    items = [collections] if single else list(collections)
    if traverse:
        items = [
            dask.delayed(item) if not is_dask_collection(item) and unpack_collections(item)[0]
            else item
            for item in items
        ]  # fmt: skip
    lazy = [item for item in items if is_dask_collection(item)]
    results: Iterator[BaseFuture] = iter(())
    if lazy:
        expr = FinalizeCompute(collections_to_expr(lazy, optimize_graph)).optimize()
        options = _with_annotations(expr, options)
        expr, _ = fuse(expr)
        names = list(flatten(expr.__dask_keys__()))
        found = submit_graph(client, expr, names, options)
        results = iter([found[name] for name in names])
    answer = [next(results) if is_dask_collection(item) else item for item in items]
    if sync:
        answer = client.gather(answer)
    return answer[0] if single else type(collections)(answer)


def persist(client: Client, collections: Any, optimize_graph: bool = True, **options: Any) -> Any:
    """Start computing collections; return ones whose partitions are futures."""
    from dask.base import _rebuild_composite_collection, collections_to_expr, is_dask_collection

    check_options("persist", options)
    single = not isinstance(collections, list | tuple | set | frozenset)
    items = [collections] if single else list(collections)
    for item in items:
        if not is_dask_collection(item):
            raise TypeError(
                f"persist was given a {type(item).__name__}, which is not a dask collection. Use "
                "client.submit for functions and client.scatter for data."
            )
    expr = collections_to_expr(items, optimize_graph)
    composite = _composite_expressions(expr, len(items))
    expr = expr.optimize()
    composite = _composite_expressions(expr, len(items)) if any(composite) else composite
    names = [list(flatten(found)) for found in expr.__dask_keys__()]
    options = _with_annotations(expr, options)
    futures = submit_graph(client, expr, [name for found in names for name in found], options)
    rebuilt = []
    for item, its_expr, its_names in zip(items, composite, names, strict=True):
        values = {name: futures[name] for name in its_names}
        if its_expr is not None:
            rebuilt.append(
                _rebuild_composite_collection(item, its_expr, futures, cull_to_child_keys=True)
            )
        else:
            rebuild, state = item.__dask_postpersist__()
            rebuilt.append(rebuild(values, *state))
    return rebuilt[0] if single else type(collections)(rebuilt)


def check_options(method: str, options: Mapping[str, Any], *, strict: bool = True) -> None:
    """Refuse arguments that mean nothing; `dask.compute` passes its own on to `get`, so that only
    refuses what looks like a misspelt option.
    """
    if options.get("actors"):
        raise MpiclusterError("There are no actors: keep state in a `Variable`.")
    known = (*OPTIONS, *WITHOUT_MEANING, "annotations")
    for name in options:
        near = get_close_matches(name, OPTIONS, n=1, cutoff=0.75)
        if name not in known and (strict or near):
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"client.{method} was given the argument {name!r}, which it does not know.{hint} "
                f"It takes {', '.join(OPTIONS)}."
            )


#: Arguments of distributed's client, and of dask's other schedulers, that change nothing here.
WITHOUT_MEANING: Final = (
    "actors", "asynchronous", "direct", "fifo_timeout", "rerun_exceptions_locally", "num_workers",
    "pool", "cache", "chunksize", "restrictions", "loose_restrictions",
)  # fmt: skip


def _composite_expressions(expr: Any, count: int) -> list[Any]:
    """Return for each collection its expression if it wraps others (xarray), else None."""
    from dask._expr import CompositeExpr, _ExprSequence

    operands = list(expr.operands) if isinstance(expr, _ExprSequence) else [expr]
    if len(operands) != count:
        return [None] * count
    return [found if isinstance(found, CompositeExpr) else None for found in operands]


def _with_annotations(expr: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Add the annotations that the collections carry, each {key: value}."""
    found = expr.__dask_annotations__() if hasattr(expr, "__dask_annotations__") else {}
    return {**options, "annotations": found} if found else options


def _nest(keys: Any, values: Mapping[Hashable, Any]) -> Any:
    """Return the values in the shape of `keys`: lists nest, everything else is a key."""
    if isinstance(keys, list):
        return [_nest(key, values) for key in keys]
    return values[keys]


# --- graphs ----------------------------------------------------------------------------------


def submit_graph(
    client: Client, dsk: Any, names: Sequence[Hashable], options: Mapping[str, Any]
) -> dict[Hashable, BaseFuture]:
    """Send what the graph's `names` need and return their futures."""
    with rare_collections():
        graph, annotations = materialize(dsk, options.get("annotations") or {})
        _refuse_p2p(graph)
        _refuse_disk(graph)
        common = {**(dask.get_annotations() or {}), **options}
        with client.lock:
            return GraphSubmission(client, graph, annotations, common).run(names)


def _refuse_p2p(graph: Mapping[Hashable, Any]) -> None:
    """Refuse a shuffle that only distributed's own workers can do, before any of it runs."""
    module = sys.modules.get("distributed.shuffle._core")
    barrier = getattr(module, "P2PBarrierTask", None)
    if barrier is not None and any(isinstance(node, barrier) for node in graph.values()):
        raise MpiclusterError(
            "The graph shuffles or rechunks with the method 'p2p', which only distributed's own "
            "workers know. Leave the method out, or say shuffle_method='tasks' (DataFrame) or "
            "method='tasks' (rechunk)."
        )


def _refuse_disk(graph: Mapping[Hashable, Any]) -> None:
    """Refuse a shuffle whose tasks meet in a file of one host, which they leave there."""
    for key in graph:
        if type(key) is tuple and len(key) == 1 and str(key[0]).startswith("zpartd-"):
            raise MpiclusterError(
                "The graph shuffles with the method 'disk', whose tasks would all have to run on "
                "one host. Leave the method out, or say shuffle_method='tasks'."
            )


def materialize(
    dsk: Any, annotations: Mapping[str, Any]
) -> tuple[Mapping[Hashable, Any], Mapping[str, Any]]:
    """Return a graph as a dict, with its annotations as {name: {key: value}}."""
    graph = dsk
    if not isinstance(dsk, Mapping) or hasattr(dsk, "__dask_graph__"):
        if hasattr(dsk, "__dask_annotations__") and not annotations:
            annotations = dsk.__dask_annotations__()
        graph = dsk.__dask_graph__()
    layers = getattr(graph, "layers", None)
    if layers is not None and not annotations:
        annotations = _layer_annotations(layers)
    return ensure_dict(graph), annotations


def _layer_annotations(layers: Mapping[str, Any]) -> dict[str, dict[Hashable, Any]]:
    """Return the annotations of a HighLevelGraph as {name: {key: value}}."""
    found: dict[str, dict[Hashable, Any]] = {}
    for layer in layers.values():
        for name, value in (layer.annotations or {}).items():
            for key in layer:
                found.setdefault(name, {})[key] = value(key) if callable(value) else value
    return found
