"""What must a system be able to do to take part, and how does a dask-like client do it?"""

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from mpicluster.bench import work
from mpicluster.bench.graphs import Graph

#: Abilities: computes graphs; runs dask's collections; moves values and holds them; lets the
#: script choose the worker; has a scheduler of its own in rank 0; tells which future is done.
GRAPHS: Final = "graphs"
COLLECTIONS: Final = "collections"
VALUES: Final = "values"
PLACES: Final = "places"
SCHEDULER: Final = "scheduler"
FIRST: Final = "first"


class Backend(ABC):
    """One system that runs tasks, as the cases see it. Futures are whatever it calls so."""

    #: How tables name it.
    name: str
    abilities: frozenset[str] = frozenset()
    #: Results are those of the functions; not so where workers answer without computing.
    exact = True
    #: Tasks that run at the same time.
    slots = 1

    @abstractmethod
    def map(self, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        """Start one task per item; return their futures."""

    @abstractmethod
    def gather(self, futures: Any) -> list[Any]:
        """Return the results of futures, in their order."""

    @abstractmethod
    def submit(self, function: Callable[..., Any], *args: Any, place: Any = None) -> Any:
        """Start one task, on the worker `place` if one is named; return its future."""

    @abstractmethod
    def result(self, future: Any) -> Any:
        """Return the result of one future."""

    def wait(self, future: Any) -> None:
        """Wait until a future is done, without taking its result."""
        raise NotImplementedError

    def wait_for_first(self, futures: Any) -> None:
        """Wait until the first of the futures is done."""
        raise NotImplementedError

    def get(self, graph: Graph) -> Any:
        """Compute a graph and return what its last task returns."""
        raise NotImplementedError

    def places(self) -> list[Any]:
        """Return the workers."""
        raise NotImplementedError

    def scatter(self, value: Any, place: Any = None, everywhere: bool = False) -> Any:
        """Give a value to a worker or to all; return its future."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let what the last run has left behind come to its end."""
        self.result(self.submit(work.identity, 0))

    def close(self) -> None:  # noqa: B027  (most have nothing to let go)
        """Let the system go."""


class ClientBackend(Backend):
    """mpicluster, and distributed, whose client has the same methods."""

    def __init__(self, name: str, client: Any, as_completed: Callable[[Any], Iterable[Any]]):
        self.name = name
        self.client = client
        self.slots = sum(client.nthreads().values())
        self._as_completed = as_completed
        self._serial = itertools.count()
        self.abilities = frozenset(
            {GRAPHS, COLLECTIONS, VALUES, PLACES, SCHEDULER, FIRST} if _has_dask()
            else {VALUES, PLACES, SCHEDULER, FIRST}
        )  # fmt: skip

    def settle(self) -> None:
        """Let what the last run has left behind come to its end; a task alone may go past it."""
        super().settle()
        self.client.processing()  # the scheduler answers after it has taken what was released ...
        if self.exact:
            self.client.run(int)  # ... and told the workers

    def map(self, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        """Start one task per item."""
        return self.client.map(function, items, pure=False)

    def gather(self, futures: Any) -> list[Any]:
        """Return the results of futures."""
        found: list[Any] = self.client.gather(futures)
        return found

    def submit(self, function: Callable[..., Any], *args: Any, place: Any = None) -> Any:
        """Start one task."""
        workers = None if place is None else [place]
        return self.client.submit(function, *args, pure=False, workers=workers)

    def result(self, future: Any) -> Any:
        """Return the result of one future."""
        return future.result()

    def wait(self, future: Any) -> None:
        """Wait until a future is done."""
        for _ in self._as_completed([future]):
            pass

    def wait_for_first(self, futures: Any) -> None:
        """Wait until the first of the futures is done."""
        next(iter(self._as_completed(futures)))

    def get(self, graph: Graph) -> Any:
        """Compute a graph; its names are new, so that nothing is known from the last run."""
        plain, wanted = graph.to_dict(f"bench-{os.getpid()}-{next(self._serial)}")
        return self.client.get(plain, wanted)

    def places(self) -> list[Any]:
        """Return the workers."""
        return sorted(self.client.nthreads())

    def scatter(self, value: Any, place: Any = None, everywhere: bool = False) -> Any:
        """Give a value to a worker or to all."""
        workers = None if place is None else [place]
        return self.client.scatter(value, workers=workers, broadcast=everywhere, hash=False)


def _has_dask() -> bool:
    from importlib.util import find_spec

    return find_spec("dask") is not None
