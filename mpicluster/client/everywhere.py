"""How does a client run a function on all workers, beside their tasks?"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from typing import Any

from mpicluster import messages as m
from mpicluster.client.submitting import Submitting
from mpicluster.errors import LostRankError, VersionMismatchError
from mpicluster.ids import SCHEDULER_RANK, SLOT_CLIENTS
from mpicluster.serialization.exceptions import from_error
from mpicluster.serialization.frames import dumps, loads
from mpicluster.versions import differences, installed_versions, local_versions

#: A call that does nothing, and that needs no import in slots.
NOTHING: Callable[..., Any] = bool


def takes_worker(function: Callable[..., Any]) -> bool:
    """Return whether a function wants to be told its worker, as `distributed` does it."""
    try:
        return "dask_worker" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False  # some built-in functions have no signature


class Everywhere(Submitting):
    """The methods of a client that concern each worker."""

    def run(
        self, function: Callable[..., Any], *args: Any, workers: Any = None, wait: bool = True,
        nanny: bool = False, on_error: str = "raise", **kwargs: Any,  # noqa: ARG002
    ) -> Any:  # fmt: skip
        """Run a function now, beside all tasks, in every slot of each worker.

        Returns {rank: result of one slot}. A function with a parameter `dask_worker` gets what
        `get_worker()` returns there. With `on_error="return"` an exception takes the place
        of the result, with `"ignore"` the worker is left out.
        """
        if on_error not in ("raise", "return", "ignore"):
            raise ValueError(
                f"on_error is {on_error!r}; it must be 'raise', 'return' or 'ignore'."
            )
        return self._run(function, args, kwargs, workers, wait=wait, on_error=on_error)

    def _run(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any],
        workers: Any = None, *, wait: bool = True, on_error: str = "raise", keep: str = "",
        forget: str = "",
    ) -> Any:  # fmt: skip
        """Run a function in every slot; `keep` and `forget` as in `RunFunction`."""
        name = getattr(function, "__name__", "function")
        if takes_worker(function) and "dask_worker" not in kwargs:
            from mpicluster.tasks import call_with_worker  # it needs clients itself

            function, args = call_with_worker, (function, *args)
        if self._loop.transport.rank >= SLOT_CLIENTS:
            raise ValueError(
                f"A task was to run {name!r} in all slots of some workers (run, restart_workers, "
                "plugins, uploads), which only the client of the script can do. Submit a task to a "
                "worker instead: client.submit(function, workers=[rank], pure=False)."
            )
        code = dumps((function, args, kwargs))
        requests: dict[int, int] = {}
        with self.lock:
            self._check_open()
            for rank in self._ranks(workers):
                request = self._loop.core.next_number()
                requests[request] = rank
                self._loop.core.to_worker(rank, m.RunFunction(request, code, keep, forget))
        if not wait:
            self._loop.turn()
            return None
        loop = self._loop
        lost = loop.core.lost_workers
        loop.wait_until(lambda: all(n in loop.ran or rank in lost for n, rank in requests.items()))
        results: dict[int, Any] = {}
        for request, rank in requests.items():
            ran = loop.ran.pop(request, None)
            if ran is None:
                if on_error == "raise":
                    raise LostRankError(rank, lost[rank])
                if on_error == "return":
                    results[rank] = LostRankError(rank, lost[rank])
            elif ran.error is None:
                results[rank] = loads(ran.value)
            elif on_error == "raise":
                raise from_error(ran.error, name)
            elif on_error == "return":
                results[rank] = from_error(ran.error)
        return results

    def restart_workers(self, workers: Any = None) -> None:
        """Replace every slot of these workers by a new one; tasks that run there run again."""
        self._run(os._exit, (0,), {}, workers, on_error="ignore")

    def get_versions(
        self, check: bool = False, packages: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return the versions of the packages that matter: of client, scheduler and each worker.

        `packages` names further ones. With `check` a difference raises
        `VersionMismatchError`, which names the hosts.
        """
        ours = local_versions()
        workers = {worker["rank"]: worker["versions"] for worker in self._workers()}
        if packages := list(packages or ()):
            ours = ours | installed_versions(packages)
            found_there = self.run(installed_versions, packages)
            workers = {rank: known | found_there[rank] for rank, known in workers.items()}
        scheduler = self.cluster.versions
        if check:
            hosts = {worker["rank"]: str(worker["host"]) for worker in self._workers()}
            hosts[SCHEDULER_RANK] = self.cluster.scheduler_host()
            # The scheduler has no slot that could be asked for further packages.
            found = differences(ours, {SCHEDULER_RANK: ours | scheduler, **workers}, hosts)
            if found:
                raise VersionMismatchError("\n".join(found))
        return {"client": ours, "scheduler": scheduler, "workers": workers}
