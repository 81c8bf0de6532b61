"""What is to be said when the ranks do not answer, or not all of them do?

Pure functions, as in `findings.py`.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final

from mpicluster.doctor.findings import Finding, Level, count
from mpicluster.ids import Rank
from mpicluster.worker.slots import describe_end

#: Ranks that a sentence names.
RANKS_NAMED_MAX: Final = 8
#: Lines of a launcher's own words that are repeated: the first of them name the cause.
LINES_MAX: Final = 6
#: Longer lines are cut, so that the report stays on a screen.
LINE_LENGTH_MAX: Final = 160


class Stage(Enum):
    """How far a rank has come."""

    LOOK = "looking at its host"
    LOAD = "loading the MPI library"
    INITIALISE = "MPI_Init"
    CONNECT = "the first exchange of all ranks"
    MEASURE = "sending messages between the ranks"
    LEAVE = "MPI_Finalize"


_ADVICE: Final = {
    Stage.LOOK: "See whether the file system with Python, or scratch, is slow or does not answer.",
    Stage.LOAD: "Load the module of the MPI that mpi4py was compiled for; `ldd` of mpi4py's MPI "
    "file tells which libraries are missing.",
    Stage.INITIALISE: "Look at what was printed above this report. Try one host (--nodes 1, or the "
    "launcher's option) and add hosts until it fails again; on a large job give --timeout more "
    "seconds.",
    Stage.CONNECT: "The ranks know of each other but cannot talk: see whether a firewall lies "
    "between the hosts, and tell MPI which network to use (OMPI_MCA_btl_tcp_if_include, "
    "FI_TCP_IFACE, UCX_NET_DEVICES).",
    Stage.MEASURE: "See whether these ranks still run, and whether their hosts can reach each "
    "other; leave their hosts out.",
    Stage.LEAVE: "Jobs work, but may be slow to end; tell MPI which network to use, or another "
    "transport.",
}  # fmt: skip


class NoAnswer(Exception):  # noqa: N818  (it is an answer that is missing)
    """Some ranks have not answered in time."""

    def __init__(self, ranks: Iterable[Rank]) -> None:
        self.ranks = sorted(ranks)
        super().__init__(self.ranks)


def ending(status: int) -> str:
    """Return how a process ended, from its exit status or minus a signal's number.

    >>> ending(14)
    'it ended with status 14'
    """
    return describe_end(status) if status < 0 else f"it ended with status {status}"


def in_ranks(ranks: list[Rank]) -> str:
    """Return ranks in words.

    >>> in_ranks([3]), in_ranks([3, 4])
    ('rank 3', 'ranks 3, 4')
    """
    named = ", ".join(str(rank) for rank in ranks[:RANKS_NAMED_MAX])
    if len(ranks) > RANKS_NAMED_MAX:
        named += f" and {len(ranks) - RANKS_NAMED_MAX} more"
    return f"rank {named}" if len(ranks) == 1 else f"ranks {named}"


def too_late(stage: Stage, size: int, timeout_s: float) -> Finding:
    """Return what is to be said if rank 0 did not get any further in time."""
    found = f"Rank 0 has not come further than {stage.value} within {timeout_s:g} s."
    if stage is Stage.INITIALISE:
        found += (
            f" The launcher promised {count(size, 'rank')}: at least one of them has not started, "
            "has ended, or cannot be reached."
        )
    return Finding("ranks", Level.PROBLEM, found, _ADVICE[stage])


def ranks_missing(stage: Stage, ranks: list[Rank], size: int) -> Finding:
    """Return what is to be said if some ranks did not answer rank 0."""
    return Finding(
        "ranks", Level.PROBLEM,
        f"Of {count(size, 'rank')}, {in_ranks(ranks)} did not answer rank 0 in time while it was "
        f"at {stage.value}.", _ADVICE[stage],
    )  # fmt: skip


def ended_early(stage: Stage, how: str) -> Finding:
    """Return what is to be said if rank 0's process ended before it had reported."""
    return Finding(
        "ranks", Level.PROBLEM, f"Rank 0 ended during {stage.value}: {how}.", _ADVICE[stage]
    )


def no_promise() -> Finding:
    """Return what is to be said if the launcher tells its processes nothing."""
    return Finding(
        "ranks", Level.PROBLEM,
        "The launcher does not tell its processes how many ranks there are and which rank each of "
        "them is: none of the variables of Open MPI, PMI, MVAPICH and srun is set.",
        "Use the launcher of your MPI; under srun use `srun --mpi=pmix` or `--mpi=pmi2`.",
    )  # fmt: skip


def launcher_too_late(command: str, timeout_s: float, words: str) -> Finding:
    """Return what is to be said if no rank has reported to the launcher in time."""
    return Finding(
        "ranks", Level.PROBLEM,
        f"No rank has reported within {timeout_s:g} s of `{command}`.{_quoted(words)}",
        "Run the command by hand. See whether the hosts can be reached (ssh without a password, "
        "or the batch system's own way) and have this Python; give --timeout more seconds.",
    )  # fmt: skip


def launcher_failed(command: str, how: str, words: str) -> Finding:
    """Return what is to be said if the launcher ended and no rank has reported."""
    return Finding(
        "ranks", Level.PROBLEM,
        f"No rank has reported to `{command}`: {how}.{_quoted(words)}",
        "Run the command by hand and see what it says. Often the launcher belongs to another MPI, "
        "or a host lacks this Python.",
    )  # fmt: skip


def _quoted(words: str) -> str:
    """Return what the launcher has said, shortened."""
    lines = [line.strip() for line in words.splitlines() if line.strip(" -=\t")]
    if not lines:
        return " It has said nothing."
    kept = [line[:LINE_LENGTH_MAX] for line in lines[:LINES_MAX]]
    return f" It says: {' | '.join(kept)}{' ...' if len(lines) > LINES_MAX else ''}"
