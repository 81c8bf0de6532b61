"""Which hosts has the batch system given to this job?

Reads the environment of Slurm, PBS, SGE and LSF and the files that it names; starts nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpicluster.errors import WorldError

#: How a nodelist of Slurm groups numbers: n[1-3,7] (srun(1), "hostlist").
_BRACKETS: Final = re.compile(r"^([^\[]*)\[([0-9,-]+)\](.*)$")
_NUMBERS: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
#: No machine has so many.
_HOSTS_MAX: Final = 1_000_000
#: The last number in a name.
_NUMBERED: Final = re.compile(r"^(.*?)(\d+)(\D*)$")


@dataclass(frozen=True, slots=True)
class Allocation:
    """The hosts of a job and the cores granted on each; `system` is "" outside of a job."""

    system: str
    hosts: tuple[str, ...]
    cores: tuple[int, ...]
    #: The cores are what was granted; False: the batch system may have granted more.
    exact: bool = False

    def granted(self) -> dict[str, int]:
        """Return {host without its domain: cores} where that is known, else {}.

        >>> Allocation("sge", ("n1.site", "n2.site"), (4, 2), exact=True).granted()
        {'n1': 4, 'n2': 2}
        """
        if not self.exact:
            return {}
        return dict(zip(map(short_name, self.hosts), self.cores, strict=True))


def short_name(host: str) -> str:
    """Return a host's name without its domain."""
    return host.partition(".")[0]


def find_allocation(environment: Mapping[str, str]) -> Allocation:
    """Return the allocation that this process runs in."""
    for reader in (_slurm, _pbs, _sge, _lsf):
        found = reader(environment)
        if found is not None:
            return found
    return Allocation("", (), ())


def expand_hostlist(text: str) -> list[str]:
    """Return the host names of a list as Slurm writes it.

    Raises `WorldError` for what is none.

    >>> expand_hostlist("n[1-3,07],login")
    ['n1', 'n2', 'n3', 'n07', 'login']
    """
    hosts: list[str] = []
    if text.count("[") != text.count("]"):
        raise _damaged(f"The list of hosts {text!r}")
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        found = _BRACKETS.match(part)
        if found is None:
            if "[" in part or "]" in part:
                raise _damaged(f"The list of hosts {text!r}")
            hosts.append(part)
            continue
        before, numbers, after = found.groups()
        for number in numbers.split(","):
            span = _NUMBERS.fullmatch(number)
            first, last = (span[1], span[2] or span[1]) if span else ("1", "0")
            if not 0 <= int(last) - int(first) < _HOSTS_MAX:
                raise _damaged(f"The list of hosts {text!r}")
            for value in range(int(first), int(last) + 1):
                hosts += expand_hostlist(f"{before}{value:0{len(first)}d}{after}")
    return hosts


def _damaged(what: str) -> WorldError:
    """Return the error for words of a batch system that cannot be read."""
    return WorldError(
        f"{what}, which the batch system has given to this job, cannot be read. Start the job "
        "anew; if it stays so, show this to the administrators of the batch system."
    )


def fold_hostlist(hosts: Sequence[str]) -> str:
    """Return host names as Slurm writes them; `expand_hostlist` gives them back.

    >>> fold_hostlist(["n1", "n2", "n3", "n07", "login"])
    'n[1-3,07],login'
    """
    #: Runs of names that differ by the number before the suffix alone: (prefix, suffix, [[first
    #: number as it is written, last number], ...]).
    runs: list[tuple[str, str, list[tuple[str, int]]]] = []
    for host in hosts:
        found = _NUMBERED.match(host)
        if found is None:
            runs.append((host, "", []))
            continue
        before, digits, after = found.groups()
        if not runs or runs[-1][:2] != (before, after) or not runs[-1][2]:
            runs.append((before, after, []))
        numbers = runs[-1][2]
        value = int(digits)
        if numbers and value == numbers[-1][1] + 1 and digits == f"{value:0{len(numbers[-1][0])}d}":
            numbers[-1] = numbers[-1][0], value
        else:
            numbers.append((digits, value))
    return ",".join(_write_run(*run) for run in runs)


def _write_run(before: str, after: str, numbers: list[tuple[str, int]]) -> str:
    parts = [
        first if int(first) == last else f"{first}-{last:0{len(first)}d}" for first, last in numbers
    ]
    alone = len(parts) == 1 and "-" not in parts[0]
    inside = parts[0] if alone else f"[{','.join(parts)}]" if parts else ""
    return before + inside + after


def _slurm(environment: Mapping[str, str]) -> Allocation | None:
    nodes = environment.get("SLURM_JOB_NODELIST")
    if not nodes or "SLURM_JOB_ID" not in environment:
        return None
    hosts = expand_hostlist(nodes)
    cores: list[int] = []
    # SLURM_JOB_CPUS_PER_NODE is like "4(x2),2": four cores on two nodes, two on the third.
    for part in environment.get("SLURM_JOB_CPUS_PER_NODE", "").split(","):
        found = re.match(r"^(\d+)(?:\(x(\d+)\))?$", part)
        if found:
            cores += [int(found[1])] * int(found[2] or 1)
    exact = len(cores) == len(hosts)
    if not exact:
        cores = [1] * len(hosts)
    return Allocation("slurm", tuple(hosts), tuple(cores), exact)


def _counted(system: str, names: list[str]) -> Allocation:
    """Return an allocation from one name per core."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return Allocation(system, tuple(counts), tuple(counts.values()))


def _read_lines(path: str, system: str) -> list[str]:
    try:
        lines = [line for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise WorldError(
            f"The job's list of hosts, which {system} names as {path!r}, cannot be read: {error}. "
            "Start the script from the job script, on the first host of the job."
        ) from error
    if not lines:
        raise _damaged(f"The empty list of hosts {path!r}")
    return lines


def _pbs(environment: Mapping[str, str]) -> Allocation | None:
    path = environment.get("PBS_NODEFILE")
    if not path:
        return None
    found = _counted("pbs", [line.strip() for line in _read_lines(path, "PBS")])
    cores = environment.get("NCPUS", "")
    # With mpiprocs=1 a host is listed once however many cores it has; NCPUS says how many.
    if cores.isdigit() and all(count == 1 for count in found.cores):
        return Allocation("pbs", found.hosts, (int(cores),) * len(found.hosts))
    return found


def _sge(environment: Mapping[str, str]) -> Allocation | None:
    path = environment.get("PE_HOSTFILE")
    if not path:
        return None
    # A host has a line for each queue that gives slots on it.
    counts: dict[str, int] = {}
    for line in _read_lines(path, "Grid Engine"):
        host, slots, *_ = [*line.split(), ""]
        if not _NUMBERS.fullmatch(slots):
            raise _damaged(f"The line {line!r} of the list of hosts {path!r}")
        counts[host] = counts.get(host, 0) + int(slots)
    return Allocation("sge", tuple(counts), tuple(counts.values()), exact=True)


def _lsf(environment: Mapping[str, str]) -> Allocation | None:
    words = environment.get("LSB_MCPU_HOSTS", "").split()
    if not words:
        return None
    hosts, cores = words[::2], words[1::2]
    if len(hosts) != len(cores) or not all(map(str.isdecimal, cores)):
        raise _damaged(f"The list of hosts {' '.join(words)!r}")
    return Allocation("lsf", tuple(hosts), tuple(map(int, cores)))
