"""What does a script call?

The public client, with the names, arguments and meanings of `distributed.Client`. Its methods are
gathered from the files beside this one; here are its life, running tasks and dask's graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from mpicluster import messages as m
from mpicluster.absent import OF_CLIENTS, refuse_attribute, without_connection_arguments
from mpicluster.client import inspection
from mpicluster.client.everywhere import NOTHING
from mpicluster.client.executor import ClientExecutor
from mpicluster.client.future import Future
from mpicluster.client.plugins import Plugins
from mpicluster.client.publishing import Publishing
from mpicluster.client.records import FutureRecord
from mpicluster.ids import Key

if TYPE_CHECKING:
    from mpicluster.cluster.base import Cluster

_current: ContextVar[Client | None] = ContextVar("mpicluster_client", default=None)
#: Open clients, the newest last.
_open: list[Client] = []


def open_clients() -> tuple[Client, ...]:
    """Return the open clients that dask may compute on, of all clusters."""
    return tuple(_open)


class Client(Plugins, Publishing):
    """The connection of a script with its cluster.

    Inside a job that `mpicluster run` or `mpirun ... python -m mpicluster` started it uses the
    job's ranks. Elsewhere it starts a `LocalCluster`, to which keyword arguments go. `address` may
    be a cluster that runs. `timeout` is how long to wait for the workers (seconds, or a text like
    "2min"). With `set_as_default` dask computes on it while it is open.

    >>> from mpicluster import Client
    >>> with Client(n_workers=2) as client:
    ...     client.gather(client.map(abs, [-1, -2, -3]))
    [1, 2, 3]
    """

    #: What dask asks for before it uses a client as its scheduler.
    asynchronous = False
    #: There is none; scripts print it.
    dashboard_link = None

    def __init__(
        self,
        address: Cluster | None = None,
        timeout: float | str | None = None,
        set_as_default: bool = True,
        **cluster_options: Any,
    ) -> None:
        from mpicluster.cluster import find_cluster

        options = without_connection_arguments(cluster_options)
        cluster, self._owns_cluster = find_cluster(address, options)
        super().__init__(cluster)
        self._restore: list[Callable[[], None]] = []
        self._loop.check()
        self.wait_for_workers(timeout=timeout)
        if set_as_default:
            _open.append(self)
            self._register_with_dask()

    @property
    def id(self) -> str:
        """The name of this client: that of its rank, or of the task's slot that it serves."""
        return f"Client-{self._loop.transport.rank}"

    # --- life ---

    @classmethod
    def current(cls, allow_global: bool = True) -> Client:
        """Return the client of this context: that of `as_current`, or the newest open one.

        Raises `ValueError` if no client is open.

        >>> Client.current() is client
        True
        """
        found = _current.get()
        if found is None and allow_global and _open:
            found = _open[-1]
        if found is None:
            raise ValueError("No client is open; make one with mpicluster.Client().")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.cluster.finishes_forgotten = False
        self.close()

    def _register_with_dask(self) -> None:
        from importlib.util import find_spec

        if find_spec("dask") is not None:
            from mpicluster.integrations import dask

            self._future_type = dask.future_type()
            self._restore.append(dask.set_scheduler(self))

    def close(self, timeout: float | str | None = None) -> None:  # noqa: ARG002  (distributed's)
        """Let everything go; a cluster that the client started for itself ends."""
        if self.status == "closed":
            return
        self.status = "closed"
        self._leave()
        if self in _open:
            _open.remove(self)
        for restore in self._restore:
            restore()
        if self._callbacks is not None:
            self._callbacks.put(None)
        if self._owns_cluster:
            self.cluster.close()

    def _leave(self) -> None:
        """Give up all futures with the last client of a connection; what runs for them ends."""
        loop = self._loop
        with loop.lock:
            loop.clients -= 1
            if loop.clients or loop.closed or loop.failure is not None:
                return
            records = list(loop.core.records.values())
            for record in records:
                loop.core.cancel(record)
            if records:
                loop.core.to_scheduler(m.ReleaseKeys([record.key for record in records]))
        if records:
            loop.flush_soon()

    def shutdown(self) -> None:
        """Close the client and end its cluster; in a job, the ranks end with the script."""
        self.close()
        self.cluster.close()

    @contextmanager
    def as_current(self) -> Iterator[Self]:
        """Be the client that `Client.current()` finds in this context."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def __getattr__(self, name: str) -> Any:
        refuse_attribute(self, name, OF_CLIENTS)

    def get_executor(self, **options: Any) -> ClientExecutor:
        """Return a `concurrent.futures.Executor`; `options` are those of `submit`.

        >>> with client.get_executor(retries=2) as executor:
        ...     list(executor.map(abs, [-1, -2]))
        [1, 2]
        """
        return ClientExecutor(self, options)

    def __deepcopy__(self, _memo: Any) -> Client:
        """A copy of dask's configuration refers to the same client."""
        return self

    def __repr__(self) -> str:
        return inspection.client_text(self)

    def _repr_html_(self) -> str:
        return inspection.client_html(self)

    # --- tasks that are there ---

    def cancel(
        self, futures: Any, force: bool = False, reason: Any = None, msg: Any = None,  # noqa: ARG002
        asynchronous: Any = None,  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Give tasks up, and all that depend on them; running ones end, but do not count.

        Tasks that another client wants go on, unless `force`.
        """
        keys = [future._record.key for future in self._futures_in(futures)]  # noqa: SLF001
        with self.lock:
            for key in keys:
                record = self._loop.core.records.get(key)
                if record is not None:
                    self._loop.core.cancel(record)
            self._loop.core.to_scheduler(m.CancelKeys(keys, force))
        self._loop.flush_soon()

    def restart(
        self, timeout: float | str | None = None, wait_for_workers: bool = True  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Give up all tasks and values of this client, and replace every slot by a new one.

        Its futures are cancelled. What tasks have left in the slots' memory is gone; plugins are
        set up again.

        >>> future = client.submit(abs, -1)
        >>> client.restart()
        >>> future.status
        'cancelled'
        """
        with self.lock:
            futures = [self.make_future(r) for r in self._loop.core.records.values()]
        self.cancel(futures, force=True)
        # The workers must have heard of it before their slots end, or tasks would run again.
        self.ask("info")
        self._run(NOTHING, (), {}, on_error="ignore")
        self.restart_workers()

    def finish_without_futures(self, futures: Sequence[Future]) -> None:
        """Have tasks run to their end even if all their futures go (`fire_and_forget`)."""
        with self.lock:
            keys = [future._record.key for future in futures]  # noqa: SLF001
            self._loop.core.to_scheduler(m.FinishKeys(keys))
        self._loop.flush_soon()

    def future_of(self, key: Key, name: Hashable) -> Future:
        """Return a future of a key that another client has made."""
        core = self._loop.core
        with self.lock:
            record = core.records.get(key)
            if record is None:
                record = FutureRecord(key, str(name), name, None)
                core.add(record, named=False)
                core.to_scheduler(m.WantKeys([key]))
            # A collection that came with the future refers to it by its name.
            core.by_name.setdefault(name, record)
            return self.make_future(record)

    # --- graphs ---

    def get(self, dsk: Any, keys: Any, **options: Any) -> Any:
        """Compute a dask graph and return the values of `keys`, in their nesting.

        With `sync=False` their futures are returned instead.
        """
        from mpicluster.integrations import dask

        return dask.get(self, dsk, keys, **options)

    def compute(self, collections: Any, sync: bool = False, **options: Any) -> Any:
        """Compute dask collections; return futures, or with `sync` the values."""
        from mpicluster.integrations import dask

        return dask.compute(self, collections, sync=sync, **options)

    def persist(self, collections: Any, **options: Any) -> Any:
        """Start computing dask collections on the workers and return ones that refer to them."""
        from mpicluster.integrations import dask

        return dask.persist(self, collections, **options)
