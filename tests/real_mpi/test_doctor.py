"""Does `mpicluster doctor` tell good environments from those that would fail, and always end?"""

import json
import signal
from pathlib import Path

import pytest
from harness import ENVIRONMENTS, Ended, Runner

pytestmark = pytest.mark.real_mpi

#: Ranks answer within seconds, also on a busy machine; a test of silence waits no longer.
TIMEOUT = ("--timeout", "15")
ALL_TOPICS = {
    "MPI", "ranks", "threads", "versions", "binding", "cores", "memory", "slots", "shared memory",
    "huge pages", "scratch", "limits", "latency",
}  # fmt: skip


def words(runner: Runner, *options: str) -> list[str]:
    return [runner.environment.python, "-m", "mpicluster", "doctor", *options]


def findings(ended: Ended) -> dict[str, dict[str, str]]:
    """Return the findings of the only report by their topics; each has been said once."""
    start = ended.stdout.index("{")
    content, end = json.JSONDecoder().raw_decode(ended.stdout[start:])
    assert "{" not in ended.stdout[start + end :], ended
    rows = content["findings"]
    found = {row["topic"]: row for row in rows}
    assert len(found) == len(rows), ended
    return found


def assert_problem(ended: Ended, topic: str, found: str) -> None:
    """Check that one thing is wrong, which one, and that there is advice."""
    rows = findings(ended)
    problems = [row for row in rows.values() if row["level"] == "problem"]
    assert [row["topic"] for row in problems] == [topic], ended
    assert found in rows[topic]["found"], ended
    assert rows[topic]["advice"], ended


def test_alone(runner: Runner) -> None:
    ended = runner.run(*words(runner, "-n", "4", "--json"), timeout=90)
    rows = findings(ended)
    assert ended.status == 0, ended
    assert set(rows) == {*ALL_TOPICS, "launcher"}, ended
    assert {row["level"] for row in rows.values()} <= {"good", "note"}, ended
    assert rows["ranks"]["found"].startswith("4 ranks on 1 host were started"), ended
    assert str(runner.environment.folder / "mpirun") in rows["launcher"]["found"], ended
    assert "2 workers" in rows["cores"]["found"] or rows["cores"]["level"] == "note", ended


def test_under_a_launcher(runner: Runner) -> None:
    ended = runner.raw_mpi(4, *words(runner, "--json"), timeout=90)
    assert ended.status == 0, ended
    assert set(findings(ended)) == ALL_TOPICS, ended


def test_the_report_is_for_people(runner: Runner) -> None:
    ended = runner.raw_mpi(3, *words(runner), timeout=90)
    assert ended.status == 0, ended
    lines = ended.stdout.splitlines()
    assert sum(line.startswith("good  ranks") for line in lines) == 1, ended
    assert lines[-1].startswith("Nothing was found that would fail"), ended
    assert "\x1b" not in ended.stdout, ended


def test_two_ranks_are_a_problem_and_are_examined_all_the_same(runner: Runner) -> None:
    ended = runner.run(*words(runner, "-n", "2", "--json"), timeout=90)
    assert ended.status == 1, ended
    assert_problem(ended, "ranks", "no rank is left to be a worker")
    assert findings(ended)["latency"]["found"], ended


def test_the_launcher_of_another_mpi(runner: Runner) -> None:
    """Each process is alone in its MPI world, or MPI does not let it in."""
    others = [found for found in ENVIRONMENTS if found != runner.environment]
    if not others:
        pytest.skip("only one MPI is here")
    launcher = Runner(others[0], runner.folder).launcher(4)
    ended = runner.run(*launcher, *words(runner, "--json"))
    assert ended.status != 0, ended
    assert_problem(ended, "ranks", "each of them is alone in its MPI world")


def test_no_launcher(runner: Runner) -> None:
    ended = runner.run(*words(runner, "--json", "--launcher", "srun"))
    assert ended.status == 1, ended
    assert_problem(ended, "launcher", "not inside a job of Slurm")


def test_no_mpi(runner: Runner) -> None:
    """An mpi4py whose library is missing, as without the module that has it."""
    broken = runner.folder / "broken" / "mpi4py"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("class rc: pass\n")
    (broken / "MPI.py").write_text("raise ImportError('libmpi.so.40: cannot open it')\n")
    alone = runner.run(*words(runner, "--json"), PYTHONPATH=str(broken.parent))
    assert alone.status == 1, alone
    assert_problem(alone, "MPI", "mpi4py cannot be loaded (libmpi.so.40")
    python = ["env", f"PYTHONPATH={broken.parent}", *words(runner, "--json")]
    ranks = runner.raw_mpi(3, *python)
    assert ranks.status != 0, ranks
    assert_problem(ranks, "MPI", "mpi4py cannot be loaded (libmpi.so.40")


def test_a_rank_never_comes(runner: Runner) -> None:
    silent = [":", "-n", "1", "sleep", "200"]
    ended = runner.raw_mpi(3, *words(runner, "--json", *TIMEOUT), *silent)
    assert ended.status != 0, ended
    assert_problem(ended, "ranks", "not come further than MPI_Init within 15 s")
    assert "promised 4 ranks" in ended.stdout, ended


#: A rank that enters MPI as all others do and then says nothing.
SILENT = """
import signal
from mpicluster.transport.mpi import connect
connect()
signal.pause()
"""


def test_a_rank_says_nothing(runner: Runner) -> None:
    script = runner.folder / "silent.py"
    script.write_text(SILENT)
    silent = [":", "-n", "1", runner.environment.python, str(script)]
    ended = runner.raw_mpi(3, *words(runner, "--json", *TIMEOUT), *silent)
    assert ended.status != 0, ended
    assert_problem(ended, "ranks", "Of 4 ranks, rank 3 did not answer")
    if runner.environment.name == "mpich":
        # Hydra ends that rank with SIGKILL, after which MPICH's own file stays.
        for path in Path("/dev/shm").glob("mpich_shm_*"):
            if path.stat().st_mtime >= script.stat().st_mtime and not _in_use(path):
                path.unlink()


def _in_use(path: Path) -> bool:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if str(path) in maps.read_text():
                return True
        except OSError:
            continue
    return False


def test_ranks_that_the_doctor_starts_never_report(runner: Runner) -> None:
    option = [f"--launcher-option={word}" for word in ("sh", "-c", "sleep 200")]
    ended = runner.run(*words(runner, "--json", "--timeout", "1", *option))
    assert ended.status == 1, ended
    assert_problem(ended, "ranks", "No rank has reported within")


def test_ranks_that_the_doctor_starts_fail(runner: Runner) -> None:
    option = [f"--launcher-option={word}" for word in ("sh", "-c", "echo no license >&2; exit 3")]
    ended = runner.run(*words(runner, "--json", *option))
    assert ended.status == 1, ended
    assert_problem(ended, "ranks", "no license")


def test_versions_differ(runner: Runner) -> None:
    """The last rank has another numpy first in its path."""
    package = runner.folder / "other" / "numpy-1.99.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.99.0\n")
    doctor = words(runner, "--json")
    other = [":", "-n", "1", "env", f"PYTHONPATH={package.parent}", *doctor]
    ended = runner.raw_mpi(3, *doctor, *other)
    assert ended.status != 0, ended
    assert_problem(ended, "versions", "but 1.99.0 on")
    assert "(rank 3)" in findings(ended)["versions"]["found"], ended


def test_several_hosts(runner: Runner) -> None:
    """A rank with another host name is on another host, as far as anybody is told."""
    elsewhere = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]
    if runner.run(*elsewhere, "true").status != 0:
        pytest.skip("this user may not have a host name of its own (unshare --uts)")
    doctor = words(runner, "--json")
    ended = runner.raw_mpi(3, *doctor, ":", "-n", "1", *elsewhere, *doctor, timeout=90)
    assert ended.status == 0, ended
    rows = findings(ended)
    assert set(rows) == {*ALL_TOPICS, "network", "clocks"}, ended
    assert rows["ranks"]["found"].startswith("4 ranks on 2 hosts were started"), ended
    assert rows["network"]["found"].startswith("Between hosts: "), ended
    assert rows["clocks"]["found"].startswith("The clocks of 2 hosts agree"), ended


def test_scratch_that_cannot_be_used(runner: Runner) -> None:
    (runner.folder / "file").write_text("")
    folder = str(runner.folder / "file" / "scratch")
    ended = runner.run(*words(runner, "--json", "--scratch", folder))
    assert ended.status == 1, ended
    assert_problem(ended, "scratch", "nothing can be written there")


def test_limits_on_memory_are_met(runner: Runner) -> None:
    """A worker reserves far more addresses than it has memory, in case it needs them."""
    shell = ["sh", "-c", 'ulimit -f 1000000; exec "$@"', "sh"]
    ended = runner.raw_mpi(3, *shell, *words(runner, "--json"))
    assert ended.status != 0, ended
    assert_problem(ended, "shared memory", "File too large")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(runner: Runner, number: int) -> None:
    option = [f"--launcher-option={word}" for word in ("sh", "-c", "touch begun; sleep 200")]
    process = runner.start(*words(runner, *option))
    while not (runner.folder / "begun").exists():
        assert process.poll() is None, runner.wait()
        signal.sigtimedwait([], 0.05)
    process.send_signal(number)
    ended = runner.wait(30)
    assert ended.status != 0, ended
    assert "Traceback" not in ended.stderr, ended
    runner.assert_nothing_left(10)
