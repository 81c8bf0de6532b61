"""How many cores and how much memory may the worker ranks of a host use?

Cores come from the CPU affinity and the cgroup's quota, memory from the cgroup's limit and the
host's memory (cgroups(7), files cpu.max and memory.max); ranks that share a host share both.
"""

import math
import os
import platform
from contextlib import suppress
from pathlib import Path

import psutil

from mpicluster.errors import ConfigError

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "k": 2**10, "m": 2**20, "g": 2**30,
    "t": 2**40,
}  # fmt: skip
#: Share of the host's memory that is left to the system, MPI and the ranks themselves.
MEMORY_SHARE = 0.95
#: A worker's own memory and that of each slot with numpy and pandas, measured as 25 to 60 MB each,
#: with what a first task needs. With less the worker would be paused for ever.
WORKER_NBYTES = 100_000_000
SLOT_NBYTES = 50_000_000


def available_cores() -> int:
    """Return the cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_cores()
    return max(1, min(cores, quota) if quota is not None else cores)


def host_identity() -> str:
    """Return what two processes have in common that can open each other's files below /proc.

    The host's name and the boot of its kernel, the process namespace (namespaces(7)) and the user.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").readlink()
    return f"{platform.node()} {boot} {namespace} {os.getuid()}"


def available_memory() -> int:
    """Return the bytes of memory that this process and its relatives may use."""
    total = int(psutil.virtual_memory().total)
    limit = _cgroup_memory()
    return int(min(total, limit) * MEMORY_SHARE) if limit is not None else int(total * MEMORY_SHARE)


def process_limit() -> int | None:
    """Return how many processes the cgroup permits, None if it says nothing (pids.max)."""
    return min((int(text) for text in _limits("pids.max") if text.isdigit()), default=None)


def share_cores(cores: int, workers: int) -> list[int]:
    """Return the slots of each of `workers` that share `cores`, at least one each.

    >>> share_cores(8, 3)
    [3, 3, 2]
    """
    return [max(1, cores // workers + (number < cores % workers)) for number in range(workers)]


def parse_bytes(text: str | float) -> int:
    """Return a size in bytes.

    >>> parse_bytes("4GB"), parse_bytes("1 GiB")
    (4000000000, 1073741824)
    """
    return int(_to_bytes(text))


def _to_bytes(text: str | float) -> float:
    """Return a size in bytes, with what is left of a byte."""
    try:
        if isinstance(text, int | float):
            amount = float(text)
        else:
            compact = text.replace(" ", "").lower()
            digits = compact.rstrip("abcdefghijklmnopqrstuvwxyz")
            amount = float(digits) * _UNITS[compact[len(digits) :]]
        if math.isfinite(amount):
            return amount
    except (KeyError, ValueError):
        pass
    raise ConfigError(
        f"The size {text!r} is not understood; write it like 4GB, 512MiB or 1000000000."
    )


def given_limit(limit: str | float | None) -> str | float | None:
    """Return a memory limit, None if it says that a worker is to have all there is for it.

    `distributed` says that by its default "auto" and by 0.

    >>> given_limit("auto"), given_limit("0"), given_limit("4GB")
    (None, None, '4GB')
    """
    if limit is None or (isinstance(limit, str) and limit.strip().lower() == "auto"):
        return None
    return limit if _to_bytes(limit) else None


def parse_memory_limit(text: str | float, slots: int) -> int:
    """Return a worker's limit in bytes; refuse one that its own processes would use up.

    >>> parse_memory_limit("1GB", slots=2)
    1000000000
    """
    amount, least = _to_bytes(text), WORKER_NBYTES + SLOT_NBYTES * slots
    if 0 < amount <= 1:
        raise ConfigError(
            f"The memory limit {text!r} is a share, as distributed takes them, but here a limit is "
            "a size in bytes. Write it like 4GB, or leave it out: the workers of a host share its "
            "memory then."
        )
    limit = int(amount)
    if limit < least:
        raise ConfigError(
            f"The memory limit {text!r} is less than a worker with {slots} "
            f"{'slot' if slots == 1 else 'slots'} needs for its own processes, so that no task "
            f"would ever run. Give each worker at least {least // 10**6}MB, or fewer slots."
        )
    return limit


def _own_cgroup() -> Path | None:
    """Return the folder of this process's cgroup (version 2), if it can be seen."""
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                return Path("/sys/fs/cgroup") / path.lstrip("/")
    except OSError:
        return None
    return None


def _limits(name: str) -> list[str]:
    """Return the contents of a file of this cgroup and of all that it lies in."""
    found, folder = [], _own_cgroup()
    while folder is not None and str(folder).startswith("/sys/fs/cgroup"):
        with suppress(OSError):
            found.append((folder / name).read_text().strip())
        folder = folder.parent if folder != Path("/sys/fs/cgroup") else None
    return found


def _cgroup_cores() -> int | None:
    quotas = []
    for text in _limits("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max" and period:
            quotas.append(max(1, round(int(quota) / int(period))))
    return min(quotas, default=None)


def _cgroup_memory() -> int | None:
    limits = [int(text) for text in _limits("memory.max") if text != "max"]
    old = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroup version 1
    with suppress(OSError, ValueError):
        limits.append(int(old.read_text()))
    return min(limits, default=None)
