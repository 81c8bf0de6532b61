"""What can a script ask about its cluster?

Who has which value, who works on what, how large and how busy the workers are; as Python values, as
text and as HTML.
"""

from __future__ import annotations

from collections.abc import Hashable
from html import escape
from typing import Any

from mpicluster.client.base import ClientBase
from mpicluster.client.timeouts import to_seconds
from mpicluster.ids import SCHEDULER_RANK, Key, Rank, address_of

_UNITS = ("B", "kiB", "MiB", "GiB", "TiB", "PiB")


class Inspection(ClientBase):
    """The methods of a client that only look."""

    def ask(self, question: str, arguments: list[Any] | None = None) -> Any:
        """Ask the scheduler a question of `scheduler.answers` and return its answer."""
        with self._loop.lock:
            request = self._loop.core.ask(question, arguments or [])
        return self._answer_to(request)

    def _answer_to(self, request: int) -> Any:
        """Wait for an answer of the scheduler and return it."""
        answers = self._loop.core.answers
        self._loop.wait_until(lambda: request in answers)
        return answers.pop(request)

    def _keys_of(self, futures: Any) -> list[Key]:
        if futures is None:
            return []
        return [future._record.key for future in self._futures_in(futures)]  # noqa: SLF001

    def _ask_about(self, question: str, futures: Any) -> dict[Hashable, Any]:
        """Return the scheduler's answer for these futures' keys; None means all keys."""
        keys = self._keys_of(futures)
        if futures is not None and not keys:  # the scheduler would answer for all keys
            return {}
        return {self._name(key): found for key, found in self.ask(question, keys).items()}

    def _name(self, key: Key, otherwise: Hashable = None) -> Hashable:
        record = self._loop.core.records.get(key)
        if record is not None:
            return record.name
        return key if otherwise is None else otherwise

    def who_has(self, futures: Any = None) -> dict[Hashable, list[Rank]]:
        """Return {key: ranks of the workers that hold its value}, for some or all values.

        Values that only the computation needs have numbers in the place of names.
        """
        return self._ask_about("who_has", futures)

    def has_what(self, workers: Any = None) -> dict[Rank, list[Hashable]]:
        """Return {rank: keys of the values that it holds}."""
        found = self.ask("has_what", self._ranks(workers))
        return {rank: [self._name(key) for key in keys] for rank, keys in found.items()}

    def processing(self, workers: Any = None) -> dict[Rank, list[Hashable]]:
        """Return {rank: keys of the tasks that it has been given and has not finished}.

        Those that are of another client, or only needed for others, have a number after the prefix.
        """
        found = self.ask("processing", self._ranks(workers))
        return {
            rank: [self._name(key, f"{prefix}-{key}") for key, prefix in rows]
            for rank, rows in found.items()
        }

    def nbytes(self, keys: Any = None, summary: bool = True) -> dict[Hashable, int]:
        """Return how many bytes some or all values have: {prefix: their sum}, or {key: bytes}
        without `summary`. `keys` are futures.
        """
        if not summary:
            return self._ask_about("nbytes", keys)
        numbers = self._keys_of(keys)
        if keys is not None and not numbers:
            return {}
        sums: dict[Hashable, int] = self.ask("nbytes_of_prefixes", numbers)
        return sums

    def nthreads(self, workers: Any = None) -> dict[Rank, int]:
        """Return {rank: how many tasks it runs at the same time}."""
        chosen = self._ranks(workers)
        return {w["rank"]: int(w["slots"]) for w in self._workers() if w["rank"] in chosen}

    #: The older name in `distributed`.
    ncores = nthreads

    def scheduler_info(self, n_workers: int = -1) -> dict[str, Any]:  # noqa: ARG002
        """Return the workers with sizes and metrics, and the counts of tasks by state and prefix.

        `workers` are known by their ranks. Sizes are in bytes, times in seconds.
        """
        info = self.ask("info")
        for rank, worker in info["workers"].items():
            worker.update(
                type="Worker", id=rank, name=rank, address=address_of(rank),
                nthreads=worker["slots"], status="paused" if worker["paused"] else "running",
            )  # fmt: skip
        address = address_of(SCHEDULER_RANK)
        return {"type": "Scheduler", "id": "Scheduler-0", "address": address, **info}

    def story(self, *futures: Any) -> list[list[Any]]:
        """Return the last state changes of keys: rows (time in seconds, cause, key, old, new)."""
        rows = self.ask("story", self._keys_of(list(futures)))
        return [[now, cause, self._name(key), old, new] for now, cause, key, old, new in rows]

    def wait_for_workers(
        self, n_workers: int = 0, timeout: float | str | None = None
    ) -> None:
        """Wait until all workers have started; more than the job has are refused at once."""
        seconds = to_seconds(timeout)
        if seconds is None:
            seconds = self._loop.config.start_timeout_s
        core = self._loop.core
        if not self._loop.wait_until(lambda: core.workers is not None, seconds):
            raise TimeoutError(
                f"The workers had not all started after {seconds:g} seconds. Look for errors of "
                "the other ranks in the job's output; slow file systems need a larger "
                "start_timeout_s."
            )
        if n_workers > len(self._workers()):
            raise ValueError(
                f"{n_workers} workers were asked for, but the cluster has {len(self._workers())} "
                "and its size is fixed. Start it with more ranks."
            )


def format_bytes(nbytes: float) -> str:
    """Return a size as people read it.

    >>> format_bytes(3 * 2**30)
    '3.00 GiB'
    """
    for unit in _UNITS:
        if nbytes < 1024 or unit == _UNITS[-1]:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1024
    raise AssertionError("the last unit takes every size")


def totals(workers: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Return the numbers of workers and slots, and the memory in bytes."""
    return len(workers), sum(w["slots"] for w in workers), sum(w["memory_limit"] for w in workers)


def client_text(client: Any) -> str:
    """Return the line that a client prints."""
    if client.status == "closed":
        return "<Client: closed>"
    count, slots, memory = totals(client._workers())  # noqa: SLF001
    return (
        f"<Client: {client.cluster.kind}, {count} workers, {slots} slots, "
        f"{format_bytes(memory)} memory>"
    )


def client_html(client: Any) -> str:
    """Return what a notebook shows of a client."""
    return f"<h3>Client</h3><p>{escape(client_text(client))}</p>{client.cluster._repr_html_()}"
