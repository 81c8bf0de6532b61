"""What do `workers=`, `resources=`, `retries=` and `priority=` mean for the tasks of a call?

Host names become ranks here, and wishes that no worker can ever meet are errors here.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

from mpicluster.errors import NoValidWorkerError
from mpicluster.ids import Rank, address_of
from mpicluster.messages import NO_OPTIONS, TaskOptions

#: The scheduler orders tasks by one number of 64 bits, of which the priority is the upper 16.
PRIORITY_MAX = 32_000
#: More is a mistake, and every message must be able to carry it.
RETRIES_MAX = 1_000_000_000


def make_options(
    described: Sequence[Mapping[str, Any]],
    workers: Any = None,
    allow_other_workers: bool = False,
    resources: Mapping[str, float] | None = None,
    retries: int | None = None,
    priority: int = 0,
) -> TaskOptions:
    """Return checked options; `described` are the workers of the cluster."""
    tries = _whole("retries", retries, 0, RETRIES_MAX)
    urgency = _whole("priority", priority, -PRIORITY_MAX, PRIORITY_MAX)
    pairs = _needs(resources)
    if workers is None and not pairs and not tries and not urgency:
        return NO_OPTIONS
    ranks: list[Rank] = []
    if workers is not None:
        ranks = find_ranks(described, workers, preferred=allow_other_workers)
    options = TaskOptions(tuple(ranks), bool(allow_other_workers), pairs, tries, urgency)
    if pairs:
        _check_resources(described, options)
    return options


def _whole(name: str, value: Any, least: int, most: int) -> int:
    """Return a number that every message can carry; None is 0."""
    if value is None:
        return 0
    if not isinstance(value, Integral) and not (isinstance(value, float) and value.is_integer()):
        raise TypeError(f"{name} is {value!r}; it must be a whole number.")
    number = int(value)
    if not least <= number <= most:
        raise ValueError(f"{name} is {number}; it must be from {least} to {most}.")
    return number


def _needs(resources: Any) -> tuple[tuple[str, float], ...]:
    """Return what a task needs, sorted, without what it needs nothing of."""
    if not resources:
        return ()
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources is {resources!r}; give a dict, such as {{'GPU': 1}}.")
    for name, need in resources.items():
        if not isinstance(need, Real):
            raise TypeError(f"The task asks for {need!r} of the resource {name!r}; give a number.")
        if need < 0 or not math.isfinite(need):
            raise ValueError(
                f"The task asks for {need} of the resource {name!r}; give a finite number from 0."
            )
    return tuple(sorted((str(name), float(need)) for name, need in resources.items() if need))


def _check_resources(described: Sequence[Mapping[str, Any]], options: TaskOptions) -> None:
    wanted = dict(options.resources)
    anywhere = replace(options, workers=()) if options.allow_other_workers else options
    if preferred_workers(described, anywhere):
        return
    offers = {worker["rank"]: worker.get("resources") or {} for worker in described[:8]}
    raise NoValidWorkerError(
        f"The task asks for the resources {wanted}, but no worker that it may use has them; the "
        f"workers offer {offers}. Start the cluster with resources, for example "
        "`mpicluster run --resources GPU=1`, or ask for less."
    )


def preferred_workers(
    described: Sequence[Mapping[str, Any]], options: TaskOptions
) -> list[Mapping[str, Any]]:
    """Return the workers that tasks with these options name and whose resources suffice."""
    named, wanted = frozenset(options.workers), dict(options.resources)
    return [
        worker
        for worker in described
        if (not named or worker["rank"] in named)
        and all((worker.get("resources") or {}).get(name, 0) >= wanted[name] for name in wanted)
    ]


def find_ranks(
    described: Sequence[Mapping[str, Any]], workers: Any, *, preferred: bool = False
) -> list[Rank]:
    """Return the ranks that a user means by ranks, host names, addresses or a list of them.

    One that is not there is an error, unless it would only be `preferred`.
    """
    wanted = [workers] if isinstance(workers, int | str) else list(_flat(workers))
    ranks: dict[Rank, None] = {}
    for name in wanted:
        found = [worker["rank"] for worker in described if name in _names(worker)]
        if not found and not preferred:
            hosts = sorted({str(worker["host"]) for worker in described})
            raise NoValidWorkerError(
                f"There is no worker {name!r}. Workers are named by rank "
                f"({', '.join(str(w['rank']) for w in described[:16])}) or by host "
                f"({', '.join(hosts[:16])})."
            )
        ranks.update(dict.fromkeys(found))
    return list(ranks)


def _names(worker: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a user may call a worker."""
    rank = worker["rank"]
    return rank, str(rank), address_of(rank), worker["host"]


def _flat(workers: Iterable[Any]) -> Iterable[Any]:
    for worker in workers:
        if isinstance(worker, list | tuple | set):
            yield from worker
        else:
            yield worker
