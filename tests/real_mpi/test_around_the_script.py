"""What may a script do beside its tasks: fork, wait in threads and at its exit, be interrupted?"""

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Runner

pytestmark = pytest.mark.real_mpi
Program = Callable[..., Path]


def test_a_forked_process_has_no_part_in_the_job(runner: Runner, program: Program) -> None:
    """It ends as it likes, by an error or by a signal, and cannot use the client."""
    script = program(
        """
import multiprocessing, os, signal, sys, time
from mpicluster import Client
client = Client()

def status_of(child):
    process = os.fork()
    if not process:
        child()
        sys.exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def fail():
    raise ValueError("in the child")

def use_the_client():
    try:
        client.submit(abs, -1).result()
    finally:
        client.close()

if __name__ == "__main__":
    print(status_of(lambda: None), status_of(fail), status_of(use_the_client), flush=True)
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    time.sleep(0.2)
    process.terminate()
    process.join()
    print(process.exitcode)
    print(client.submit(abs, -2).result())
"""
    )
    ended = runner.mpi(4, script, timeout=100)
    assert ended.status == 0, ended
    assert ended.stdout.splitlines() == ["3 1 1", "-15", "2"], ended
    assert "ValueError: in the child" in ended.stderr
    assert "This process was forked from the one that has the client" in ended.stderr
    assert "told to end" not in ended.stderr


def test_threads_and_exit_functions_still_have_the_cluster(
    runner: Runner, program: Program
) -> None:
    script = program(
        """
import atexit, threading, time
from concurrent.futures import ThreadPoolExecutor
from mpicluster import Client

def slow(value):
    time.sleep(0.5)
    return value

client = Client()
atexit.register(lambda: print(f"exit {client.submit(slow, 3).result()}\\n", end=""))
future = client.submit(slow, 1)
threading.Thread(target=lambda: print(f"thread {future.result()}\\n", end="")).start()
executor = ThreadPoolExecutor(1)
executor.submit(lambda: print(f"executor {client.submit(slow, 2).result()}\\n", end=""))
print("end")
"""
    )
    ended = runner.mpi(4, script, timeout=100)
    assert ended.status == 0, ended
    first, *others, last = ended.stdout.splitlines()
    assert (first, sorted(others), last) == ("end", ["executor 2", "thread 1"], "exit 3"), ended


def test_an_interrupted_call_loses_nothing(runner: Runner, program: Program) -> None:
    """An alarm that raises at any moment of a call; large values are under way in several parts."""
    script = program(
        """
import random, signal, time
import numpy as np
from mpicluster import Client, wait

class Late(Exception):
    pass

def raise_late(*_):
    raise Late

signal.signal(signal.SIGALRM, raise_late)
client = Client()
lots = random.Random(1)
arrays = [np.full(200_000, float(number)) for number in range(8)]
interrupts = 0
for turn in range(150):
    numbers = client.map(abs, range(2000), pure=False)
    try:
        signal.setitimer(signal.ITIMER_REAL, lots.random() * 0.02 + 0.0003)
        try:
            if turn % 2:
                client.gather(numbers)
            values = client.gather(client.map(np.negative, client.scatter(arrays), pure=False))
            client.gather(client.map(abs, range(2000), pure=False))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Late:
        interrupts += 1
    wait(numbers, timeout=30)
    assert client.gather(numbers) == list(range(2000))
assert interrupts > 50, interrupts
assert client.gather(client.scatter(arrays))[3][0] == 3
numbers = values = None

def left():
    return sum(map(len, client.has_what().values()))

deadline = time.monotonic() + 20
while left() and time.monotonic() < deadline:
    time.sleep(0.05)
credits, most = client.loop.core.credits, client.loop.config.submit_credits
print(left(), most - credits <= most // 4)  # the scheduler gives back as many together
"""
    )
    ended = runner.mpi(4, script, timeout=150)
    assert ended.status == 0, ended
    assert ended.stdout.splitlines() == ["0 True"], ended
