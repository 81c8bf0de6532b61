"""Does each fact about an environment become the right finding, with the right advice?"""

import ast
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mpicluster.config import Config
from mpicluster.doctor import findings as f
from mpicluster.doctor import host, network, report, silence, starting, talks, trials
from mpicluster.doctor.facts import (
    ClockFacts,
    FabricFacts,
    LibraryFacts,
    LimitFacts,
    PairFacts,
    RankFacts,
    ScratchFacts,
    SlotFacts,
    WorldFacts,
)
from mpicluster.doctor.findings import Finding, Level
from mpicluster.doctor.silence import Stage
from mpicluster.errors import WorldError

GB = 10**9
CORES = (0, 1, 2, 3)
VERSIONS = {"python": "3.12.1", "mpicluster": "0.1.0", "numpy": "2.1.0", "dask": "2026.1.0"}
LIBRARY = LibraryFacts("4.1.2", "Open MPI 5.0.11", "Open MPI v5.0.11, package: x", "3.1")
INFINIBAND = FabricFacts("mlx5_0", "InfiniBand", active=True)
US = 1e-6


def rank(name: str = "n1", **changes) -> RankFacts:
    """Return the facts of a rank at which nothing is wrong."""
    good = RankFacts(
        host=name, affinity=CORES, cores=len(CORES), granted_cores=len(CORES),
        memory_bytes=16 * GB, memory_free_bytes=15 * GB, arena_error="", small_pages="",
        shm_bytes=8 * GB, shm_free_bytes=8 * GB, slot=SlotFacts(0.3),
        scratch=ScratchFacts("/tmp", False, "ext4", 90 * GB), limits=LimitFacts(1024, None),
        fabrics=(), settings={}, versions=VERSIONS,
    )  # fmt: skip
    return replace(good, **changes)


def world(*ranks: RankFacts, **changes) -> WorldFacts:
    return replace(WorldFacts(LIBRARY, "MPI_THREAD_SERIALIZED", True, ranks), **changes)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, found
    return found[0]


def assert_trouble(finding: Finding, level: Level, found: str, advice: str) -> None:
    """Check a finding; each of them is a sentence and says what to do."""
    assert finding.level is level, finding
    assert found in finding.found, finding
    assert advice in finding.advice, finding
    assert finding.advice.endswith("."), finding


def test_where_nothing_is_wrong_all_findings_are_good() -> None:
    good = world(*[rank("n1")] * 4, rank("n2"), pairs=(PairFacts((2, 3), US, 9 * GB),))
    found = [*f.describe_world(good), *network.describe_network(good)]
    assert {finding.level for finding in found} == {Level.GOOD}
    assert all(finding.found.endswith(".") and not finding.advice for finding in found)
    assert {finding.topic for finding in found} <= set(report.TOPICS)
    assert report.exit_status(found) == 0


# --- MPI -------------------------------------------------------------------------------------


def test_the_library_has_another_binary_interface_than_mpi4py() -> None:
    found = f.library(replace(LIBRARY, library="MPICH Version:      5.0.2"))
    assert_trouble(found, Level.PROBLEM, "has loaded MPICH Version: 5.0.2", "compile it anew")


def test_the_thread_level_is_too_low() -> None:
    low = world(rank(), thread_level="MPI_THREAD_SINGLE", threads_suffice=False)
    assert_trouble(f.thread_level(low), Level.PROBLEM, "grants MPI_THREAD_SINGLE", "threads")


@pytest.mark.parametrize(
    ("package", "version", "level"),
    [
        ("mpicluster", "0.1.1", Level.PROBLEM),
        ("python", "3.12.4", Level.NOTE),
        ("python", "3.11.9", Level.PROBLEM),
        ("numpy", "2.4.0", Level.NOTE),
        ("numpy", "1.26.4", Level.PROBLEM),
        ("dask", "", Level.PROBLEM),
    ],
)
def test_versions_differ(package: str, version: str, level: Level) -> None:
    other = rank("n2", versions={**VERSIONS, package: version})
    found = only(f.versions([rank(), rank(), rank(), other]))
    sentence = f"{package} is {VERSIONS[package]} for the client, but {version or 'missing'} on n2"
    assert_trouble(found, level, sentence, "one environment on all hosts")


# --- hosts -----------------------------------------------------------------------------------


def test_workers_are_bound_to_a_part_of_their_host() -> None:
    ranks = [rank(affinity=(0,), cores=1), rank(affinity=(1,), cores=1)]
    ranks += [rank(affinity=(2,), cores=1), rank("n2")]
    found = only(f.binding(ranks))
    assert_trouble(found, Level.NOTE, "On n1: The launcher binds the workers to 1 of the 4", "none")


def test_cores_for_the_scheduler_and_the_script_are_not_missed() -> None:
    # Sixteen cores: ranks 0 and 1 are bound to one each, the worker to the others.
    ranks = [rank(affinity=(0,), cores=1, granted_cores=16)]
    ranks.append(rank(affinity=(1,), cores=1, granted_cores=16))
    ranks.append(rank(affinity=tuple(range(2, 16)), cores=14, granted_cores=16))
    assert "together use all of them" in only(f.binding(ranks)).found


def test_there_are_more_workers_than_cores() -> None:
    assert_trouble(
        f.cores([rank()] * 7), Level.NOTE, "more workers than cores on n1", "fewer ranks"
    )


def test_slots_are_counted_as_in_a_job() -> None:
    found = f.cores([rank(), rank(), rank(), rank(), rank("n2")])
    assert found.found == "3 workers with 8 slots on 2 hosts."


def test_memory_per_slot_is_small() -> None:
    small = rank(memory_bytes=GB, memory_free_bytes=GB)
    found = only(f.memory([small] * 4))
    assert_trouble(found, Level.NOTE, "less than 537 MB for each slot", "--slots")


def test_others_use_the_memory() -> None:
    found = only(f.memory([rank(memory_free_bytes=2 * GB)] * 3))
    assert_trouble(found, Level.NOTE, "in use by others", "--memory-limit")


def test_no_slot_can_be_started() -> None:
    broken = rank("n2", slot=SlotFacts(error="it was ended by signal SIGKILL"))
    found = only(f.slots([rank(), rank(), rank(), broken]))
    assert_trouble(
        found, Level.PROBLEM, "On n2: A slot was started as a trial, but it was", "ulimit"
    )


def test_shared_memory_cannot_be_made() -> None:
    found = only(f.shared_memory([rank(arena_error="OSError: File too large")]))
    assert_trouble(found, Level.PROBLEM, "File too large", "ulimit -f unlimited")


def test_there_is_little_room_for_the_files_of_mpi() -> None:
    found = only(f.shared_memory([rank(shm_free_bytes=64 << 20)] * 4))
    assert_trouble(found, Level.NOTE, "268 MB for 4 ranks", "--shm-size")


@pytest.mark.parametrize(
    ("scratch", "level", "words"),
    [
        (ScratchFacts("", False), Level.NOTE, "No local disk was found"),
        (ScratchFacts("/s", True, "ext4", GB, "Permission denied"), Level.PROBLEM, "Permission"),
        (ScratchFacts("/s", True, "nfs4", 90 * GB), Level.NOTE, "a network file system"),
        (ScratchFacts("/s", True, "tmpfs", 90 * GB), Level.NOTE, "memory itself"),
        (ScratchFacts("/s", True, "ext4", GB), Level.NOTE, "less space free than there is memory"),
    ],
)
def test_scratch(scratch: ScratchFacts, level: Level, words: str) -> None:
    assert_trouble(only(f.scratch([rank(scratch=scratch)] * 3)), level, words, "--scratch")


def test_limits_are_below_what_slots_need() -> None:
    found = only(f.limits([rank(limits=LimitFacts(100, None))] * 3))
    assert_trouble(found, Level.PROBLEM, "Only 100 open files are allowed, but", "ulimit -n")
    found = only(f.limits([rank(limits=LimitFacts(None, 10))]))
    assert_trouble(found, Level.PROBLEM, "Only 10 processes are allowed, but 4 slots", "pids.max")


def test_the_same_finding_of_many_hosts_is_said_once() -> None:
    ranks = [rank(f"n{number}", arena_error="no") for number in range(9)]
    assert only(f.shared_memory(ranks)).found.startswith("On n0, n1, n2, n3 and 5 more: ")


# --- messages and clocks ---------------------------------------------------------------------


def between(*pairs: PairFacts, **changes) -> WorldFacts:
    ranks = [rank("n1", **changes)] * 4 + [rank("n2", **changes)] * 2
    return world(*ranks, pairs=pairs)


def test_ranks_of_a_host_wait_for_each_other() -> None:
    found = only(network.messages(between(PairFacts((2, 3), 4000 * US, 9 * GB))))
    assert_trouble(found, Level.NOTE, "4000.0 µs and 9.0 GB/s", "fewer ranks")


def test_ranks_of_a_host_do_not_share_memory() -> None:
    found = only(network.messages(between(PairFacts((2, 3), US, 0.4 * GB))))
    assert_trouble(found, Level.NOTE, "400 MB/s", "process_vm_readv")


def test_a_fast_fabric_is_there_and_tcp_is_used() -> None:
    pair = PairFacts((2, 4), 35 * US, 1.1 * GB)
    found = only(network.messages(between(pair, fabrics=(INFINIBAND,))))
    assert_trouble(found, Level.NOTE, "have InfiniBand (mlx5_0), that is as slow as TCP", "module")


def test_a_setting_asks_for_tcp() -> None:
    pair = PairFacts((2, 4), 6 * US, 3 * GB)
    settings = {"OMPI_MCA_btl": "self,tcp"}
    found = only(network.messages(between(pair, fabrics=(INFINIBAND,), settings=settings)))
    assert_trouble(found, Level.NOTE, "OMPI_MCA_btl=self,tcp asks for TCP", "Unset OMPI_MCA_btl")


@pytest.mark.parametrize(
    ("settings", "tcp"),
    [
        ({"OMPI_MCA_btl": "^tcp"}, False),
        ({"OMPI_MCA_btl": "tcp,self", "OMPI_MCA_pml": "ucx"}, False),
        ({"OMPI_MCA_btl": "tcp,self", "OMPI_MCA_pml": "ob1"}, True),
        ({"UCX_TLS": "rc,tcp"}, False),
        ({"UCX_TLS": "tcp,sm"}, True),
        ({"FI_PROVIDER": "tcp;ofi_rxm"}, True),
        ({"FI_PROVIDER": "cxi"}, False),
    ],
)
def test_settings_that_ask_for_tcp(settings: dict[str, str], tcp: bool) -> None:
    assert bool(network.tcp_setting(settings)) is tcp


def test_the_fabric_is_used() -> None:
    pair = PairFacts((2, 4), 1.5 * US, 11 * GB)
    found = only(network.messages(between(pair, fabrics=(INFINIBAND,))))
    assert (found.level, found.found) == (Level.GOOD, "Between hosts: 1.5 µs and 11 GB/s.")


def test_latency_of_efa_is_not_taken_for_tcp() -> None:
    efa = FabricFacts("efa_0", "EFA", active=True)
    pair = PairFacts((2, 4), 18 * US, 9 * GB)
    assert only(network.messages(between(pair, fabrics=(efa,)))).level is Level.GOOD


def test_there_is_no_fabric_and_the_network_is_slow() -> None:
    found = only(network.messages(between(PairFacts((2, 4), 40 * US, 0.11 * GB))))
    assert_trouble(found, Level.NOTE, "little for moving values", "which one MPI was told to use")
    found = only(network.messages(between(PairFacts((2, 4), 40 * US, GB))))
    assert (found.level, found.found[-26:]) == (Level.GOOD, " No fast fabric was found.")


def test_no_port_of_a_fabric_is_active() -> None:
    down = replace(INFINIBAND, active=False)
    found = only(network.messages(world(rank(), rank("n2", fabrics=(down,)))))
    assert_trouble(found, Level.NOTE, "No port of InfiniBand (mlx5_0) on n2 is active", "administr")


def test_clocks_differ() -> None:
    late = ClockFacts("n2", -3.2, 0.001)
    found = only(network.clocks(world(rank(), clocks=(late, ClockFacts("n3", 0.0, 0.001)))))
    assert_trouble(found, Level.NOTE, "clocks of n2 and of n1 differ by up to 3.2 s", "time server")
    assert "n3" not in found.found


def test_clocks_agree_as_well_as_can_be_known() -> None:
    found = only(network.clocks(world(rank(), clocks=(ClockFacts("n2", 0.0002, 0.0001),))))
    assert (found.level, found.found) == (Level.GOOD, "The clocks of 2 hosts agree to 0.3 ms.")
    # Over a link that needs half a second nothing can be said of a tenth.
    vague = ClockFacts("n2", 0.3, 0.25)
    assert only(network.clocks(world(rank(), clocks=(vague,)))).level is Level.GOOD


# --- ranks that do not answer ----------------------------------------------------------------


@pytest.mark.parametrize("stage", Stage)
def test_rank_0_is_late(stage: Stage) -> None:
    found = silence.too_late(stage, 4, 60.0)
    assert_trouble(found, Level.PROBLEM, f"not come further than {stage.value} within 60 s", "")
    assert ("promised 4 ranks" in found.found) is (stage is Stage.INITIALISE)


def test_ranks_are_missing() -> None:
    found = silence.ranks_missing(Stage.CONNECT, list(range(3, 20)), 20)
    names = "ranks 3, 4, 5, 6, 7, 8, 9, 10 and 9 more"
    assert_trouble(found, Level.PROBLEM, f"Of 20 ranks, {names} did not answer", "firewall")


def test_rank_0_ended_early() -> None:
    found = silence.ended_early(Stage.INITIALISE, silence.ending(-signal.SIGSEGV))
    assert_trouble(
        found, Level.PROBLEM, "ended during MPI_Init: it was ended by signal SIG", "hosts"
    )


def test_the_launcher_tells_nothing() -> None:
    assert_trouble(silence.no_promise(), Level.PROBLEM, "how many ranks there are", "--mpi=pmix")


def test_errors_of_ours_are_split_where_the_advice_begins() -> None:
    found = f.from_error("launcher", WorldError("There is none. It is far. Load its module."))
    assert found == Finding(
        "launcher", Level.PROBLEM, "There is none. It is far.", "Load its module."
    )


def test_a_launcher_that_prints_a_report_among_other_words(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = (
        'print(\'{x} [warning]\'); print(\'{"findings": [{"topic": "ranks", "level": "good",'
        ' "found": "Yes.", "advice": ""}]}\'); print(\'bye\')'
    )
    found = starting.ask_ranks([sys.executable, "-c", code], os.environ, 60)
    assert found == [Finding("ranks", Level.GOOD, "Yes.")]
    # A launcher that fails after a good report is a problem all the same.
    code += "; import sys; sys.exit(7)"
    found = starting.ask_ranks([sys.executable, "-c", code], os.environ, 60)
    assert [finding.level for finding in found] == [Level.GOOD, Level.PROBLEM]
    assert "after the report, it ended with status 7" in found[1].found


def test_a_launcher_that_fails(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; sys.exit('no such host: n9')"
    found = only(starting.ask_ranks([sys.executable, "-c", code], os.environ, 60))
    assert_trouble(found, Level.PROBLEM, "status 1. It says: no such host: n9", "by hand")


def test_a_launcher_that_never_ends() -> None:
    code = "import time; time.sleep(100)"
    found = only(starting.ask_ranks([sys.executable, "-c", code], os.environ, 0.5))
    assert_trouble(found, Level.PROBLEM, "No rank has reported within 0.5 s", "--timeout")
    assert "It has said nothing." in found.found


# --- a process in MPI that is supervised -----------------------------------------------------


def supervised(work: str, seconds: float = 30) -> tuple[str, str, bool, str, bool]:
    """Supervise a function in a Python of its own, since the child leaves through its end."""
    code = (
        "import os, signal, sys, time\n"
        "from mpicluster.doctor.silence import Stage, no_promise\n"
        "from mpicluster.doctor.supervision import supervise\n"
        f"def work(reporter):\n    {work}\n"
        f"heard = supervise(work, time.monotonic() + {seconds})\n"
        "topics = [finding.topic for finding in heard.findings]\n"
        "print((heard.stage.name, topics, heard.complete, heard.trouble, heard.late))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout)


def test_a_supervised_process_reports_and_ends() -> None:
    work = "reporter.reach(Stage.CONNECT); reporter.report([no_promise()], complete=True)"
    assert supervised(work) == ("CONNECT", ["ranks"], True, "", False)


def test_a_supervised_process_is_ended_by_its_library() -> None:
    work = "reporter.report([no_promise()], complete=False); os._exit(14)"
    assert supervised(work) == ("LOOK", ["ranks"], False, "it ended with status 14", False)


def test_a_supervised_process_raises() -> None:
    work = "reporter.reach(Stage.INITIALISE); raise OSError('no network')"
    assert supervised(work) == ("INITIALISE", [], False, "OSError: no network", False)


def test_a_supervised_process_does_not_come_back() -> None:
    work = "reporter.reach(Stage.INITIALISE); signal.pause()"
    assert supervised(work, seconds=1) == ("INITIALISE", [], False, "", True)


# --- measuring -------------------------------------------------------------------------------


def test_a_slot_and_an_arena_are_really_tried() -> None:
    facts = trials.try_slot(0, Config())
    assert facts.error == ""
    assert facts.seconds > 0
    assert trials.try_arena(GB, huge_pages=False) == ("", "")
    assert trials.try_arena(1 << 62, huge_pages=False)[0] != ""


def test_values_in_small_pages() -> None:
    found = only(f.huge_pages([rank(small_pages="unshare: Operation not permitted")]))
    assert found.level is Level.NOTE
    assert "(unshare: Operation not permitted)" in found.found
    assert "huge_pages = false" in found.advice
    assert report.in_order([found]) == [found]  # of a topic that has its place
    assert only(f.huge_pages([rank()])).level is Level.GOOD


def test_a_slot_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert trials.try_slot(0, Config()).error == "the zygote that forks it has ended"


def test_fabrics_are_found(tmp_path: Path) -> None:
    def port(device: str, state: str, layer: str) -> None:
        folder = tmp_path / "infiniband" / device / "ports" / "1"
        folder.mkdir(parents=True)
        (folder / "state").write_text(f"{state}\n")
        (folder / "link_layer").write_text(f"{layer}\n")

    assert host.find_fabrics(tmp_path) == ()
    port("mlx5_0", "4: ACTIVE", "InfiniBand")
    port("mlx5_1", "1: DOWN", "Ethernet")
    port("hfi1_0", "4: ACTIVE", "InfiniBand")
    (tmp_path / "cxi" / "cxi0").mkdir(parents=True)
    assert host.find_fabrics(tmp_path) == (
        FabricFacts("hfi1_0", "Omni-Path", True), INFINIBAND,
        FabricFacts("mlx5_1", "RoCE", False), FabricFacts("cxi0", "Slingshot", True),
    )  # fmt: skip


def test_an_interface_over_infiniband_is_a_fabric(tmp_path: Path) -> None:
    for name, kind in (("eth0", "1"), ("ib0", "32")):
        folder = tmp_path / "net" / name
        folder.mkdir(parents=True)
        (folder / "type").write_text(kind)
        (folder / "operstate").write_text("up")
    assert host.find_fabrics(tmp_path) == (FabricFacts("ib0", "InfiniBand", True),)


def test_granted_cores() -> None:
    assert host.granted_cores({"SLURM_CPUS_ON_NODE": "1"}) == 1
    assert host.granted_cores({"SLURM_CPUS_ON_NODE": "1000000"}) == os.cpu_count()
    assert host.granted_cores({"NCPUS": "many"}) >= 1


def test_scratch_that_does_not_exist_yet(tmp_path: Path) -> None:
    found = host.look_at_scratch(str(tmp_path / "a" / "b"), {}, "disk / ext4 rw 0 0")
    assert (found.folder, found.named) == (str(tmp_path / "a" / "b"), True)
    assert (found.file_system, found.error) == ("ext4", "")
    assert list(tmp_path.iterdir()) == []


def test_scratch_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = host.look_at_scratch(str(tmp_path / "file" / "b"), {}, "disk / ext4 rw 0 0")
    assert found.error == "Not a directory"


def test_who_talks_to_whom() -> None:
    assert talks.make_plan(["a"]) == talks.Plan([], [])
    assert talks.make_plan(["a", "a", "b"]) == talks.Plan([(0, 1), (0, 2), (2, 0)], [2])
    many = talks.make_plan([f"n{number}" for number in range(1000) for _ in range(2)])
    assert len(many.pairs) == 2 * talks.PAIRS_MAX
    assert len(many.clocks) == talks.CLOCKS_MAX


# --- the report ------------------------------------------------------------------------------

NOTE = Finding("scratch", Level.NOTE, "Scratch is [red] and full.", "Remove old files.")
BAD = Finding("ranks", Level.PROBLEM, "No rank has reported.", "Run the command by hand.")


def test_the_report_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    report.show([BAD, NOTE])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "problem  ranks    No rank has reported.",
        "                  -> Run the command by hand.",
        "note     scratch  Scratch is [red] and full.",
        "                  -> Remove old files.",
        "1 problem: a cluster, or tasks in it, would fail here.",
    ]


def test_the_report_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    report.show_json([BAD, NOTE])
    text = capsys.readouterr().out
    assert json.loads(text)["findings"][0]["level"] == "problem"
    assert starting.read_report(text) == [BAD, NOTE]
    assert starting.read_report("{} and no report") is None


def test_status_and_summary() -> None:
    assert report.exit_status([NOTE]) == 0
    assert report.summary([NOTE]) == "Nothing was found that would fail; 1 note."
    assert report.exit_status([NOTE, BAD]) == 1


def test_ranks_know_better() -> None:
    mine = Finding("scratch", Level.GOOD, "Here it is fine.")
    assert report.merge([mine, BAD], [NOTE]) == [BAD, NOTE]
