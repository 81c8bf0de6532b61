"""Does everything that a script may ask for work on real ranks?"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Runner

from mpicluster.worker.arena_file import open_arena_file

pytestmark = pytest.mark.real_mpi
Program = Callable[..., Path]


def check(runner: Runner, script: Path, lines: list[str], ranks: int = 4) -> None:
    ended = runner.mpi(ranks, script, timeout=100)
    assert ended.status == 0, ended
    assert ended.stdout.splitlines() == lines, ended


def test_values_between_ranks(runner: Runner, program: Program) -> None:
    """Large and small, there and between workers and back, changed by who receives them."""
    script = program(
        """
import numpy as np
from mpicluster import Client
with Client() as client:
    first, second = sorted(client.nthreads())
    mine = np.arange(5_000_000.0)
    sent = client.scatter(mine, workers=[first])
    there = client.submit(np.negative, sent, workers=[second])
    back = there.result()
    print(np.array_equal(back, -mine))
    back[0] = 1
    def write(array):
        array[:] = 0
        return float(array.sum())
    print(client.submit(write, sent, workers=[second]).result())
    print(np.array_equal(client.gather(sent), mine))
    print({key: sorted(ranks) for key, ranks in client.who_has([sent]).items()}[sent.key])
    small = client.scatter({"a": 1, "b": "two"})
    print(client.gather(small))
    everywhere = client.scatter(mine, broadcast=True, hash=False)
    print(sorted(client.who_has([everywhere])[everywhere.key]))
"""
    )
    lines = ["True", "0.0", "True", "[2, 3]", "{'a': 1, 'b': 'two'}", "[2, 3]"]
    check(runner, script, lines)


def test_large_arguments_and_large_values_of_tasks(runner: Runner, program: Program) -> None:
    """Those of tasks are written by their slot, kept by its worker or sent on to another."""
    script = program(
        """
import numpy as np
from mpicluster import Client, get_client
def task(first):
    inner = get_client()
    arrays = [np.full(20_000, first + number) for number in range(100)]
    large = inner.scatter(np.ones(5_000_000), workers=[2 + first % 2])
    found = inner.map(lambda array: int(array[0]), inner.scatter(arrays))
    text = inner.submit(len, "x" * 300_000)
    return sum(inner.gather(found)), float(inner.submit(np.sum, large).result()), text.result()
def chunks():
    memory = np.zeros(100_000)
    for number in range(300):
        if number % 100 == 0:
            memory[:] = number
        yield memory
with Client() as client:
    print(*client.gather(client.map(task, [0, 1000, 2001], pure=False)))
    sums = client.gather(client.map(lambda array, _: float(array.sum()), chunks(), range(300)))
    print(sums[0], sums[100], sums[299])
    array = np.ones(1_000_000)
    future = client.submit(np.sum, array)
    array[:] = 0
    print(float(future.result()))
"""
    )
    inner = [f"({4950 + 100 * first}, 5000000.0, 300000)" for first in (0, 1000, 2001)]
    check(runner, script, [" ".join(inner), "0.0 10000000.0 20000000.0", "1000000.0"])


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--set", "share_memory=false"]], ids=["lent", "sent"])
def test_a_value_over_2_gib(runner: Runner, program: Program, options: list[str]) -> None:
    """Lent where it lies, or sent through MPI, whose counts end at 2 GiB."""
    script = program(
        """
import numpy as np
from mpicluster import Client
with Client() as client:
    first, second = sorted(client.nthreads())
    large = client.submit(np.ones, 280_000_000, workers=[first])
    print(client.submit(lambda a: (a.nbytes, a[-1]), large, workers=[second]).result())
    print(large.result()[-1])
    while True:
        info = client.scheduler_info()["workers"][second]["metrics"]
        if info["received_bytes"] + info["borrowed_bytes"] > 2_240_000_000:
            break
    print(info["received_bytes"] > 2_240_000_000)
"""
    )
    ended = runner.run(*runner.mpi_words(4, script, options=options), timeout=100)
    lines = ["(2240000000, np.float64(1.0))", "1.0", str(bool(options))]
    assert (ended.status, ended.stdout.splitlines()) == (0, lines), ended


@pytest.mark.parametrize("allowed", [True, False])
def test_large_values_whether_pages_may_be_huge(
    runner: Runner, program: Program, allowed: bool
) -> None:
    script = program(
        """
import os
import numpy as np
from mpicluster import Client
def names():
    names = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            names[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass
    return "/memfd:mpicluster (deleted)" in names.values()
with Client() as client:
    first, second = sorted(client.nthreads())
    large = client.submit(np.ones, 4_000_000, workers=[first])
    print(client.submit(np.sum, large, workers=[second]).result(), large.result()[-1])
    print(client.submit(names).result())
"""
    )
    fd, reason = open_arena_file(huge_pages=allowed)
    os.close(fd)
    options = ["--set", f"huge_pages={allowed}"]
    ended = runner.run(*runner.mpi_words(4, script, options=options))
    lines = ["4000000.0 1.0", str(not allowed or bool(reason))]
    assert (ended.status, ended.stdout.splitlines()) == (0, lines), ended


def test_nothing_waits_behind_a_run_that_nobody_wants(
    runner: Runner, program: Program, tmp_path: Path
) -> None:
    """The slot of a cancelled task that goes on counted as free."""
    end = tmp_path / "end"
    script = program(
        f"""
import os, time
from pathlib import Path
from mpicluster import Client
begun, end = Path({str(tmp_path / "begun")!r}), Path({str(end)!r})
def hold():
    begun.touch()
    while not end.exists():
        time.sleep(0.01)
with Client() as client:
    held = client.submit(hold)
    while not begun.exists():
        time.sleep(0.01)
    client.cancel(held)
    print([client.submit(abs, -number).result() for number in range(5)])
    print(sum(client.gather(client.map(lambda x: time.sleep(0.01) or x, range(40)))))
    print(end.exists())
    end.touch()
"""
    )
    try:
        check(runner, script, [str([0, 1, 2, 3, 4]), "780", "False"])
    finally:
        end.touch()


def test_many_small_tasks_and_results(runner: Runner, program: Program) -> None:
    script = program(
        """
from mpicluster import Client, as_completed, wait
with Client() as client:
    futures = client.map(lambda x: x + 1, range(50_000))
    print(sum(client.gather(futures)))
    total = client.submit(sum, futures)
    print(total.result())
    print(sum(result for _, result in as_completed(futures[:100], with_results=True)))
    done = wait(client.map(abs, range(10)))
    print(len(done.done), len(done.not_done))
    blocks = client.map(bytes, [5000] * 2000, pure=False)
    print(sum(len(block) for block in client.gather(blocks)))
"""
    )
    check(runner, script, ["1250025000", "1250025000", "5050", "10 0", "10000000"])


def test_tasks_that_make_tasks(runner: Runner, program: Program) -> None:
    """More waiting tasks than slots: the places of those that wait are lent."""
    script = program(
        """
from mpicluster import Client, Lock, Queue, get_client, get_worker

def fibonacci(n):
    if n < 2:
        return n
    client = get_client()
    parts = client.submit(fibonacci, n - 1), client.submit(fibonacci, n - 2)
    return sum(client.gather(list(parts)))

def report(queue, number):
    with Lock("one at a time"):
        queue.put((number, get_worker().name))

with Client() as client:
    print(client.submit(fibonacci, 9).result())
    queue = Queue()
    client.gather(client.map(lambda number: report(queue, number), range(6)))
    seen = queue.get(batch=6)
    print(sorted(number for number, _ in seen), {rank for _, rank in seen} <= {2, 3})
"""
    )
    check(runner, script, ["34", "[0, 1, 2, 3, 4, 5] True"])


def test_recursion_needs_no_more_processes_than_its_depth(
    runner: Runner, program: Program
) -> None:
    """What tasks submit runs first, the newest first; in the order of arrival hundreds would wait.

    A worker counted what its slots share once for each of them, and paused for ever.
    """
    script = program(
        """
from mpicluster import Client, worker_client

def fibonacci(n):
    if n < 2:
        return n
    with worker_client() as client:
        parts = [client.submit(fibonacci, n - back, pure=False) for back in (1, 2)]
        return sum(client.gather(parts))

def nested(depth):
    if not depth:
        return 0
    with worker_client() as client:
        return client.submit(nested, depth - 1, pure=False).result() + 1

with Client() as client:
    print(client.submit(fibonacci, 13).result())
    print(client.submit(nested, 100).result())
"""
    )
    options = ["--slots", "1", "--memory-limit", "2GB"]
    ended = runner.run(*runner.mpi_words(4, script, options=options), timeout=100)
    assert (ended.status, ended.stdout.split()) == (0, ["233", "100"]), ended


def test_placement_priorities_and_retries(runner: Runner, program: Program) -> None:
    script = program(
        """
import os, tempfile
from mpicluster import Client, NoValidWorkerError, get_worker
with Client() as client:
    where = lambda _: get_worker().name
    print(set(client.gather(client.map(where, range(20), workers=3, pure=False))))
    host = next(iter(client.scheduler_info()["workers"].values()))["host"]
    print(client.submit(where, 0, workers=host).result() in (2, 3))
    try:
        client.submit(where, 1, resources={"GPU": 1})
    except NoValidWorkerError as error:
        print("no worker")
    counter = tempfile.mkstemp()[1]
    def fragile():
        with open(counter, "a") as file:
            file.write("x")
        if os.path.getsize(counter) < 3:
            raise OSError("not yet")
        return os.path.getsize(counter)
    print(client.submit(fragile, retries=5).result())
    os.remove(counter)
    print(sorted(client.run(os.getpid)) == [2, 3])
    client.get_versions(check=True)
"""
    )
    check(runner, script, ["{3}", "True", "no worker", "3", "True"])


def test_values_that_do_not_fit_go_to_scratch(runner: Runner, program: Program) -> None:
    script = program(
        """
import os, sys, time
import numpy as np
from mpicluster import Client
with Client() as client:
    # Metrics are there as soon as the workers are, not only after their first regular report.
    info = client.scheduler_info()["workers"].values()
    print([worker["metrics"]["spilled_bytes"] for worker in info])
    blocks = client.map(np.full, [6_000_000] * 24, range(24))
    print(sum(client.gather(client.map(lambda block: block[0] + block[-1], blocks))))
    info = client.scheduler_info()["workers"].values()
    print(sum(worker["nbytes"] for worker in info) > 1_100_000_000)
    print(sum(float(block.result()[7]) for block in blocks))
    def spilled():
        info = client.scheduler_info()["workers"].values()
        return sum(worker["metrics"]["spilled_bytes"] for worker in info)
    while spilled() < 400_000_000:
        time.sleep(0.1)
    # No rank, however it ends, can leave behind what has no name.
    print(os.listdir(sys.argv[1]))
"""
    )
    folder = runner.folder / "scratch"
    options = ["--memory-limit", "500MB", "--scratch", str(folder)]
    words = runner.mpi_words(4, script, str(folder), options=options)
    ended = runner.run(*words, timeout=100)
    assert ended.status == 0, ended
    assert ended.stdout.splitlines() == ["[0, 0]", "552", "True", "276.0", "[]"], ended


def test_tasks_go_on_when_all_workers_are_full_and_no_disk_has_room(
    runner: Runner, program: Program
) -> None:
    """Arguments came faster than tasks ran: both workers paused, and nothing could free memory."""
    script = program(
        """
import numpy as np
from mpicluster import Client
with Client() as client:
    arrays = [np.full(3_000_000, number) for number in range(20)]
    made = client.map(lambda array: array + 1, arrays)
    print(sum(int(array[0]) for array in client.gather(made)))
    client.submit(abs, -1, workers=[3]).result()
    print(client.submit(lambda arrays: sum(int(a[-1]) for a in arrays), made).result())
"""
    )
    no_disk = runner.folder / "file"
    no_disk.touch()
    options = ["--memory-limit", "300MB", "--scratch", str(no_disk / "folder")]
    ended = runner.run(*runner.mpi_words(4, script, options=options), timeout=100)
    assert (ended.status, ended.stdout.split()) == (0, ["210", "210"]), ended
    assert "values cannot be moved to scratch" in ended.stderr


def test_a_task_that_grows_too_large_fails_alone(runner: Runner, program: Program) -> None:
    script = program(
        """
import time
from mpicluster import Client, KilledWorker
def grow():
    kept = []
    while True:
        kept.append(b"x" * 20_000_000)
        time.sleep(0.01)
with Client() as client:
    try:
        client.submit(grow).result()
    except KilledWorker as error:
        print("had grown to" in str(error))
    print(client.submit(sum, [1, 2]).result())
"""
    )
    words = runner.mpi_words(4, script, options=["--memory-limit", "800MB"])
    ended = runner.run(*words, timeout=100)
    assert ended.status == 0, ended
    assert ended.stdout.splitlines() == ["True", "3"], ended


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_tasks_begin_before_the_last_is_sent(runner: Runner, program: Program) -> None:
    """The first result comes long before `map` returns."""
    script = program(
        """
import time
from mpicluster import Client
with Client() as client:
    client.submit(abs, 1).result()
    started = time.time()
    futures = client.map(lambda _: time.time(), range(1_000_000))
    sent = time.time()
    first = min(client.gather(futures[:100]))
    print(first - started < 0.2 * (sent - started))
    print(len(client.gather(futures)))
"""
    )
    ended = runner.mpi(4, script, timeout=240)
    assert (ended.status, ended.stdout.split()) == (0, ["True", "1000000"]), ended


def test_plugins_uploads_and_datasets(runner: Runner, program: Program) -> None:
    """A slot that takes another's place is prepared as that was."""
    script = program(
        """
import os, pathlib, tempfile
from mpicluster import Client, KilledWorker, WorkerPlugin, get_client

class Label(WorkerPlugin):
    def setup(self, worker):
        os.environ["LABEL"] = f"rank {worker.name}"

def look(_):
    import uploaded_here
    return os.environ["LABEL"], uploaded_here.NUMBER

with Client() as client, tempfile.TemporaryDirectory() as folder:
    client.register_plugin(Label())
    module = pathlib.Path(folder) / "uploaded_here.py"
    module.write_text("NUMBER = 7")
    client.upload_file(module)
    for rank in (2, 3):
        try:
            client.submit(os._exit, 1, workers=[rank], pure=False).result()
        except KilledWorker:
            print("ended")
        print(set(client.gather(client.map(look, range(8), pure=False, workers=[rank]))))
    client.datasets["numbers"] = client.map(abs, [-1, -2])
    def add():
        client = get_client()
        return sum(client.gather(client.datasets["numbers"]))
    print(client.submit(add).result())
"""
    )
    lines = ["ended", "{('rank 2', 7)}", "ended", "{('rank 3', 7)}", "3"]
    check(runner, script, lines)
