"""What does a rank do that was started for the doctor?

It looks at its host, initialises MPI, and talks to the other ranks; rank 0 has the findings. What
a launcher or MPI may do wrong, `supervision.py` turns into findings too.
"""

import os
import platform
import signal
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from mpicluster.cluster.launch import find_library
from mpicluster.cluster.roles import Promise, check_launcher, check_world
from mpicluster.config import Config
from mpicluster.doctor import silence
from mpicluster.doctor.facts import LibraryFacts, RankFacts, WorldFacts
from mpicluster.doctor.findings import (
    Finding,
    Level,
    count,
    describe_host,
    describe_world,
    from_error,
    library,
)
from mpicluster.doctor.host import inspect_host, inspect_library
from mpicluster.doctor.network import describe_network
from mpicluster.doctor.silence import NoAnswer, Stage
from mpicluster.doctor.supervision import Heard, Reporter, supervise
from mpicluster.doctor.talks import Collector, serve
from mpicluster.errors import WorldError
from mpicluster.transport.mpi import MPITransport, connect, initialize
from mpicluster.transport.shared_files import remove_shared_files

#: When time is over each rank ends its own process in MPI and removes its files, which a launcher
#: would not do. Ranks come at different times, so rank 0 waits a little before it fails ...
TIME_TO_CLEAN_S: Final = 1.5
#: ... and the others longer: a launcher ends all ranks when the first one fails.
TIME_TO_SPEAK_S: Final = 4.0
#: Rank 0 gives up silent ranks this much before its time is over, while it can still name them.
TIME_TO_NAME_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What a rank of the doctor is told."""

    config: Config
    timeout_s: float


def run_rank(promise: Promise, options: RankOptions) -> list[Finding] | None:
    """Play this rank's part; return the findings on rank 0, None on the others."""
    deadline = time.monotonic() + options.timeout_s
    work = partial(_play, promise=promise, config=options.config, deadline=deadline)
    heard = supervise(work, deadline)
    if promise.rank == 0:
        if heard.late:
            time.sleep(TIME_TO_CLEAN_S)
        return _judge(heard, promise, options.timeout_s)
    if heard.trouble:
        place = f"rank {promise.rank} on {platform.node()}"
        print(
            f"mpicluster: {place}: {heard.stage.value}: {heard.trouble}.", file=sys.stderr,
            flush=True,
        )  # fmt: skip
    if heard.trouble or heard.late:
        time.sleep(max(0.0, deadline + TIME_TO_SPEAK_S - time.monotonic()))
        raise SystemExit(1)
    return None


def _judge(heard: Heard, promise: Promise, timeout_s: float) -> list[Finding]:
    """Return what was heard, and what is to be said about what was not."""
    findings = list(heard.findings)
    if heard.late and heard.complete and heard.stage is not Stage.LEAVE:
        return findings  # it has named the ranks that it waits for
    if heard.late:
        findings.append(silence.too_late(heard.stage, promise.size, timeout_s))
    elif heard.trouble:
        findings.append(silence.ended_early(heard.stage, heard.trouble))
    elif not heard.complete:
        findings.append(silence.ended_early(heard.stage, "the MPI library ended its process"))
    return findings


# --- in the process that enters MPI ----------------------------------------------------------


def _play(reporter: Reporter, promise: Promise, config: Config, deadline: float) -> None:
    """Look at the host, enter MPI, talk, report and leave."""
    facts = inspect_host(promise.rank, config)
    findings = describe_host(facts)
    reporter.report(findings, complete=False)
    reporter.reach(Stage.LOAD)
    try:
        find_library()
        loaded = inspect_library()
        findings.insert(0, library(loaded))
        reporter.report(findings, complete=False)
        check_launcher(os.environ, loaded.library)
    except WorldError as error:
        topic = "ranks" if findings[0].topic == "MPI" else "MPI"
        reporter.report([*findings, from_error(topic, error)], complete=True)
        return
    reporter.reach(Stage.INITIALISE)
    MPI = initialize(config)  # noqa: N806  (the name of the module)
    size = MPI.COMM_WORLD.Get_size()
    world = _judge_world(size, promise, loaded.library)
    if size < promise.size:
        reporter.report([*findings, *world], complete=True)
        reporter.reach(Stage.LEAVE)
        MPI.Finalize()
        remove_shared_files()  # a singleton of Open MPI leaves its file behind
        return
    facts = replace(facts, versions={**facts.versions, **_library_versions(loaded)})
    reporter.reach(Stage.CONNECT)
    transport = connect(config)
    if transport.rank != 0:
        serve(transport.communicator, facts)
    else:
        try:
            found = _ask_all(transport, MPI, loaded, facts, reporter, deadline)
        except NoAnswer as missing:
            stage = Stage.MEASURE if len(missing.ranks) == 1 else Stage.CONNECT
            sentence = silence.ranks_missing(stage, missing.ranks, size)
            reporter.report([*findings, sentence], complete=True)
            # MPI_Finalize would wait for the ranks that are missing; all leave at the same time.
            signal.pause()
        reporter.report([*world, *found], complete=True)
    reporter.reach(Stage.LEAVE)
    transport.close()


def _library_versions(loaded: LibraryFacts) -> dict[str, str]:
    return {"mpi4py": loaded.mpi4py, "MPI library": " ".join(loaded.library.split(",")[0].split())}


def _judge_world(size: int, promise: Promise, text: str) -> list[Finding]:
    """Return what is to be said about the number of ranks."""
    try:
        check_world(size, promise, text)
    except WorldError as error:
        return [from_error("ranks", error)]
    if size == 1:
        text = "There is only one rank, which makes a cluster of threads and slots without MPI."
        advice = "Start at least 3 ranks for a cluster over MPI."
        return [Finding("ranks", Level.NOTE, text, advice)]
    return []


def _ask_all(
    transport: MPITransport,
    MPI: Any,  # noqa: N803
    loaded: LibraryFacts,
    own: RankFacts,
    reporter: Reporter,
    deadline: float,
) -> list[Finding]:
    """Return what is to be said about all ranks."""
    collector = Collector(transport.communicator, deadline - TIME_TO_NAME_S)
    ranks = collector.collect(own)
    reporter.reach(Stage.MEASURE)
    hosts = [facts.host for facts in ranks]
    pairs, clocks = collector.measure(hosts)
    collector.dismiss()
    level = MPI.Query_thread()
    names = {
        MPI.THREAD_SINGLE: "MPI_THREAD_SINGLE", MPI.THREAD_FUNNELED: "MPI_THREAD_FUNNELED",
        MPI.THREAD_SERIALIZED: "MPI_THREAD_SERIALIZED", MPI.THREAD_MULTIPLE: "MPI_THREAD_MULTIPLE",
    }  # fmt: skip
    world = WorldFacts(
        library=loaded, thread_level=names[level],
        threads_suffice=level >= MPI.THREAD_SERIALIZED, ranks=ranks, pairs=pairs, clocks=clocks,
    )  # fmt: skip
    found = []
    if transport.size > 2:
        places = count(len(set(hosts)), "host")
        text = f"{transport.size} ranks on {places} were started, and MPI has found all of them."
        found.append(Finding("ranks", Level.GOOD, text))
    return [*found, *describe_world(world), *describe_network(world)]
