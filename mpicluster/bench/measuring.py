"""In which order is what measured, and how often?"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from mpicluster.bench.backends import Backend
from mpicluster.bench.case import Case, LeftOut, sizes_of
from mpicluster.bench.rows import Row

#: Time that one row may take, after which its runs are not repeated.
ROW_S_MAX: Final = {"tiny": 5.0, "quick": 4.0, "all": 45.0}
#: A size that would take longer than this, going by the one before, is left out.
RUN_S_MAX: Final = {"tiny": 60.0, "quick": 15.0, "all": 240.0}
#: Or longer than this share of the minutes that were given: the other cases are worth more.
RUN_SHARE_MAX: Final = 0.1
#: After this time no new case begins.
ALL_S_MAX: Final = {"tiny": 60.0, "quick": 48.0, "all": 3600.0}
REPEATS: Final = {"tiny": 1, "quick": 3, "all": 5}
#: Units of sizes with which the time of a run grows.
GROW_WITH_SIZE: Final = frozenset({"tasks", "bytes", "chunks", "partitions"})
#: Smaller values take as long as one of so many bytes: what counts is the way of a task.
FIRST_BYTES: Final = 1_000_000
#: What has a size at this level is done once at that size before it is measured.
WARM_LEVEL: Final = "tiny"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    level: str
    repeats: int
    #: Time for the whole, in seconds.
    seconds: float
    #: A size of which one run would take longer is left out.
    run_s_max: float


def make_plan(level: str, repeats: int | None, minutes: int | None = None) -> Plan:
    """Return a plan; `repeats` and `minutes` instead of the level's own numbers."""
    seconds, run_s_max = ALL_S_MAX[level], RUN_S_MAX[level]
    if minutes is not None:
        seconds = 60.0 * minutes
        run_s_max = min(run_s_max, RUN_SHARE_MAX * seconds)
    return Plan(level, repeats or REPEATS[level], seconds, run_s_max)


def measure(
    backend: Backend, cases: Iterable[Case], plan: Plan, show: Callable[[Row], None],
    spent_s: float = 0.0,
) -> list[Row]:  # fmt: skip
    """Measure cases on a backend, telling each row to `show` as soon as it is known.

    `spent_s` of the time for the whole have gone already.
    """
    rows: list[Row] = []
    able = [case for case in cases if case.needs <= backend.abilities]
    left = sum(len(sizes_of(case, plan.level)) for case in able)
    clock = Clock(plan.level, time.monotonic() + plan.seconds - spent_s, left)
    for case in able:
        for row in _measure_case(backend, case, plan, clock):
            rows.append(row)
            show(row)
    return rows


@dataclass(slots=True)
class Clock:
    """Shares the time that is left among the rows that are left."""

    level: str
    end: float
    rows_left: int

    def next_row(self) -> float:
        """Return how long the next row may take in all its runs."""
        share = (self.end - time.monotonic()) / max(1, self.rows_left)
        self.rows_left -= 1
        return min(ROW_S_MAX[self.level], share)


def _measure_case(backend: Backend, case: Case, plan: Plan, clock: Clock) -> Iterator[Row]:
    """Yield a row per size."""
    last_s, last_size = 0.0, 1
    for position, size in enumerate(sizes_of(case, plan.level)):
        row = Row(backend.name, case.name, size, case.unit, [], "", case.size_unit)
        expected_s = last_s * _growth(case.size_unit, last_size, size)
        row_s = clock.next_row()
        if row_s <= 0:
            yield _without(row, "left out: the time for the whole is over")
            continue
        if expected_s > plan.run_s_max:
            yield _without(row, f"left out: one run would take about {expected_s:.0f} s")
            continue
        try:
            if position == 0 and plan.level != WARM_LEVEL and WARM_LEVEL in case.sizes:
                case.measure(backend, case.sizes[WARM_LEVEL][0])
            values, last_s = _runs(backend, case, size, plan, row_s)
            last_size = max(1, size)
        except LeftOut as reason:
            yield _without(row, f"left out: {reason}")
        except Exception as error:  # noqa: BLE001  (the other cases are still worth their time)
            text = str(error).strip().split("\n")[0]
            yield _without(row, f"failed: {type(error).__name__}: {text}")
            return
        else:
            yield Row(row.contender, row.case, size, row.unit, values, "", row.size_unit)


def _growth(unit: str, last_size: int, size: int) -> float:
    """Return how many times as long a run of the next size may take."""
    if unit not in GROW_WITH_SIZE:
        return 1.0
    least = FIRST_BYTES if unit == "bytes" else 1
    return max(size, least) / max(last_size, least)


def _runs(
    backend: Backend, case: Case, size: int, plan: Plan, row_s: float
) -> tuple[list[float], float]:
    """Return the figures of the runs that fit, and the time that one took."""
    values: list[float] = []
    if not case.first_counts:
        case.measure(backend, size)
        backend.settle()
    begin = time.monotonic()
    while True:
        values.append(case.measure(backend, size))
        backend.settle()
        passed = time.monotonic() - begin
        one_s = passed / len(values)
        full = len(values) >= min(plan.repeats, case.runs_max)
        if full or passed + one_s > row_s:
            return values, one_s


def _without(row: Row, note: str) -> Row:
    return Row(row.contender, row.case, row.size, row.unit, [], note, row.size_unit)
