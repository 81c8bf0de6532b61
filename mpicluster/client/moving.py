"""How does a client move values to and from the workers?"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, KeysView, ValuesView
from typing import Any

from mpicluster import messages as m
from mpicluster.client import gathering
from mpicluster.client.containers import CONTAINERS, rebuild
from mpicluster.client.future import Future, raise_error_of, raise_lost
from mpicluster.client.inspection import Inspection
from mpicluster.client.records import CANCELLED, ERROR, FINISHED, FutureRecord
from mpicluster.ids import Key
from mpicluster.serialization.frames import to_frames


class Moving(Inspection):
    """The methods of a client that gather, scatter and replicate."""

    def gather(
        self, futures: Any, errors: str = "raise", direct: bool | None = None  # noqa: ARG002
    ) -> Any:
        """Return the values of futures, in the shape of the containers that hold them.

        Those of an iterator or of `dict.values()` come as a list. With `errors="skip"` futures
        without a value are left out of containers, in a named tuple they are None; by default
        the first error is raised.

        >>> client.gather({"small": client.submit(min, 3, 4), "large": client.submit(max, 3, 4)})
        {'small': 3, 'large': 4}
        """
        if errors not in ("raise", "skip"):
            raise ValueError(f"errors is {errors!r}; it must be 'raise' or 'skip'.")
        if isinstance(futures, Iterator | KeysView | ValuesView):
            futures = list(futures)
        found = {f._record.key: f._record for f in self._futures_in(futures)}  # noqa: SLF001
        left = deque(found.values())

        def over() -> bool:
            """Return whether all are done, or the first that is not has an error to raise."""
            while left and left[0].done and (left[0].status is FINISHED or errors == "skip"):
                left.popleft()
            return not left or left[0].done

        self._loop.wait_until(over)
        if left:
            raise_error_of(left[0])
        finished = [record for record in found.values() if record.status is FINISHED]
        values = gathering.fetch_values(self._loop, finished)
        return _put_values_in(futures, values)

    def scatter(
        self,
        data: Any,
        workers: Any = None,
        broadcast: bool = False,
        direct: bool | None = None,  # noqa: ARG002
        hash: bool = True,  # noqa: A002
        timeout: float | str | None = None,  # noqa: ARG002
    ) -> Any:
        """Send values to workers and return their futures, in the shape of `data`.

        A list or range becomes a list of futures, a tuple, a set or a dict one of futures; anything
        else one future. `workers` are ranks or host names that take turns. With `broadcast` each
        value goes to all of them, through a tree.

        >>> numbers = client.scatter({"numbers": [1, 2, 3]})["numbers"]
        >>> client.submit(sum, numbers).result()
        6
        """
        self._check_open()
        if isinstance(data, Iterator):
            raise TypeError(
                f"scatter was given a {type(data).__name__}, which cannot travel to another "
                "process. Give it a list: client.scatter(list(values))."
            )
        if isinstance(data, dict):
            names = list(data)
            futures = self._scatter([data[name] for name in names], workers, broadcast, hash, names)
            return dict(zip(names, futures, strict=True))
        if isinstance(data, list | tuple | set | frozenset | range):
            futures = self._scatter(list(data), workers, broadcast, hash, None)
            return futures if isinstance(data, list | range) else rebuild(data, futures)
        return self._scatter([data], workers, broadcast, hash, None)[0]

    def _scatter(
        self,
        values: list[Any],
        workers: Any,
        broadcast: bool,
        by_content: bool,
        names: list[Hashable] | None,
    ) -> list[Future]:
        core, ranks = self._loop.core, self._ranks(workers)
        if not ranks:
            raise ValueError("scatter was given no workers; leave `workers` out to use all.")
        futures: list[Future] = []
        new: list[tuple[FutureRecord, Any]] = []
        for number, value in enumerate(values):
            frames = to_frames(value, self.config.inline_bytes_max)
            token = ("scattered", frames) if by_content and isinstance(frames, bytes) else None
            with self.lock:
                name = names[number] if names is not None else None
                known = core.by_name.get(name) if name is not None else core.by_token.get(token)
                # A name that is given again means the new value; older futures keep theirs.
                renewed = name is not None and known is not None and (
                    token is None or known.token != token
                )
                if known is None or renewed or known.status in (ERROR, CANCELLED):
                    prefix = type(value).__name__
                    known = FutureRecord(core.next_number(), prefix, name, token)
                    core.add(known, named=name is not None)
                    new.append((known, frames))
                futures.append(self.make_future(known))
        # Values scattered one by one go to the workers in turn as well.
        turn = next(self._loop.turns) % len(ranks) if len(ranks) > 1 else 0
        gathering.put_values(self._loop, new, ranks[turn:] + ranks[:turn])
        if broadcast and new:
            self.replicate(futures, workers=workers)
        return futures

    def replicate(self, futures: Any, n: int | None = None, workers: Any = None) -> None:
        """Copy values to `n` of the workers (default: all of them) and wait for the copies.

        Workers that are lost meanwhile are not waited for. Raises what a future's task raised,
        `CancelledError` for a cancelled future, `LostValueError` for a value whose last worker is
        lost before it has been copied, and `ValueError` if there would be no copy at all.

        >>> future = client.submit(sum, [1, 2])
        >>> client.replicate([future])
        """
        ranks = self._ranks(workers)[:n] if n is None or n > 0 else []
        if not ranks:
            raise ValueError(
                f"replicate was asked for n={n} copies on workers={workers}, which is none. Give "
                "n of at least 1, and at least one worker."
            )
        found = {future._record.key: future for future in self._futures_in(futures)}  # noqa: SLF001
        keys = list(found)
        for future in found.values():
            self.wait_for_record(future._record, None)  # noqa: SLF001
            raise_error_of(future._record)  # noqa: SLF001
        if not keys:
            return
        with self.lock:
            request = self._loop.core.next_number()
            self._loop.core.to_scheduler(m.ReplicateKeys(keys, ranks, request))
        for key in self._answer_to(request):
            raise_lost(found[key]._record)  # noqa: SLF001


def _put_values_in(shape: Any, values: dict[Key, Any]) -> Any:
    """Return `shape` with values in the place of futures; futures without one leave lists."""
    if isinstance(shape, Future):
        return values.get(shape._record.key)  # noqa: SLF001
    if isinstance(shape, dict):
        return rebuild(shape, [
            (name, _put_values_in(item, values))
            for name, item in shape.items()
            if _has_value(item, values)
        ])  # fmt: skip
    if isinstance(shape, tuple) and hasattr(shape, "_fields"):
        return rebuild(shape, [_put_values_in(item, values) for item in shape])
    if isinstance(shape, CONTAINERS):
        return rebuild(
            shape, [_put_values_in(item, values) for item in shape if _has_value(item, values)]
        )
    return shape


def _has_value(item: Any, values: dict[Key, Any]) -> bool:
    return not isinstance(item, Future) or item._record.key in values  # noqa: SLF001
