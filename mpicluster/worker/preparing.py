"""What must a worker have before its rank connects?

Both come from children of its process. Where MPI is not initialised yet these can be forks, which
is not safe later.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mpicluster.config import Config
from mpicluster.worker.arena_file import open_arena_file
from mpicluster.worker.spawning import PRELOAD, ZygoteLink, start_zygote


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a worker begins with."""

    zygote: ZygoteLink
    #: The file of its arena.
    arena_fd: int


def prepare_worker(
    config: Config, paths: Iterable[str] = (), modules: Iterable[str] = PRELOAD,
    patience_s: float = 0.0,
) -> Prepared:  # fmt: skip
    """Open a worker's arena file and start its zygote; the options are those of `start_zygote`."""
    arena_fd, _ = open_arena_file(config.huge_pages)
    return Prepared(start_zygote(config.threads_per_slot, paths, modules, patience_s), arena_fd)
