"""Does every way in which a job can end leave the right status, one message and nothing behind?"""

import contextlib
import os
import platform
import pty
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ENVIRONMENTS, Runner, shared_files

from mpicluster import __version__

pytestmark = pytest.mark.real_mpi
Program = Callable[..., Path]

CLIENT = "from mpicluster import Client\nclient = Client()\n"


def test_a_normal_end_is_quiet(runner: Runner, program: Program) -> None:
    ended = runner.mpi(4, program(CLIENT + "print(client.submit(max, 1, 2).result())"))
    assert ended.status == 0, ended
    assert ended.stdout == "2\n"
    first, host, versions = ended.stderr.splitlines()
    assert first.startswith("mpicluster: 4 ranks on 1 host: 1 scheduler, 1 client, 2 workers with ")
    assert host.startswith(f"  {platform.node()}: scheduler, client, "), ended
    assert host.endswith((" memory", " each")), ended
    family = {"openmpi": "Open MPI", "mpich": "MPICH"}[runner.environment.name]
    expected = rf"  mpicluster {re.escape(__version__)}, Python 3\.[\d.]+, {family} [\d.]+"
    assert re.fullmatch(expected, versions), ended


def test_an_exception_in_the_script_is_shown_once(runner: Runner, program: Program) -> None:
    ended = runner.mpi(4, program(CLIENT + "raise ValueError('the script is wrong')"))
    assert ended.status == 1, ended
    assert ended.stderr.count("ValueError: the script is wrong") == 1, ended
    assert ended.seconds < 20, ended


def test_the_status_of_sys_exit_is_the_jobs(runner: Runner, program: Program) -> None:
    ended = runner.mpi(4, program(CLIENT + "import sys; sys.exit(3)"))
    assert ended.status == 3, ended
    assert "Traceback" not in ended.stderr, ended


def test_a_message_of_sys_exit_is_printed(runner: Runner, program: Program) -> None:
    ended = runner.mpi(4, program("import sys; sys.exit('no input file')"))
    assert ended.status == 1, ended
    assert ended.stderr.count("no input file") == 1, ended


def test_an_exception_before_the_client_exists(runner: Runner, program: Program) -> None:
    ended = runner.mpi(4, program("import no_such_module"))
    assert ended.status == 1, ended
    assert ended.stderr.count("ModuleNotFoundError: No module named 'no_such_module'") == 1, ended


def test_a_script_without_a_client_ends(runner: Runner, program: Program) -> None:
    ended = runner.mpi(3, program("print('nothing to do')"))
    assert (ended.status, ended.stdout) == (0, "nothing to do\n"), ended


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(runner: Runner, program: Program, number: int) -> None:
    script = program(
        CLIENT + "import time\nfuture = client.submit(time.sleep, 100)\n"
        "print('begun', flush=True)\nfuture.result()\n"
    )
    process = runner.start(*runner.mpi_words(4, script))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    started = time.monotonic()
    process.send_signal(number)
    ended = runner.wait(30)
    assert ended.status == 128 + number, ended
    sentences = [line for line in ended.stderr.splitlines() if line.startswith("mpicluster: the")]
    (sentence,) = sentences
    assert signal.Signals(number).name in sentence
    runner.assert_nothing_left(10)
    assert time.monotonic() - started < 15, ended


@pytest.mark.parametrize("bare", [False, True], ids=["run", "bare launcher"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_of_the_terminal_or_of_the_batch_system_ends_everything(
    runner: Runner, program: Program, number: int, bare: bool
) -> None:
    """Ctrl-C goes to all processes of the terminal, the launcher and whoever waits for it alike."""
    script = program(
        CLIENT + "import time\nfuture = client.submit(time.sleep, 100)\n"
        "print('begun', flush=True)\nfuture.result()\n"
    )
    words = runner.mpi_words(4, script)
    if bare:
        python = runner.environment.python
        words = [*runner.launcher(4), python, "-m", "mpicluster", str(script)]
    ours, theirs = pty.openpty()
    process = runner.start(*words, terminal=theirs)
    os.close(theirs)
    read = ""
    while "begun" not in read:
        read += os.read(ours, 4096).decode()
    started = time.monotonic()
    if number == signal.SIGINT:
        os.write(ours, b"\x03")
    else:
        process.send_signal(number)
    status = process.wait(30)
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while found := os.read(ours, 4096):
            read += found.decode()
    os.close(ours)
    # A launcher has a status of its own, and Open MPI's keeps what the ranks say of the signal.
    assert status == 128 + number if not bare else status != 0, read
    assert bare or read.count(signal.Signals(number).name) == 1, read
    assert "Traceback" not in read
    runner.assert_nothing_left(10)
    assert time.monotonic() - started < 15, read


TASKS = '''
import ctypes, os, pathlib, sys, tempfile, threading
from mpicluster import Client, KilledWorker, RemoteTaskError, TaskSerializationError

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one + two)

class Private(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()

# Only this process knows the folder: what is defined in it travels by its name.
folder = tempfile.mkdtemp()
pathlib.Path(folder, "only_the_client_has_this.py").write_text("def function(): return 1")
sys.path.append(folder)
from only_the_client_has_this import function as elsewhere

def raises(): raise KeyError("no such thing")
def crashes(): ctypes.string_at(0)
def leaves(): os._exit(7)
def exits(): sys.exit(5)
def gives_lock(): return threading.Lock()
def raises_odd(): raise Odd("a", "b")
def raises_private(): raise Private("with a lock")
def interrupts(): raise KeyboardInterrupt

client = Client()
for function in (
    raises, crashes, leaves, exits, gives_lock, raises_odd, raises_private, elsewhere, interrupts
):
    error = client.submit(function).exception()
    print(function.__name__, type(error).__name__, " ".join(str(error).split()), sep="|")
try:
    client.submit(len, threading.Lock())
except TaskSerializationError as error:
    print("argument", type(error).__name__, sep="|")
print("alive", client.submit(sum, [1, 2]).result(), sep="|")
'''


def test_no_task_takes_the_job_down(runner: Runner, program: Program) -> None:
    ended = runner.mpi(4, program(TASKS), timeout=90)
    assert ended.status == 0, ended
    rows = dict(line.split("|", 1) for line in ended.stdout.splitlines())
    assert rows["raises"] == "KeyError|'no such thing'", ended
    assert rows["crashes"].startswith("KilledWorker|The task 'crashes' ended the process"), ended
    assert "SIGSEGV" in rows["crashes"], ended
    assert rows["leaves"].startswith("KilledWorker|The task 'leaves' ended the process"), ended
    assert "status 7" in rows["leaves"], ended
    assert rows["exits"].startswith("RemoteTaskError|The task called sys.exit(5)"), ended
    assert rows["gives_lock"].startswith("TaskSerializationError|"), ended
    assert rows["raises_odd"].startswith("Odd|"), ended
    assert rows["raises_private"].startswith("RemoteTaskError|Private: with a lock"), ended
    assert rows["function"] == "ModuleNotFoundError|No module named 'only_the_client_has_this'"
    assert rows["interrupts"].startswith("RemoteTaskError|"), ended
    assert rows["argument"] == "TaskSerializationError", ended
    assert rows["alive"] == "3", ended


def test_a_rank_with_other_versions_is_named_at_the_start(runner: Runner, program: Program) -> None:
    """The last rank has another numpy first in its path; the job goes on all the same."""
    package = runner.folder / "other" / "numpy-1.99.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.99.0\n")
    script = program(CLIENT + (
        "from mpicluster import VersionMismatchError\n"
        "try:\n    client.get_versions(check=True)\n"
        "except VersionMismatchError as error:\n    print(error)\n"
    ))
    words = [runner.environment.python, "-m", "mpicluster", str(script)]
    other = [":", "-n", "1", "env", f"PYTHONPATH={package.parent}", *words]
    ended = runner.raw_mpi(3, *words, *other)
    assert ended.status == 0, ended
    found = rf"numpy is \S+ for the client, but 1\.99\.0 on {platform.node()} \(rank 3\)"
    assert re.match(found, ended.stdout), ended
    (warning,) = [line for line in ended.stderr.splitlines() if "warning" in line]
    assert re.search(found, warning), ended


def test_initialize_in_a_script_that_has_its_ranks_changes_nothing(
    runner: Runner, program: Program
) -> None:
    script = program(
        "import sys, mpicluster\n"
        "assert mpicluster.initialize() and mpicluster.initialize()\n"
        "with mpicluster.Client() as client:\n    print(client.submit(max, 1, 2).result())\n"
        "print(repr(sys.stdin.read()))\n"
    )
    ended = runner.mpi(3, script)
    assert (ended.status, ended.stdout.split()) == (0, ["2", "''"]), ended


def test_survival_may_be_asked_for_in_the_environment(runner: Runner, program: Program) -> None:
    script = program("from mpicluster import Client\nprint(Client().config.survive)\n")
    words = runner.mpi_words(3, script)
    ended = runner.run(*words, MPICLUSTER_SURVIVE="ranks")
    assert (ended.status, ended.stdout.strip()) == (0, "ranks"), ended


def test_one_rank_is_a_local_cluster(runner: Runner, program: Program) -> None:
    script = program(
        "from mpicluster import Client\n"
        "with Client(n_workers=1) as client:\n    print(client.submit(max, 1, 2).result())\n"
    )
    words = [runner.environment.python, "-m", "mpicluster", str(script)]
    ended = runner.raw_mpi(1, *words)
    assert (ended.status, ended.stdout) == (0, "2\n"), ended
    ended = runner.run(*words)
    assert (ended.status, ended.stdout) == (0, "2\n"), ended


def test_two_ranks_are_refused(runner: Runner, program: Program) -> None:
    script = program("print('must not run')")
    ended = runner.raw_mpi(2, runner.environment.python, "-m", "mpicluster", str(script))
    assert ended.status != 0, ended
    assert ended.stdout == "", ended
    assert ended.stderr.count("no rank is left to be a worker") == 1, ended
    ended = runner.mpi(2, script)
    assert ended.status == 2, ended
    assert "has no worker" in ended.stderr, ended


def test_singletons_are_refused(runner: Runner, program: Program) -> None:
    """A launcher of another MPI starts processes that do not know of each other."""
    others = [found for found in ENVIRONMENTS if found != runner.environment]
    if not others:
        pytest.skip("only one MPI is here")
    script = program("print('must not run')")
    launcher = Runner(others[0], runner.folder).launcher(4)
    ended = runner.run(*launcher, runner.environment.python, "-m", "mpicluster", str(script))
    assert ended.status != 0, ended
    assert ended.stdout == "", ended
    assert ended.stderr.count("each of them is alone in its MPI world") == 1, ended


def test_initialize_in_the_script(runner: Runner, program: Program) -> None:
    script = program(
        "import sys, mpicluster\nmpicluster.initialize()\n"
        "from mpicluster import Client\n"
        "with Client() as client:\n    print(client.gather(client.map(abs, [-1, -2])))\n"
        "sys.exit(int(sys.argv[1]))\n"
    )
    ended = runner.raw_mpi(4, runner.environment.python, str(script), "0")
    assert (ended.status, ended.stdout) == (0, "[1, 2]\n"), ended
    ended = runner.raw_mpi(4, runner.environment.python, str(script), "3")
    assert (ended.status, ended.stdout) == (3, "[1, 2]\n"), ended


def test_slots_end_with_their_rank(runner: Runner, program: Program) -> None:
    """A worker rank that is killed takes its slots along and ends the job loudly."""
    script = program(
        CLIENT + "import os, signal, time\n"
        "future = client.submit(time.sleep, 100)\n"
        "time.sleep(0.5)\n"
        "pid = client.scheduler_info()['workers'][2]['pid']\n"
        "os.kill(pid, signal.SIGKILL)\n"
        "future.result()\n"
    )
    ended = runner.mpi(4, script, timeout=60)
    assert ended.status != 0, ended
    assert ended.seconds < 40, ended


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_what_tasks_have_started_ends_with_the_job(
    runner: Runner, program: Program, number: int | None
) -> None:
    """A launcher waits for all that could still write into the job's output."""
    script = program(
        CLIENT + "import subprocess, sys, time\n"
        "def start():\n"
        "    subprocess.Popen(['sleep', '300'])\n"
        "    subprocess.Popen('setsid sleep 301 & sleep 302 & exit', shell=True).wait()\n"
        "client.submit(start).result()\nprint('begun', flush=True)\n"
        "time.sleep(300 * int(sys.argv[1]))\n"
    )
    process = runner.start(*runner.mpi_words(4, script, str(int(number is not None))))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    if number is not None:
        process.send_signal(number)
    ended = runner.wait(30)
    assert ended.status == (0 if number is None else 128 + number), ended
    runner.assert_nothing_left(5)


def test_a_script_that_is_killed_takes_its_local_cluster_along(
    runner: Runner, program: Program
) -> None:
    """Also where a child that it has forked keeps its sockets open."""
    script = program(
        "import os, subprocess, time\nfrom mpicluster import Client\n"
        "def start():\n    subprocess.Popen(['sleep', '300'])\n"
        "client = Client(n_workers=1)\nclient.submit(start).result()\n"
        "if os.fork() == 0:\n    time.sleep(12)\n    os._exit(0)\n"
        "print('begun', flush=True)\ntime.sleep(300)\n"
    )
    process = runner.start(runner.environment.python, str(script))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.kill()
    deadline = time.monotonic() + 8
    while len(runner.left()) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(runner.left()) <= 1  # the child
    runner.wait(30)
    runner.assert_nothing_left(10)


def test_a_job_that_is_killed_leaves_nothing_in_shared_memory(
    runner: Runner, program: Program
) -> None:
    """Grid Engine's qdel, and Slurm when patience is over, kill all processes at once."""
    script = program(
        CLIENT + "import time, numpy\n"
        "client.submit(numpy.ones, 10_000_000).result()\n"
        "print('begun', flush=True)\ntime.sleep(100)\n"
    )
    before = shared_files()
    # The launchers leave files of their own, which nobody is left to remove.
    of_hydra = set(Path("/tmp").glob("hydra_hwloc_xmlfile_*"))
    process = runner.start(*runner.mpi_words(4, script), TMPDIR=str(runner.folder))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for found in runner.left():
        found.kill()
    runner.wait(30)
    runner.assert_nothing_left(10)
    for path in set(Path("/tmp").glob("hydra_hwloc_xmlfile_*")) - of_hydra:
        path.unlink()
    assert shared_files() - before == set()
