"""What is a case: work of one kind, and how is it measured?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mpicluster.bench.backends import Backend
from mpicluster.errors import MpiclusterError

#: How much is measured. "tiny" only shows that everything works, "quick" takes less than a minute.
LEVELS: Final = ("tiny", "quick", "all")


@dataclass(frozen=True, slots=True)
class Case:
    """Work that any backend with the right abilities can do.

    `measure(backend, size)` does it once and returns the figure in `unit`. A level without sizes
    leaves the case out.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Backend, int], float]
    #: {level: sizes}.
    sizes: Mapping[str, tuple[int, ...]]
    #: What `size` counts.
    size_unit: str = "tasks"
    #: What the backend must be able to do.
    needs: frozenset[str] = field(default_factory=frozenset)
    #: Runs of a case that takes its time by definition, like one that waits.
    runs_max: int = 1000
    #: The first run of a size is not counted: it is given memory that the others use again.
    first_counts: bool = True


class LeftOut(Exception):  # noqa: N818  (no error: the row says so and the next case follows)
    """This case cannot be measured here; the text says why."""


def choose(cases: Sequence[Case], level: str, only: Sequence[str]) -> list[Case]:
    """Return the cases that have sizes at a level and, if `only` is given, a name in it."""
    known = [case.name for case in cases]
    wrong = [name for name in only if name not in known]
    if wrong:
        raise MpiclusterError(
            f"There is no benchmark {', '.join(wrong)}. --only takes names with commas between "
            f"them; known are {', '.join(known)}."
        )
    return [
        case for case in cases
        if (not only or case.name in only) and (case.sizes.get(level) or only)
    ]  # fmt: skip


def sizes_of(case: Case, level: str) -> tuple[int, ...]:
    """Return the sizes at a level, or those of the next larger one that has some."""
    for name in LEVELS[LEVELS.index(level) :]:
        if case.sizes.get(name):
            return case.sizes[name]
    return ()
