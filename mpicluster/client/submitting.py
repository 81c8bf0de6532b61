"""How does a client turn calls into tasks?"""

from __future__ import annotations

import pickle
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import suppress
from itertools import islice
from typing import Any

from mpicluster.absent import refuse_actors
from mpicluster.client import submission
from mpicluster.client.arguments import (
    COMPARED_BYTES_MAX,
    UNDER_WAY_BYTES_MAX,
    LargeArgument,
    LargeArguments,
    large_bytes,
)
from mpicluster.client.collector import rare_collections
from mpicluster.client.containers import PLAIN, has_futures, replace_futures
from mpicluster.client.future import Future
from mpicluster.client.moving import Moving
from mpicluster.client.options import make_options
from mpicluster.client.records import ERROR, FutureRecord
from mpicluster.errors import ClusterClosedError
from mpicluster.ids import FunctionId, Key
from mpicluster.messages import TaskOptions

#: Calls of a `map` that are made while the lock is held: enough to make its cost small.
CALLS_PER_LOCK = 100
#: The inputs of a call without any, shared by all of them.
NO_INPUTS: list[Key] = []


class Submitting(Moving):
    """The methods of a client that make tasks of functions."""

    def submit(
        self,
        func: Callable[..., Any],
        *args: Any,
        key: Hashable | None = None,
        workers: Any = None,
        resources: Mapping[str, float] | None = None,
        retries: int | None = None,
        priority: int = 0,
        fifo_timeout: Any = None,  # noqa: ARG002  (distributed's signature)
        allow_other_workers: bool = False,
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        **kwargs: Any,
    ) -> Future:
        """Run `func(*args, **kwargs)` on a worker and return its future.

        Futures among the arguments, also inside containers, stand for their values. With `pure`,
        an equal call of this client that is still known shares one task (calls of other clients,
        and inside tasks, have tasks of their own); say `pure=False` for functions that
        give another result each time. `workers` are ranks or host names, with
        `allow_other_workers` those that are preferred, `resources` what the task holds of each
        worker's, `retries` how often it may raise, and of two tasks that could run the one with
        the larger `priority` runs first.

        Raises `TaskSerializationError` if something cannot be pickled and `NoValidWorkerError`
        if no worker can ever run the task.

        >>> client.submit(pow, 2, 10).result()
        1024
        """
        if not callable(func):
            raise TypeError(
                f"submit was given {func!r} as the function to run, which cannot be called. The "
                "function comes first, then its arguments: client.submit(f, 1, 2)."
            )
        refuse_actors(actor or actors)
        options = make_options(
            self._workers(), workers, allow_other_workers, resources, retries, priority
        )
        prefix = submission.function_name(func)
        with self.lock:
            self._check_open()
            large = LargeArguments(self, options)
            buffer = submission.TaskBuffer(self._loop, options, large)
            function = self.functions.number(func, prefix)
            future = self._add_call(buffer, function, prefix, args, kwargs, key, pure)
            buffer.send()  # or an equal call could wait for a task that was never sent
        self._send_all(buffer)
        return future

    def map(
        self,
        func: Callable[..., Any],
        *iterables: Iterable[Any],
        key: str | Sequence[Hashable] | None = None,
        workers: Any = None,
        retries: int | None = None,
        resources: Mapping[str, float] | None = None,
        priority: int = 0,
        allow_other_workers: bool = False,
        fifo_timeout: Any = None,  # noqa: ARG002
        actor: bool = False,
        actors: bool = False,
        pure: bool = True,
        batch_size: int | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> list[Future]:
        """Run `func` on each element of the iterables and return the futures in their order.

        The first tasks run while the last are still being sent. `key` is a prefix or one name per
        task; the other arguments mean what they mean for `submit`. Keyword arguments are the same
        for all tasks; large ones are sent once.

        >>> client.gather(client.map(pow, [1, 2, 3], [2, 2, 2]))
        [1, 4, 9]
        """
        if not callable(func):
            raise TypeError(
                f"map was given {func!r} as the function to run, which cannot be called. The "
                "function comes first, then the iterables: client.map(f, range(10))."
            )
        refuse_actors(actor or actors)
        if not iterables:
            raise ValueError("map needs at least one iterable: client.map(f, range(10)).")
        options = make_options(
            self._workers(), workers, allow_other_workers, resources, retries, priority
        )
        prefix = key if isinstance(key, str) else submission.function_name(func)
        names = iter(key) if key is not None and not isinstance(key, str) else None
        _check_lengths(key, iterables)
        kwargs = self._scatter_large_kwargs(kwargs, options)
        futures: list[Future] = []
        buffer = submission.TaskBuffer(self._loop, options, LargeArguments(self, options))
        self._loop.check()
        with self.lock:
            function = self.functions.number(func, prefix)
        calls = zip(*iterables, strict=False)
        try:
            with rare_collections():
                while chunk := list(islice(calls, CALLS_PER_LOCK)):
                    futures += self._add_calls(
                        buffer, function, prefix, chunk, kwargs, names, pure
                    )
                    if buffer.large.under_way:
                        # What makes the next calls may use the same memory for other values.
                        self._send_all(buffer)
        except BaseException:
            # Equal calls must not wait for tasks that were never sent.
            with suppress(ClusterClosedError):
                self._loop.check()
                self._send_all(buffer)
            raise
        self._send_all(buffer)
        return futures

    def _send_all(self, buffer: submission.TaskBuffer) -> None:
        """Send what there is; return when the memory of large arguments is not used any more."""
        with self.lock:
            buffer.send()
        self._loop.flush_soon()
        buffer.large.wait()

    def send_full(self, buffer: submission.TaskBuffer) -> None:
        """Send a full message; wait while the scheduler has too many before it."""
        with self.lock:
            buffer.send()
        self._loop.turn()
        buffer.large.wait(UNDER_WAY_BYTES_MAX)
        if self._loop.core.backlog > self.config.submit_credits:
            self._loop.wait_until(
                lambda: self._loop.core.backlog <= self.config.submit_credits // 2
            )

    def _scatter_large_kwargs(
        self, kwargs: dict[str, Any], options: TaskOptions
    ) -> dict[str, Any]:
        """Scatter large keyword arguments once for all tasks of a `map`."""
        limit = large_bytes(self.config)
        return {
            name: self.scatter([value], workers=[self.next_rank(options)], hash=False)[0]
            if not has_futures(value, Future) and submission.is_large(value, limit) else value
            for name, value in kwargs.items()
        }  # fmt: skip

    def _add_calls(
        self,
        buffer: submission.TaskBuffer,
        function: FunctionId,
        prefix: str,
        calls: list[tuple[Any, ...]],
        kwargs: dict[str, Any],
        names: Iterator[Hashable] | None,
        pure: bool,
    ) -> list[Future]:
        """Turn calls of one function into tasks."""
        futures = []
        with self.lock:
            self._check_open()
            for args in calls:
                name = _next_name(names) if names is not None else None
                futures.append(self._add_call(
                    buffer, function, prefix, args, kwargs, name, pure
                ))
                if buffer.full:
                    self.send_full(buffer)
            buffer.large.forget()
        return futures

    def _add_call(
        self,
        buffer: submission.TaskBuffer,
        function: FunctionId,
        prefix: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: Hashable | None,
        pure: bool,
    ) -> Future:
        """Turn one call into a task, or find the task of an equal call; under the lock."""
        core = self._loop.core
        if name is not None and name in core.by_name:
            return self.make_future(core.by_name[name])
        payload, inputs = self._pickle_call(buffer.large, prefix, args, kwargs)
        token = _token(function, payload, inputs) if name is None and pure else None
        if token is not None:
            known = core.by_token.get(token)
            if known is not None and known.status is not ERROR:
                return self.make_future(known)
        keys = buffer.large.to_keys(inputs) if inputs else NO_INPUTS
        key = core.next_number()
        record = FutureRecord(key, prefix, name, token)
        core.add(record, named=name is not None)
        buffer.add(key, function, payload, keys, True)
        return self.make_future(record)

    def _pickle_call(
        self,
        large: LargeArguments,
        prefix: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[bytes, Collection[Key | LargeArgument]]:
        """Return the payload of a call and its inputs."""
        if not kwargs and PLAIN.issuperset(map(type, args)):
            # Most calls of a long `map`; what follows would find nothing in them.
            payload = pickle.dumps((args, kwargs), 5)
            if len(payload) <= large.limit:
                return payload, NO_INPUTS
        inputs = submission.InputList()
        if has_futures(args, Future) or (
            kwargs and has_futures(kwargs, Future)
        ):
            args = replace_futures(args, Future, inputs.add, self._loop)
            kwargs = replace_futures(kwargs, Future, inputs.add, self._loop)
        payload = submission.dump_call(args, kwargs, inputs, large, prefix)
        return payload, inputs.keys


def _token(
    function: FunctionId, payload: bytes, inputs: Collection[Key | LargeArgument]
) -> tuple[Any, ...] | None:
    """Return what is equal for equal calls, None if comparing would take long."""
    if not inputs:
        return function, payload, ()
    large = [found for found in inputs if isinstance(found, LargeArgument)]
    if not large:
        return function, payload, tuple(inputs)
    if sum(argument.nbytes for argument in large) > COMPARED_BYTES_MAX:
        return None
    return function, payload, tuple([
        found.digest() if isinstance(found, LargeArgument) else found for found in inputs
    ])


def _check_lengths(key: Any, iterables: Sequence[Any]) -> None:
    """Refuse names of another number than the calls, where both are known before any is made."""
    if isinstance(key, Sized) and not isinstance(key, str):
        lengths = [len(items) for items in iterables if isinstance(items, Sized)]
        if len(lengths) == len(iterables) and len(key) != min(lengths):
            raise ValueError(
                f"map was given {len(key)} names as key for {min(lengths)} calls. Give one name "
                "per call, or a text that all names begin with."
            )


def _next_name(names: Iterator[Hashable]) -> Hashable:
    """Return the name of the next call of a `map`."""
    for name in names:
        return name
    raise ValueError(
        "map was given fewer names as key than there are calls. Give one name per call, or a text "
        "that all names begin with."
    )
