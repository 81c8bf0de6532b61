"""How does a rank of an MPI job begin, play its role and end?

Rank 1 gets a `Job` and runs the user's script (`script.py`); the other ranks run their loops and
leave. Nobody waits for ever: what cannot end in order is aborted.
"""

import faulthandler
import hashlib
import math
import os
import platform
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from mpicluster import messages as m
from mpicluster.client.loop import ClientLoop, allocate_for_client
from mpicluster.cluster import roles
from mpicluster.cluster.allocation import find_allocation, short_name
from mpicluster.cluster.base import Cluster, set_current_job
from mpicluster.cluster.hosts import (
    available_cores,
    available_memory,
    given_limit,
    host_identity,
    parse_bytes,
    parse_memory_limit,
)
from mpicluster.cluster.launch import find_library
from mpicluster.cluster.leaving import (
    TIME_TO_SPEAK_S,
    abort,
    end_for_loss,
    leave_as_lost,
    leave_mpi,
    say,
)
from mpicluster.cluster.opening import describe_world
from mpicluster.cluster.supervisor import Supervised, supervise
from mpicluster.config import Config, warn_of_unknown_variables
from mpicluster.errors import ConfigError, LostRankError, WorldError
from mpicluster.ids import CLIENT_RANK, FIRST_WORKER_RANK, SCHEDULER_RANK
from mpicluster.scheduler.loop import SchedulerLoop
from mpicluster.transport.mpi import MPITransport, connect, library_text
from mpicluster.transport.shared_files import (
    files_of_hosts,
    files_of_mpi,
    remove_names,
    remove_shared_files,
)
from mpicluster.versions import differences, local_versions
from mpicluster.worker.loop import WorkerLoop, WorkerSettings
from mpicluster.worker.preparing import Prepared, prepare_worker
from mpicluster.worker.spawning import modules_to_preload, take_empty_input

T = TypeVar("T")

#: Exit status of a world that makes no cluster.
WORLD_STATUS = 2


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What `mpicluster run` and `initialize` may ask for."""

    slots: int | None = None
    memory_limit: str | float | None = None
    resources: dict[str, float] = field(default_factory=dict)
    #: Settings of `Config`.
    settings: dict[str, Any] = field(default_factory=dict)

    def load_config(self) -> Config:
        """Return the settings of the job; a `ConfigError` says what is wrong with the options."""
        limit = given_limit(self.memory_limit)
        if limit is not None:
            parse_memory_limit(limit, self.slots or 1)
        return Config.load(self.settings)


class Job(Cluster):
    """The ranks of this MPI job, as rank 1 sees them."""

    kind = "MPI job"

    def __init__(
        self, transport: MPITransport, config: Config, infos: list[dict[str, Any]]
    ) -> None:
        self.versions = infos[0]["versions"]
        self._transport = transport
        self._config = config
        self._hosts = [info["host"] for info in infos]
        self._loop = ClientLoop(
            transport, config, allocate_for_client, local_versions(), host_identity()
        )
        self._loop.on_scheduler_lost = partial(end_for_loss, transport)
        self._loop.start()
        self._ended = False

    def connect(self) -> ClientLoop:
        """Return the connection that all clients of the script share."""
        return self._loop

    def scheduler_host(self) -> str:
        """Return the host of rank 0."""
        return str(self._hosts[0])

    def close(self) -> None:
        """Nothing: the ranks of a job end with its script."""

    def end(self, status: int = 1) -> None:
        """End all ranks in order; abort the job if one does not answer.

        `status` is for the case that ranks were lost and MPI cannot end without them.
        """
        if self._ended or self._loop.forked:
            return
        self._ended = True
        set_current_job(None)
        loop = self._loop
        try:
            if self.finishes_forgotten and not hasattr(sys, "last_type"):
                loop.finish_forgotten()
            with loop.lock:
                loop.core.to_scheduler(m.ClientStopped(stop=True))
            stopped = self._await_stop()
        except Exception as error:  # noqa: BLE001  (the job must end, whatever went wrong)
            stopped = loop.core.stopped
            if not stopped:
                print(f"mpicluster: the job cannot end in order: {error}", file=sys.stderr)
        if not stopped:
            text = "The scheduler does not answer, so the job is aborted."
            abort(self._transport, self._config, text)
        loop.close()
        leave_mpi(self._transport, self._config, status)


    def _await_stop(self) -> bool:
        """Wait for the scheduler; time in which the whole job was suspended does not count."""
        core = self._loop.core
        for _ in range(math.ceil(self._config.stop_timeout_s)):
            if self._loop.wait_until(lambda: core.stopped, 1.0):
                return True
        return False


def start(options: JobOptions, paths: Sequence[str], script_text: str) -> Job | None:  # noqa: RET503
    """Play this rank's role.

    Returns on rank 1 with the job, and without one when there is only this process; the other
    ranks leave the program here when the job is over.
    """
    _open_standard_streams()
    faulthandler.enable()
    promise = roles.read_promise(os.environ)
    if promise is None or promise.size == 1:
        options.load_config()
        return None
    config = _check(promise, options.load_config)
    prepared: Prepared | None = None
    supervised: Supervised | None = None
    if promise.rank >= FIRST_WORKER_RANK:
        may_be_lost = config.survive == "ranks"
        # To ask mpi4py would load the library, and the zygote could not be a fork then.
        if may_be_lost and not roles.is_started_by_open_mpi(os.environ) and (
            find_library().family == "mpich"
        ):
            supervised = supervise()
        modules = modules_to_preload(script_text)
        patience_s = config.lost_after_s if may_be_lost else 0.0
        prepared = prepare_worker(config, paths, modules, patience_s)
    transport: MPITransport | None = None
    try:
        _check(promise, lambda: roles.check_launcher(os.environ, library_text()))
        transport = connect(config)
        _check(promise, lambda: roles.check_world(transport.size, promise, transport.library))
    except SystemExit:
        if prepared is not None:
            prepared.zygote.stop()
        if transport is not None:
            transport.close()
            remove_shared_files()  # a singleton of Open MPI leaves its file behind
        raise
    infos = _exchange(transport, config)
    if supervised is not None:
        supervised.started()
    if transport.rank == CLIENT_RANK:
        # Launchers send theirs to rank 0, and MPICH's leaves the others one that never ends.
        take_empty_input()
        return _become_client(transport, config, infos, options)
    _run_loop(transport, config, infos, options, prepared)


def _open_standard_streams() -> None:
    """Open streams that whoever started us has closed, in their order so that each gets its number:
    something else would get it, and what is printed there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # noqa: SIM115  (to the end)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _check(promise: roles.Promise, check: Callable[[], T]) -> T:
    """Leave the program if the ranks make no cluster; one of them says why."""
    try:
        return check()
    except (ConfigError, WorldError) as error:
        if promise.rank == 0:
            print(f"mpicluster: {error}", file=sys.stderr, flush=True)
        else:
            time.sleep(TIME_TO_SPEAK_S)
        raise SystemExit(WORLD_STATUS) from None


def _exchange(transport: MPITransport, config: Config) -> list[dict[str, Any]]:
    """Tell all ranks about this one and return what they say, in rank order."""
    cores = sorted(os.sched_getaffinity(0))[: available_cores()]
    info = {
        "host": platform.node(), "cores": cores, "memory": available_memory(),
        "versions": local_versions(), "home": host_identity(), "pid": os.getpid(),
        "granted": _granted_cores(), "bell": transport.bells.path,
    }  # fmt: skip
    gathered: list[dict[str, Any]] = transport.exchange(info)
    transport.bells.reach({
        rank: other["bell"] for rank, other in enumerate(gathered)
        if config.ring and other["home"] == info["home"] and rank != transport.rank
    })  # fmt: skip
    # All ranks have initialised MPI now, so each has what it shares with the others of its node.
    _remove_names(transport, [other["host"] for other in gathered])
    transport.rely_on_bells()
    return gathered


def _remove_names(transport: MPITransport, hosts: list[str]) -> None:
    """Remove the names of what MPI shares, given the host of each rank."""
    mine = files_of_mpi()
    digests = transport.exchange(hashlib.sha256("\0".join(sorted(mine)).encode()).digest())
    if len({*zip(hosts, digests, strict=True)}) == len({*hosts}):
        remove_names(mine)  # most often: all ranks of a host have mapped the same
        return
    common = files_of_hosts(hosts, transport.exchange(mine))
    if common is not None:
        remove_names(common[hosts[transport.rank]])
    else:  # all ranks find the same; to ask MPI costs the time of those that share a core
        remove_names(set.intersection(*transport.gather_on_node(mine)))


def _granted_cores() -> dict[str, int]:
    """Return {host: cores} that the batch system has granted, as far as it is known here."""
    try:
        return find_allocation(os.environ).granted()
    except WorldError:
        return {}  # its list of hosts is not on this host; rank 1 is where the job script runs


def _slots(infos: list[dict[str, Any]], options: JobOptions) -> dict[int, int]:
    """Return {rank: slots}: the cores that a rank may use, no more than were granted there.

    Where the batch system does not bind cores, a job on a shared host may use all of them.
    """
    hosts, granted = [info["host"] for info in infos], infos[CLIENT_RANK]["granted"]
    cores = [info["cores"][: granted.get(short_name(info["host"]))] for info in infos]
    return roles.worker_slots(hosts, cores, options.slots)


def _memory_limits(infos: list[dict[str, Any]], options: JobOptions) -> dict[int, int]:
    hosts, memory = [info["host"] for info in infos], [info["memory"] for info in infos]
    shares = roles.memory_shares(hosts, memory)
    limit = given_limit(options.memory_limit)
    if limit is not None:
        return dict.fromkeys(shares, parse_bytes(limit))
    return shares


def _become_client(
    transport: MPITransport, config: Config, infos: list[dict[str, Any]], options: JobOptions
) -> Job:
    slots, memory = _slots(infos, options), _memory_limits(infos, options)
    text = describe_world(infos, slots, memory, transport.library)
    print(text, file=sys.stderr, flush=True)
    warn_of_unknown_variables()
    others = {rank: info["versions"] for rank, info in enumerate(infos)}
    hosts = {rank: info["host"] for rank, info in enumerate(infos)}
    for sentence in differences(local_versions(), others, hosts):
        print(f"mpicluster: warning: {sentence}", file=sys.stderr, flush=True)
    job = Job(transport, config, infos)
    set_current_job(job)
    return job


def _run_loop(
    transport: MPITransport,
    config: Config,
    infos: list[dict[str, Any]],
    options: JobOptions,
    prepared: Prepared | None,
) -> NoReturn:
    """Run the scheduler's or a worker's loop to its end and leave the program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 1 decides what an interrupt means
    signal.signal(signal.SIGTERM, _leave_on_signal)
    try:
        if roles.role_of(transport.rank) is roles.Role.SCHEDULER:
            ranks = list(range(FIRST_WORKER_RANK, transport.size))
            scheduler = SchedulerLoop(transport, config, ranks)
            if config.survive == "ranks":
                scheduler.script_is_gone = _watch_script(infos)
            scheduler.run(freeze=True)
        else:
            assert prepared is not None, "the launcher has promised another rank"
            settings = _worker_settings(transport.rank, infos, options)
            loop = WorkerLoop(transport, config, settings, prepared)
            loop.run()
            if loop.lost_because:
                _leave_others(transport, loop.lost_because)
        leave_mpi(transport, config, 0)
    except LostRankError as error:
        end_for_loss(transport, error)
    except BaseException:  # noqa: BLE001  (a broken rank ends the job loudly)
        abort(transport, config, traceback.format_exc())
    # Not os._exit: MPICH tells its launcher in an exit handler that this rank ends in order.
    raise SystemExit(0)


def _watch_script(infos: list[dict[str, Any]]) -> Callable[[], bool]:
    """Return a question: has the process of rank 1 ended? Always no if it is out of sight.

    Hydra may leave rank 0 alone when rank 1 ends by a signal while nothing is printed.
    """
    ours, theirs = infos[SCHEDULER_RANK], infos[CLIENT_RANK]
    if ours["home"] != theirs["home"]:
        return bool
    try:
        process = os.pidfd_open(theirs["pid"])  # readable once the process has ended
    except OSError:  # Linux before 5.3
        return bool
    return lambda: bool(select.select([process], [], [], 0)[0])


def _leave_others(transport: MPITransport, reason: str) -> NoReturn:
    """Leave the job, which goes on without this worker."""
    place = f"worker rank {transport.rank} on {platform.node()}"
    say(f"{place} leaves, because it counts as lost: {reason}.")
    leave_as_lost()


def _worker_settings(
    rank: int, infos: list[dict[str, Any]], options: JobOptions
) -> WorkerSettings:
    return WorkerSettings(
        host=infos[rank]["host"],
        slots=_slots(infos, options)[rank],
        memory_limit=_memory_limits(infos, options)[rank],
        resources=options.resources,
        versions=infos[rank]["versions"],
        home=infos[rank]["home"],
        neighbours=tuple(
            other for other in range(FIRST_WORKER_RANK, len(infos))
            if other != rank and infos[other]["home"] == infos[rank]["home"]
        ),
    )


def _leave_on_signal(number: int, _frame: FrameType | None) -> None:
    """End this rank: the launcher or the batch system ends all of them."""
    os._exit(128 + number)
