"""Which cases are there?"""

from typing import Final

from mpicluster.bench import behaviour, dask_work, data_plane, overhead, patterns
from mpicluster.bench.case import Case

#: In the order in which they are run and shown: if time is short, the last ones are left out.
CASES: Final[tuple[Case, ...]] = (
    *behaviour.MEMORY_CASES,
    *overhead.CASES,
    *dask_work.CASES,
    *data_plane.CASES,
    *behaviour.CASES,
    *overhead.GRAPH_CASES,
    *patterns.CASES,
    *overhead.MANY_CASES,
)
#: Measured from outside, by starting jobs.
LAUNCH: Final = "launch"


def case_of(name: str) -> Case:
    """Return the case of a name."""
    return next(case for case in CASES if case.name == name)


def title_of(name: str) -> str:
    """Return what a case is, in words."""
    if name == LAUNCH:
        return "from the command that starts the ranks to the first result"
    return case_of(name).title
