"""With `--survive ranks`: does a script get its results and its status without some workers?"""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from harness import Ended, Runner

pytestmark = pytest.mark.real_mpi
Program = Callable[..., Path]

#: Small, so that also the silence of a rank is noticed within a test.
LOST_AFTER_S = 4
SETTINGS = ["--set", f"lost_after_s={LOST_AFTER_S}", "--set", "status_interval_s=0.3"]
#: Against hangs only: the machine may be busy.
TIMEOUT_S = 180.0

#: `end(rank)` ends a worker's process as a lack of memory would, `stop(rank)` lets it hang.
CLIENT = """
import os, signal, sys, time
import numpy as np
from mpicluster import Client, LostValueError, MpiclusterError
client = Client()
pids = {rank: found["pid"] for rank, found in client.scheduler_info()["workers"].items()}

def end(rank):
    os.kill(pids[rank], signal.SIGKILL)

def stop(rank):
    os.kill(pids[rank], signal.SIGSTOP)

def until_lost(rank):
    while rank in client.scheduler_info()["workers"]:
        time.sleep(0.05)
"""


def survive(runner: Runner, script: Path, *arguments: str, ranks: int = 5) -> Ended:
    """Run a script on a cluster that goes on without ranks that are lost."""
    return runner.run(*words(runner, script, *arguments, ranks=ranks), timeout=TIMEOUT_S)


def words(runner: Runner, script: Path, *arguments: str, ranks: int = 5) -> list[str]:
    options = ["--slots", "1", "--survive", "ranks", *SETTINGS]
    return runner.mpi_words(ranks, script, *arguments, options=options)


def assert_lost(ended: Ended, rank: int) -> None:
    assert ended.stderr.count(f"worker rank {rank} on ") == 1, ended
    assert "Traceback" not in ended.stderr, ended


@pytest.mark.parametrize("status", ["0", "3"])
def test_lost_among_many_short_tasks(runner: Runner, program: Program, status: str) -> None:
    script = program(CLIENT + """
def square(number):
    time.sleep(0.002)
    return number * number

futures = client.map(square, range(1500))
futures[300].result()
end(3)
print(client.gather(futures) == [number * number for number in range(1500)])
until_lost(3)
print(sorted(client.scheduler_info()["workers"]))
print(client.gather(client.map(square, range(50), pure=False))[-1])
sys.exit(int(sys.argv[1]))
""")
    ended = survive(runner, script, status)
    assert ended.stdout.splitlines() == ["True", "[2, 4]", "2401"], ended
    assert ended.status == int(status), ended
    assert_lost(ended, 3)


def test_lost_with_intermediate_results(runner: Runner, program: Program) -> None:
    """What only the lost worker held is computed again, and what that needs; twice over."""
    script = program(CLIENT + """
def first(number):
    return np.full(50_000, number)

def second(array):
    return array * 2

def third(left, right):
    time.sleep(0.05)
    return int((left + right).sum())

ones = client.map(first, range(24))
twos = client.map(second, ones)
client.gather([client.submit(len, two) for two in twos])
end(2)
threes = [client.submit(third, twos[n], ones[n - 1]) for n in range(24)]
results = client.gather(threes)
end(4)
sums = [client.submit(third, twos[n], twos[n - 1]) for n in range(24)]
print(results == [50_000 * (2 * n + (n - 1) % 24) for n in range(24)])
print(client.gather(sums) == [50_000 * 2 * (n + (n - 1) % 24) for n in range(24)])
print([int(array[0]) for array in client.gather(ones)] == list(range(24)))
print(sorted(client.scheduler_info()["workers"]))
""")
    ended = survive(runner, script)
    assert ended.stdout.splitlines() == ["True", "True", "True", "[3]"], ended
    assert ended.status == 0, ended
    assert_lost(ended, 2)
    assert_lost(ended, 4)


def test_lost_while_it_sends_a_large_value(runner: Runner, program: Program) -> None:
    """A worker and the client have begun to receive from it; both get the value elsewhere."""
    script = program(CLIENT + """
import threading

def make():
    return np.arange(25_000_000)

def total(array):
    return int(array.sum())

value = client.submit(make)
client.submit(len, value).result()
holder = next(iter(client.who_has(value).values()))[0]
others = [rank for rank in pids if rank != holder]
totals = [client.submit(total, value, workers=[rank], pure=False) for rank in others]
threading.Timer(float(sys.argv[1]), end, [holder]).start()
array = client.gather(value)
expected = 25_000_000 * 24_999_999 // 2
print(int(array.sum()) == expected)
print(client.gather(totals) == [expected] * len(others))
until_lost(holder)
print(client.submit(total, value, pure=False).result() == expected)
""")
    for delay in ("0.0", "0.03"):
        ended = survive(runner, script, delay)
        assert ended.stdout.splitlines() == ["True", "True", "True"], ended
        assert ended.status == 0, ended
        assert "Traceback" not in ended.stderr, ended


def test_lost_while_a_large_value_is_sent_to_it(runner: Runner, program: Program) -> None:
    """Neither the client, which scatters, nor the worker that sends may wait for it for ever."""
    script = program(CLIENT + """
import threading

def total(array):
    return int(array.sum())

value = client.submit(np.arange, 25_000_000, workers=[2])
assert client.submit(len, value).result() == 25_000_000
wanted = client.submit(total, value, workers=[4])
array = np.arange(25_000_000)
threading.Timer(float(sys.argv[1]), end, [4]).start()
scattered = client.scatter(array, workers=[4])
until_lost(4)
for future in (scattered, wanted):
    try:
        future.result()  # of one that had arrived before, too
        print("computed")
    except MpiclusterError as error:
        print(type(error).__name__)
print(client.submit(total, value).result() == 25_000_000 * 24_999_999 // 2)
""")
    for delay in ("0.0", "0.03"):
        ended = survive(runner, script, delay)
        lines = ended.stdout.splitlines()
        assert lines[0] == "LostValueError", ended
        assert lines[1] in ("NoValidWorkerError", "computed"), ended
        assert lines[2:] == ["True"], ended
        assert ended.status == 0, ended
        assert_lost(ended, 4)


def test_lost_while_copies_are_made(runner: Runner, program: Program) -> None:
    """Who asks for copies on all workers does not wait for one that is gone, nor for a value."""
    script = program(CLIENT + """
import threading
kept = client.scatter("kept", workers=[3])
lost = client.scatter("lost", workers=[4])
assert client.submit(len, kept).result() == 4
stop(4)
threading.Timer(0.5, end, [4]).start()
client.replicate([kept])
(ranks,) = client.who_has([kept]).values()
print(sorted(ranks))
try:
    client.replicate([lost])
except LostValueError:
    print("LostValueError")
until_lost(4)
""")
    ended = survive(runner, script)
    assert ended.stdout.splitlines() == ["[2, 3]", "LostValueError"], ended
    assert ended.status == 0, ended
    assert_lost(ended, 4)


def test_lost_while_idle(runner: Runner, program: Program) -> None:
    script = program(CLIENT + """
print(client.submit(max, 1, 2).result())
time.sleep(1.5)
end(4)
print(client.gather(client.map(abs, range(100))) == list(range(100)))
until_lost(4)
print(client.gather(client.map(abs, range(-100, 0))) == list(range(100, 0, -1)))
print(sorted(client.run(os.getpid)) == [2, 3])
""")
    ended = survive(runner, script)
    assert ended.stdout.splitlines() == ["2", "True", "True", "True"], ended
    assert ended.status == 0, ended
    assert_lost(ended, 4)


def test_nobody_is_lost(runner: Runner, program: Program) -> None:
    """The option alone changes nothing: neither the status nor what is printed."""
    script = program(CLIENT + "print(client.submit(max, 1, 2).result())\nsys.exit(3)")
    ended = survive(runner, script)
    assert (ended.status, ended.stdout) == (3, "2\n"), ended
    assert ended.stderr.count("\n") == 3, ended


def test_all_workers_are_lost(runner: Runner, program: Program) -> None:
    """What cannot be computed any more fails with an error that says so."""
    script = program(CLIENT + """
future = client.submit(time.sleep, 100)
time.sleep(0.5)
for rank in pids:
    end(rank)
for found in (future, client.submit(max, 1, 2)):
    try:
        print(found.result())
    except MpiclusterError as error:
        print(type(error).__name__)
sys.exit(4)
""")
    ended = survive(runner, script, ranks=4)
    assert ended.stdout.splitlines() == ["NoValidWorkerError"] * 2, ended
    assert ended.status == 4, ended


def test_a_worker_that_hangs_is_ended(runner: Runner, program: Program) -> None:
    """No MPI reports a process that is stopped; its zygote ends it, or no launcher would return."""
    script = program(CLIENT + """
futures = client.map(time.sleep, [0.01] * 300, pure=False)
stop(2)
client.gather(futures)
until_lost(2)
print(client.submit(max, 1, 2).result())
sys.exit(3)
""")
    ended = survive(runner, script)
    assert (ended.status, ended.stdout) == (3, "2\n"), ended
    assert_lost(ended, 2)


def test_a_slow_worker_is_told_to_leave(runner: Runner, program: Program) -> None:
    """It was only stopped for a while, and so was its zygote: nobody listens to it any more."""
    script = program(CLIENT + """
import psutil
futures = client.map(abs, range(200))
client.gather(futures)
(zygote,) = psutil.Process(pids[2]).children()
zygote.suspend()
stop(2)
until_lost(2)
again = client.map(abs, range(-200, 0))
print(client.gather(again) == list(range(200, 0, -1)))
os.kill(pids[2], signal.SIGCONT)
while psutil.pid_exists(pids[2]) and psutil.Process(pids[2]).status() != psutil.STATUS_ZOMBIE:
    time.sleep(0.05)
print(client.submit(max, 1, 2).result())
sys.exit(3)
""")
    ended = survive(runner, script)
    assert (ended.status, ended.stdout) == (3, "True\n2\n"), ended
    assert "worker rank 2 on" in ended.stderr, ended
    assert ended.stderr.count("leaves, because it counts as lost") == 1, ended


def test_a_broken_worker_is_a_lost_worker(runner: Runner, program: Program) -> None:
    """Without its zygote a worker cannot go on: it says why, and the others do."""
    script = program(CLIENT + """
import psutil
(zygote,) = psutil.Process(pids[3]).children()
zygote.kill()
until_lost(3)
print(client.submit(max, 1, 2).result())
""")
    ended = survive(runner, script)
    assert (ended.status, ended.stdout) == (0, "2\n"), ended
    assert ended.stderr.count("The process that forks the slots of rank 3") == 1, ended


WAITING = CLIENT + """
print(os.getpid(), flush=True)
client.submit(time.sleep, 300).result()
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_the_job_ends_with_its_scheduler_or_script(
    runner: Runner, program: Program, rank: int
) -> None:
    process = runner.start(*words(runner, program(WAITING)))
    assert process.stdout is not None
    script = int(process.stdout.readline())
    psutil.Process(process_of(runner, rank, script)).kill()
    started = time.monotonic()
    ended = runner.wait(TIMEOUT_S)
    assert ended.status != 0, ended
    if runner.environment.name == "openmpi":
        assert ended.stderr.count(f"Rank {rank}, which ") == 1, ended
    runner.assert_nothing_left(30)
    assert time.monotonic() - started < 60, ended


#: Makes Hydra take this machine for two hosts, each with a process of Hydra's and over the network.
TWO_HOSTS = [
    f"--launcher-option={word}" for word in ("-launcher", "fork", "-hosts", "one:3,other:2")
]


def test_lost_on_another_host(runner: Runner, program: Program) -> None:
    if runner.environment.name != "mpich":
        pytest.skip("only Hydra can take one machine for two hosts")
    script = program(CLIENT + """
futures = client.map(abs, range(300))
client.gather(futures)
end(3)
print(client.submit(sum, futures).result() == sum(range(300)))
until_lost(3)
print(sorted(client.scheduler_info()["workers"]))
sys.exit(3)
""")
    command = words(runner, script)
    command[4:4] = TWO_HOSTS
    ended = runner.run(*command, timeout=TIMEOUT_S)
    assert ended.stdout.splitlines() == ["True", "[2, 4]"], ended
    assert ended.status == 3, ended
    assert_lost(ended, 3)


def test_workers_of_another_host_end_with_the_script(
    runner: Runner, program: Program
) -> None:
    """Hydra ends the ranks of that host at once, or later, and leaves the other hosts alone."""
    if runner.environment.name != "mpich":
        pytest.skip("only Hydra can take one machine for two hosts")
    command = words(runner, program(WAITING))
    command[4:4] = TWO_HOSTS
    process = runner.start(*command)
    assert process.stdout is not None
    psutil.Process(int(process.stdout.readline())).kill()
    ended = runner.wait(TIMEOUT_S)
    assert ended.status != 0, ended
    assert "which ran the script, is gone" in ended.stderr or (
        "which was the scheduler, is gone: nothing has been heard" in ended.stderr
    ), ended


def process_of(runner: Runner, rank: int, script: int) -> int:
    """Return the process of a rank; that of rank 1, the script's, is known.

    A zygote that is a fork of its rank, and its slots, began with the same variables.
    """
    if rank == 1:
        return script
    names = "OMPI_COMM_WORLD_RANK", "PMI_RANK"
    found = {
        process.pid: process.ppid() for process in runner.left()
        if process.pid != script and str(rank) in map(process.environ().get, names)
    }
    (first,) = [pid for pid, parent in found.items() if parent not in found]
    return first


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(runner: Runner, program: Program, number: int) -> None:
    process = runner.start(*words(runner, program(WAITING)))
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(number)
    ended = runner.wait(TIMEOUT_S)
    assert ended.status != 0, ended
    runner.assert_nothing_left(30)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_without_the_option_a_lost_rank_ends_the_job(
    runner: Runner, program: Program, rank: int
) -> None:
    process = runner.start(*runner.mpi_words(4, program(WAITING)))
    assert process.stdout is not None
    script = int(process.stdout.readline())
    psutil.Process(process_of(runner, rank, script)).kill()
    started = time.monotonic()
    ended = runner.wait(TIMEOUT_S)
    assert ended.status != 0, ended
    # The launcher says it: it leaves the other ranks no time to.
    assert re.search("SIGKILL|[Ss]ignal 9|KILLED|Killed", ended.stderr + ended.stdout), ended
    runner.assert_nothing_left(10)
    assert time.monotonic() - started < 30, ended


def test_what_had_come_of_a_failed_rank_is_taken_away(runner: Runner, program: Program) -> None:
    """It had not been received when MPI reported the failure: probes found it again and again, to
    receive it was an error, and once in twenty runs the scheduler waited for it for ever.
    """
    if runner.environment.name != "openmpi":
        pytest.skip("only Open MPI reports failures")
    script = program("""
import os, signal, time
from mpicluster import messages as m
from mpicluster.transport.mpi import connect
transport = connect()
if transport.rank == 2:
    for number in range(20):
        transport.send(0, [m.FreeKeys([number])])
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        transport.arrived()
    os.kill(os.getpid(), signal.SIGKILL)
if transport.rank == 0:
    while not transport.gone:
        time.sleep(0.1)
        try:
            transport.communicator.Iprobe(transport._any_source, 99)
        except transport._exception as error:
            transport._note_failure(error)
    transport.send(1, [m.FreeKeys([1])])
deadline = time.monotonic() + 20
found = []
while not found and time.monotonic() < deadline:
    found += transport.receive()
if transport.rank == 1:
    transport.send(0, [m.FreeKeys([2])])
    time.sleep(2)
else:
    print([(rank, message.keys) for rank, messages in found for message in messages], flush=True)
    for _ in range(50):
        transport.receive()
    print(transport.arrived(), flush=True)
os._exit(0)
""")
    launcher = runner.launcher(3)
    launcher[1:1] = ["--with-ft", "ulfm"]
    ended = runner.run(*launcher, runner.environment.python, str(script), timeout=TIMEOUT_S)
    assert ended.stdout.splitlines() == ["[(1, [2])]", "False"], ended
