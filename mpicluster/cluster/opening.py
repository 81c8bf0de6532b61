"""With which lines does the log of a job begin?

Says once what was started: ranks, roles, hosts, slots, memory, versions. Hosts that are alike share
a line, so that a thousand of them need no more than a few. Pure functions.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mpicluster.client.inspection import format_bytes
from mpicluster.cluster.allocation import fold_hostlist
from mpicluster.cluster.roles import Role, role_of
from mpicluster.ids import CLIENT_RANK, Rank

#: Lines about hosts. With workers that are alike there are two; a job on mixed hosts has some more.
HOST_LINES_MAX = 8
#: Longest list of hosts in a line; names without numbers do not fold.
HOSTS_WIDTH_MAX = 50


def describe_world(
    infos: Sequence[Mapping[str, Any]],
    slots: Mapping[Rank, int],
    memory: Mapping[Rank, int],
    library: str,
) -> str:
    """Return the lines that open a job's log.

    `infos` (host and versions) is in rank order; `slots` and `memory`, the limit in bytes, are
    those of each worker rank; `library` is what MPI says of itself.
    """
    ranks: dict[str, list[Rank]] = {}
    for rank, info in enumerate(infos):
        ranks.setdefault(info["host"], []).append(rank)
    alike: dict[str, list[str]] = {}
    for host, here in ranks.items():
        alike.setdefault(_describe_host(here, slots, memory), []).append(host)
    lines = [f"  {_name(hosts)}: {text}" for text, hosts in alike.items()]
    if len(lines) > HOST_LINES_MAX:
        left = sum(len(hosts) for hosts in list(alike.values())[HOST_LINES_MAX - 1 :])
        lines[HOST_LINES_MAX - 1 :] = [f"  and {left} hosts with other numbers"]
    versions = infos[CLIENT_RANK]["versions"]
    return "\n".join(
        [
            f"mpicluster: {len(infos)} ranks on {_count(len(ranks), 'host')}: 1 scheduler, "
            f"1 client, {_count(len(slots), 'worker')} with {_count(sum(slots.values()), 'slot')}",
            *lines,
            f"  mpicluster {versions['mpicluster']}, Python {versions['python']}, "
            f"{library_name(library)}",
        ]
    )


def library_name(text: str) -> str:
    """Return the short name of an MPI.

    >>> library_name("Open MPI v5.0.11, package: Open MPI user@localhost Distribution")
    'Open MPI 5.0.11'
    >>> library_name("MPICH Version:      5.0.2")
    'MPICH 5.0.2'
    """
    return re.sub(r"\s+(?:Version:?\s*|v(?=\d))", " ", text.partition(",")[0]).strip()


def _describe_host(
    ranks: Sequence[Rank], slots: Mapping[Rank, int], memory: Mapping[Rank, int]
) -> str:
    """Return what runs on a host; workers that are alike are counted."""
    parts = [role_of(rank).value for rank in ranks if role_of(rank) is not Role.WORKER]
    workers: dict[tuple[int, int], int] = {}
    for rank in ranks:
        if role_of(rank) is Role.WORKER:
            kind = slots[rank], memory[rank]
            workers[kind] = workers.get(kind, 0) + 1
    for (count, nbytes), number in workers.items():
        text = f"{_count(number, 'worker')} with {_count(count, 'slot')} and {format_bytes(nbytes)}"
        parts.append(f"{text} memory" + (" each" if number > 1 else ""))
    return ", ".join(parts)


def _name(hosts: Sequence[str]) -> str:
    """Return the names of hosts, shortened if they are many."""
    if len(hosts) == 1:
        return hosts[0]
    folded = fold_hostlist(hosts)
    if len(folded) > HOSTS_WIDTH_MAX:
        return f"each of {len(hosts)} hosts, {hosts[0]} to {hosts[-1]}"
    return f"each of {folded}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
