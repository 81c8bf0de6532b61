"""How does code that wants a `concurrent.futures.Executor` use a cluster?"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import TYPE_CHECKING, Any

from mpicluster.client.future import Future

if TYPE_CHECKING:
    from mpicluster.client.client import Client


class ClientExecutor(futures.Executor):
    """An executor of the standard library whose calls are tasks of a cluster.

    Made by `client.get_executor(**options)`; the options are those of `client.submit`.
    """

    def __init__(self, client: Client, options: dict[str, Any]) -> None:
        self._client = client
        self._options = {"pure": False, **options}
        #: {future given out: the task's future} of calls that have not ended.
        self._running: dict[futures.Future[Any], Future] = {}
        self._closed = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> futures.Future[Any]:
        """Run `fn(*args, **kwargs)` on a worker; its future is one of `concurrent.futures`."""
        if self._closed:
            raise RuntimeError("The executor was shut down; it takes no new calls.")
        task = self._client.submit(fn, *args, **self._options, **kwargs)
        given = _TaskFuture(task)
        self._running[given] = task
        given.add_done_callback(self._forget)
        task.add_done_callback(given.take)
        return given

    def _forget(self, given: futures.Future[Any]) -> None:
        self._running.pop(given, None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those that run, or cancel them."""
        self._closed = True
        running = list(self._running)
        if cancel_futures:
            for given in running:
                given.cancel()
        if wait:
            futures.wait(running)


class _TaskFuture(futures.Future[Any]):
    """A future of the standard library; cancelling it gives the task up, as long as it runs."""

    def __init__(self, task: Future) -> None:
        super().__init__()
        self._task: Future | None = task

    def cancel(self) -> bool:
        """Give the task up; return False if it has ended."""
        cancelled = super().cancel()
        task, self._task = self._task, None
        if cancelled and task is not None:
            task.cancel()
        return cancelled

    def take(self, task: Future) -> None:
        """Take over how the task has ended."""
        if not self.set_running_or_notify_cancel():
            return
        error = task.exception()
        if error is None:
            try:
                self.set_result(task.result())
            except BaseException as problem:  # noqa: BLE001  (whatever unpickling it may raise)
                error = problem.with_traceback(None)  # this frame holds the future
        if error is not None:
            self.set_exception(error)
        self._task = None
