"""How does nothing of an MPI library stay in /dev/shm, however a rank ends?

Ranks of a host share memory through files there. MPI_Finalize removes them, but a rank that ends by
a signal never reaches it. So the names go as soon as all ranks of the host have mapped the files:
what has no name is gone with the last process that uses it (unlink(2)).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

_FOLDER: Final = "/dev/shm/"
#: What this process had mapped before MPI: that is the user's.
_others: set[str] = set()


def shared_files(process: int | str = "self") -> set[str]:
    """Return the files in /dev/shm that a process has mapped, by the names they still have."""
    paths = set()
    with open(f"/proc/{process}/maps") as maps:  # noqa: PTH123
        for line in maps:
            if _FOLDER in line:
                path = line.split(maxsplit=5)[-1].rstrip("\n")
                if path.startswith(_FOLDER) and not path.endswith(" (deleted)"):
                    paths.add(path)
    return paths


def note_others() -> None:
    """Note what this process has mapped before it initialises MPI."""
    _others.update(shared_files())


def files_of_mpi() -> set[str]:
    """Return the files of the MPI library that this process has mapped."""
    return shared_files() - _others


def files_of_hosts(
    hosts: Sequence[str], files_of_ranks: Sequence[set[str]]
) -> dict[str, set[str]] | None:
    """Return the files that all ranks of each host have mapped, given host and files of each rank.

    None: on one of them ranks have files, but none together, so that not all of its ranks share
    memory, and only MPI knows which do.

    >>> files_of_hosts(["a", "a", "b"], [{"x", "y"}, {"y"}, {"x"}])
    {'a': {'y'}, 'b': {'x'}}
    >>> files_of_hosts(["a", "a"], [{"x"}, {"y"}]) is None
    True
    """
    found: dict[str, set[str]] = {}
    for host, files in zip(hosts, files_of_ranks, strict=True):
        found[host] = found[host] & files if host in found else files
    some = {host for host, files in zip(hosts, files_of_ranks, strict=True) if files}
    return found if all(found[host] for host in some) else None


def remove_names(paths: Iterable[str]) -> None:
    """Remove the names of files that all ranks which may need them have mapped."""
    for path in paths:
        Path(path).unlink(missing_ok=True)


def remove_shared_files(process: int | str = "self") -> None:
    """Remove the names of all files of a process whose MPI no other rank shares."""
    for path in shared_files(process) - _others:
        Path(path).unlink(missing_ok=True)
