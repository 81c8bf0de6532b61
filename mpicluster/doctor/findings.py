"""What do the facts mean, and what is to be done?

Pure functions from facts to findings, one for each topic; `network.py` has those about messages
and clocks. They measure nothing. A problem is what would make a cluster, or tasks in it, fail; a
note is what makes it slower or smaller than it could be.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from mpicluster.cluster.launch import library_family
from mpicluster.cluster.roles import CORES_TO_SHARE, memory_shares, worker_slots
from mpicluster.doctor.facts import LibraryFacts, RankFacts, WorldFacts
from mpicluster.ids import FIRST_WORKER_RANK
from mpicluster.versions import differences
from mpicluster.worker.scratch import UNSUITABLE

#: Hosts that a sentence names.
HOSTS_NAMED_MAX: Final = 4
#: A slot needs about this much for Python, numpy and pandas before a task has made anything.
SLOT_BYTES_MIN: Final = 512 << 20
#: MPI libraries take up to about this much of /dev/shm for each rank of a host.
SHM_BYTES_PER_RANK: Final = 64 << 20
#: File systems that live in memory: what is spilled there does not leave it.
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
#: Descriptors of a worker beside those of its slots, with room for an MPI library's own.
OPEN_FILES_BESIDE: Final = 128
#: A worker's ends of the two sockets of a slot, and as many for one that takes its place.
OPEN_FILES_PER_SLOT: Final = 4
#: Processes of a worker beside its slots, with room for those that tasks start.
PROCESSES_BESIDE: Final = 16


class Level(Enum):
    """How bad a finding is."""

    GOOD = "good"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    level: Level
    #: What was found, in sentences.
    found: str
    #: What to do about it, "" if there is nothing to do.
    advice: str = ""


def describe_world(world: WorldFacts) -> list[Finding]:
    """Return what is to be said about the ranks and their hosts, but for messages and clocks."""
    ranks = world.ranks
    return [
        library(world.library), thread_level(world), *versions(ranks), *binding(ranks),
        cores(ranks), *memory(ranks), *slots(ranks), *shared_memory(ranks), *huge_pages(ranks),
        *scratch(ranks), *limits(ranks),
    ]  # fmt: skip


def describe_host(facts: RankFacts) -> list[Finding]:
    """Return what is to be said about this machine where no rank answers for its host."""
    ranks = [facts]
    return [
        cores(ranks), *memory(ranks), *slots(ranks), *shared_memory(ranks), *huge_pages(ranks),
        *scratch(ranks), *limits(ranks),
    ]  # fmt: skip


def from_error(topic: str, error: Exception) -> Finding:
    """Return an error of ours as a problem; its last sentence says what to do.

    >>> from_error("launcher", ValueError("There is none. Load its module.")).advice
    'Load its module.'
    """
    found, _, advice = str(error).rpartition(". ")
    return Finding(topic, Level.PROBLEM, f"{found}." if found else advice, advice if found else "")


def note(topic: str, sentences: str) -> Finding:
    """Return sentences as a note; the last one says what to do."""
    found, _, advice = sentences.rpartition(". ")
    return Finding(topic, Level.NOTE, f"{found[0].upper()}{found[1:]}.", advice)


def on_hosts(hosts: Iterable[str]) -> str:
    """Return the hosts in words.

    >>> on_hosts(["n1", "n2", "n1"])
    'n1 and n2'
    """
    names = list(dict.fromkeys(hosts))
    if len(names) > HOSTS_NAMED_MAX:
        left = len(names) - HOSTS_NAMED_MAX
        names = [*names[:HOSTS_NAMED_MAX], f"{left} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def in_bytes(nbytes: float) -> str:
    """Return a size in words.

    >>> in_bytes(8_400_000_000), in_bytes(64_000_000)
    ('8.4 GB', '64 MB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if nbytes >= size:
            value = nbytes / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{nbytes / 1e3:.0f} kB"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "host"), count(2, "host")
    ('1 host', '2 hosts')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _judged(
    ranks: Sequence[RankFacts], judge: Callable[[RankFacts], Finding | None], good: Finding
) -> list[Finding]:
    """Return what `judge` finds, each finding once with its hosts, or `good` if it finds none."""
    hosts: dict[Finding, list[str]] = {}
    for facts in ranks:
        found = judge(facts)
        if found is not None:
            hosts.setdefault(found, []).append(facts.host)
    several = len({facts.host for facts in ranks}) > 1
    return [
        replace(found, found=f"On {on_hosts(names)}: {found.found}") if several else found
        for found, names in hosts.items()
    ] or [good]


# --- MPI -------------------------------------------------------------------------------------


def library(facts: LibraryFacts) -> Finding:
    """Is the MPI that was loaded the one that mpi4py was compiled for?"""
    loaded = " ".join(facts.library.split(",")[0].split())
    if library_family(facts.library) != library_family(facts.built_for):
        return Finding(
            "MPI", Level.PROBLEM,
            f"mpi4py {facts.mpi4py} was compiled for {facts.built_for}, but has loaded {loaded}; "
            "their binary interfaces differ, so calls may crash or return nonsense.",
            "Load the module of the MPI that mpi4py was compiled for, or compile it anew for this "
            "one: pip install --no-binary mpi4py --force-reinstall mpi4py.",
        )  # fmt: skip
    return Finding(
        "MPI", Level.GOOD,
        f"mpi4py {facts.mpi4py}, compiled for {facts.built_for}, has loaded {loaded} "
        f"(MPI {facts.standard}).",
    )  # fmt: skip


def thread_level(world: WorldFacts) -> Finding:
    """May threads call MPI by turns, as a client and its script do?"""
    if not world.threads_suffice:
        return Finding(
            "threads", Level.PROBLEM,
            f"MPI grants {world.thread_level}, but rank 1 calls MPI from two threads by turns, "
            "which needs MPI_THREAD_SERIALIZED.",
            "Use an MPI that was built with support for threads, and unset variables that lower "
            "its level, like MPICH_THREADLEVEL_DEFAULT or MPIR_CVAR_DEFAULT_THREAD_LEVEL.",
        )  # fmt: skip
    return Finding("threads", Level.GOOD, f"MPI grants {world.thread_level}.")


def versions(ranks: Sequence[RankFacts]) -> list[Finding]:
    """Do all ranks run the same versions?"""
    client = min(FIRST_WORKER_RANK - 1, len(ranks) - 1)
    others = {number: facts.versions for number, facts in enumerate(ranks)}
    hosts = {number: facts.host for number, facts in enumerate(ranks)}
    found = []
    for package, version in ranks[client].versions.items():
        for sentence in differences({package: version}, others, hosts):
            elsewhere = {facts.versions.get(package, "") for facts in ranks}
            level = Level.PROBLEM if _breaks(package, elsewhere) else Level.NOTE
            text, _, advice = sentence.rpartition(". ")
            found.append(Finding("versions", level, f"{text}.", advice))
    named = ", ".join(f"{name} {text}" for name, text in ranks[client].versions.items() if text)
    same = "the same on all ranks" if len(ranks) > 1 else "on the only rank"
    return found or [Finding("versions", Level.GOOD, f"{named}: {same}.")]


def _breaks(package: str, found: set[str]) -> bool:
    """Return whether pickles or messages between these versions may not be understood."""
    if package == "mpicluster" or "" in found:
        return True
    # Compiled code of functions is for one minor version of Python; packages promise that
    # pickles of one major version are understood by all of it.
    parts = 2 if package == "python" else 1
    return len({tuple(version.split(".")[:parts]) for version in found}) > 1


# --- hosts -----------------------------------------------------------------------------------


def _workers(ranks: Sequence[RankFacts]) -> dict[str, list[RankFacts]]:
    """Return the workers of each host, or all ranks where there are too few to have workers."""
    chosen = ranks[FIRST_WORKER_RANK:] or ranks
    hosts: dict[str, list[RankFacts]] = {}
    for facts in chosen:
        hosts.setdefault(facts.host, []).append(facts)
    return hosts


def slots_of(ranks: Sequence[RankFacts]) -> dict[int, int]:
    """Return the slots that each worker would have."""
    hosts = [facts.host for facts in ranks]
    return worker_slots(hosts, [list(facts.affinity[: facts.cores]) for facts in ranks], None)


def binding(ranks: Sequence[RankFacts]) -> list[Finding]:
    """May the workers of each host use all of its cores?"""
    found: dict[str, Finding] = {}
    for host, workers in _workers(ranks).items():
        usable = len({core for facts in workers for core in facts.affinity})
        granted = min(facts.granted_cores for facts in workers)
        if granted >= CORES_TO_SHARE:
            granted -= sum(1 for facts in ranks[:FIRST_WORKER_RANK] if facts.host == host)
        if usable < granted:
            found[host] = Finding(
                "binding", Level.NOTE,
                f"The launcher binds the workers to {usable} of the {workers[0].granted_cores} "
                "cores of the host, and all of their slots with them.",
                "Start the ranks unbound: --bind-to none with Open MPI, -bind-to none with "
                "MPICH, --cpu-bind=none with srun; `mpicluster run` does so.",
            )  # fmt: skip
    kinds = {facts.affinity for facts in ranks}
    text = "No rank is bound to fewer cores than its host offers."
    if len(kinds) > 1 and len({facts.host for facts in ranks}) == 1:
        text = "Ranks are bound to different cores, and together use all of them."
    return _judged(ranks, lambda facts: found.get(facts.host), Finding("binding", Level.GOOD, text))


def cores(ranks: Sequence[RankFacts]) -> Finding:
    """How many slots would the workers have?"""
    shares = slots_of(ranks)
    if not shares:
        facts = ranks[0]
        return Finding("cores", Level.GOOD, f"{facts.host} offers {count(facts.cores, 'core')}.")
    crowded = [
        host
        for host, workers in _workers(ranks).items()
        if len(workers) > len({core for facts in workers for core in facts.affinity[: facts.cores]})
    ]
    if crowded:
        return Finding(
            "cores", Level.NOTE,
            f"There are more workers than cores on {on_hosts(crowded)}, so tasks share cores.",
            "Start fewer ranks; one worker for each host is enough to use all of its cores.",
        )  # fmt: skip
    hosts = len({facts.host for facts in ranks})
    return Finding(
        "cores", Level.GOOD,
        f"{count(len(shares), 'worker')} with {count(sum(shares.values()), 'slot')} on "
        f"{count(hosts, 'host')}.",
    )  # fmt: skip


def memory(ranks: Sequence[RankFacts]) -> list[Finding]:
    """Is there memory for each slot, and is it free?"""
    hosts, total = [facts.host for facts in ranks], [facts.memory_bytes for facts in ranks]
    slot_counts, limits_ = slots_of(ranks), memory_shares(hosts, total)
    per_slot = {rank: limits_[rank] // number for rank, number in slot_counts.items()}
    if not per_slot:
        text = f"{hosts[0]} has {in_bytes(total[0])}."
    else:
        text = (
            f"At least {in_bytes(min(limits_.values()))} for each worker, "
            f"{in_bytes(min(per_slot.values()))} for each slot."
        )
    small = {hosts[rank] for rank, nbytes in per_slot.items() if nbytes < SLOT_BYTES_MIN}

    def judge(facts: RankFacts) -> Finding | None:
        if facts.host in small:
            return Finding(
                "memory", Level.NOTE,
                f"There is less than {in_bytes(SLOT_BYTES_MIN)} for each slot, which Python with "
                "numpy and pandas half fills.",
                "Ask the batch system for more memory, or give the workers fewer --slots.",
            )  # fmt: skip
        if facts.memory_free_bytes < facts.memory_bytes / 2:
            return Finding(
                "memory", Level.NOTE,
                "More than half of the memory is in use by others, but workers plan with all of "
                "it.",
                "Ask the batch system for whole hosts, or set --memory-limit.",
            )  # fmt: skip
        return None

    return _judged(ranks, judge, Finding("memory", Level.GOOD, text))


def slots(ranks: Sequence[RankFacts]) -> list[Finding]:
    """Can slots be started?"""

    def judge(facts: RankFacts) -> Finding | None:
        if not facts.slot.error:
            return None
        return Finding(
            "slots", Level.PROBLEM, f"A slot was started as a trial, but {facts.slot.error}.",
            "Look at what was printed above this report, and at the limits on processes "
            "(ulimit -u, the cgroup's pids.max) and memory.",
        )  # fmt: skip

    seconds = max(facts.slot.seconds for facts in ranks)
    good = f"A slot can be started, and has run its first function after {seconds:.1f} s."
    return _judged(ranks, judge, Finding("slots", Level.GOOD, good))


def shared_memory(ranks: Sequence[RankFacts]) -> list[Finding]:
    """Can large values lie in shared memory, and does MPI have room for its own?"""
    on_host: dict[str, int] = {}
    for facts in ranks:
        on_host[facts.host] = on_host.get(facts.host, 0) + 1

    def judge(facts: RankFacts) -> Finding | None:
        if facts.arena_error:
            return Finding(
                "shared memory", Level.PROBLEM,
                f"The shared memory of a worker cannot be made: {facts.arena_error}.",
                "Lift the limits on address space and on the size of files (ulimit -v unlimited, "
                "ulimit -f unlimited); in a container, allow memfd_create.",
            )  # fmt: skip
        wanted = on_host[facts.host] * SHM_BYTES_PER_RANK
        if facts.shm_free_bytes < wanted:
            return Finding(
                "shared memory", Level.NOTE,
                f"/dev/shm has {in_bytes(facts.shm_free_bytes)} free; values do not need it, but "
                f"the MPI library may want {in_bytes(wanted)} for "
                f"{count(on_host[facts.host], 'rank')}.",
                "Remove old files from it; in a container make it larger, as with "
                "--shm-size=1g, or share that of the host, as with --ipc=host.",
            )  # fmt: skip
        return None

    free = in_bytes(min(facts.shm_free_bytes for facts in ranks))
    good = f"Large values can be shared; /dev/shm, which only MPI uses, has {free} free."
    return _judged(ranks, judge, Finding("shared memory", Level.GOOD, good))


def huge_pages(ranks: Sequence[RankFacts]) -> list[Finding]:
    """Can large values lie in huge pages?"""

    def judge(facts: RankFacts) -> Finding | None:
        if not facts.small_pages:
            return None
        return Finding(
            "huge pages", Level.NOTE,
            f"Values lie in small pages ({facts.small_pages}), so that the first write to a "
            "worker's memory takes up to eight times as long, and sending up to twice.",
            "If user namespaces are forbidden, an administrator can allow them (the sysctls "
            "user.max_user_namespaces, kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns; in a container its filter of system "
            "calls). If all is as it should be, say so with huge_pages = false.",
        )  # fmt: skip

    good = "Values lie in huge pages, unless huge_pages is false."
    return _judged(ranks, judge, Finding("huge pages", Level.GOOD, good))


def scratch(ranks: Sequence[RankFacts]) -> list[Finding]:
    """Is there a local disk for values that do not fit into memory?"""
    name_a_disk = "Name a folder on a local disk with --scratch, if the host has one."

    def judge(facts: RankFacts) -> Finding | None:
        disk = facts.scratch
        place = f"Scratch is {disk.folder} ({disk.file_system})"
        if not disk.folder:
            return Finding(
                "scratch", Level.NOTE,
                "No local disk was found, so tasks run one after another or fail when values do "
                "not fit into memory.", name_a_disk,
            )  # fmt: skip
        if disk.error:
            return Finding(
                "scratch", Level.PROBLEM, f"{place}, but nothing can be written there: "
                f"{disk.error}.", "Name another folder with --scratch.",
            )  # fmt: skip
        if disk.file_system in IN_MEMORY:
            return Finding(
                "scratch", Level.NOTE, f"{place}, which is memory itself: spilling to it frees "
                "nothing.", name_a_disk,
            )  # fmt: skip
        if disk.file_system in UNSUITABLE:
            return Finding(
                "scratch", Level.NOTE, f"{place}, a network file system: all hosts would spill "
                "to the same servers.", name_a_disk,
            )  # fmt: skip
        if disk.free_bytes < facts.memory_bytes:
            return Finding(
                "scratch", Level.NOTE, f"{place}, which has less space free than there is "
                "memory.", "Remove old files, or name a larger disk with --scratch.",
            )  # fmt: skip
        return None

    first = ranks[0].scratch
    free = in_bytes(min(facts.scratch.free_bytes for facts in ranks))
    good = f"{first.folder} ({first.file_system}) is a local disk with at least {free} free."
    return _judged(ranks, judge, Finding("scratch", Level.GOOD, good))


def limits(ranks: Sequence[RankFacts]) -> list[Finding]:
    """Are as many files and processes allowed as the slots need?"""
    slot_counts = slots_of(ranks)
    found = []
    for number, facts in enumerate(ranks):
        slots_here = slot_counts.get(number, facts.cores)
        needs: Mapping[str, tuple[int | None, int, str]] = {
            "open files": (
                facts.limits.open_files, OPEN_FILES_BESIDE + OPEN_FILES_PER_SLOT * slots_here,
                "ulimit -n",
            ),
            "processes": (
                facts.limits.processes, PROCESSES_BESIDE + slots_here,
                "ulimit -u, or pids.max of the cgroup",
            ),
        }  # fmt: skip
        for what, (limit, needed, where) in needs.items():
            if limit is not None and limit < needed:
                text = f"Only {limit} {what} are allowed, but {count(slots_here, 'slot')} need "
                advice = f"Raise the limit ({where}), or give the workers fewer --slots."
                found.append((facts, Finding("limits", Level.PROBLEM, f"{text}{needed}.", advice)))
    several = len({facts.host for facts in ranks}) > 1
    merged = {
        replace(finding, found=f"On {facts.host}: {finding.found}") if several else finding: None
        for facts, finding in found
    }
    return list(merged) or [
        Finding("limits", Level.GOOD, "Files and processes are allowed in sufficient numbers.")
    ]
