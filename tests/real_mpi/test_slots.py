"""What do the processes have in which tasks run?"""

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Runner

pytestmark = pytest.mark.real_mpi
Program = Callable[..., Path]

#: Prints what a task finds in its process, and whether the zygote is a fork of its rank.
LOOK = """
import os, sys
from mpicluster import Client{imports}
{start}
def look():
    import faulthandler, gc, multiprocessing, signal, socket, subprocess, psutil
    families = "OMPI_", "PMIX_", "PMI_", "PRTE_", "HYDRA_", "HYDI_", "MPIR_"
    child = subprocess.run([sys.executable, "-c", "import beside; print(beside.__file__)"],
                           capture_output=True, text=True).stdout.strip()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        squared = pool.map(abs, [-3])
    zygote = psutil.Process(os.getppid())
    rank = zygote.parent()
    def shared(pid):
        fds = f"/proc/{{pid}}/fd"
        found = set()
        for fd in os.listdir(fds):
            try:
                found.add(os.readlink(f"{{fds}}/{{fd}}"))
            except OSError:
                pass
        return {{name for name in found if name.startswith(("socket", "pipe"))}}
    outputs = {{os.readlink(f"/proc/{{rank.pid}}/fd/{{fd}}") for fd in (1, 2)}}
    return {{
        "variables of MPI": [name for name in os.environ if name.startswith(families)],
        "threads of libraries": os.environ["OMP_NUM_THREADS"],
        "its module": (sys.modules["__main__"].__spec__, sys.argv, sys.path[0]),
        "MPI": [name for name in sys.modules if name.startswith("mpi4py")],
        "pool": squared,
        "modules beside the script": os.path.basename(child),
        "own group": os.getpgid(0) == zygote.pid,
        "fault handler": faulthandler.is_enabled(),
        "input": os.readlink("/proc/self/fd/0"),
        "shared with the rank": sorted((shared(zygote.pid) & shared(rank.pid)) - outputs),
        "forked": zygote.cmdline() == rank.cmdline(),
    }}
with Client() as client:
    for name, found in client.submit(look).result().items():
        print(f"{{name}}: {{found}}")
"""


#: Draws numbers in all slots, with what the zygote has imported, and once more in new processes.
DRAW = """
import random, time
import numpy as np
from mpicluster import Client
{start}
def draw():
    time.sleep(0.3)
    return random.random(), np.random.rand(), np.random.default_rng().random()
with Client() as client:
    drawn = []
    for _ in range(2):
        drawn += client.gather([client.submit(draw, pure=False) for _ in range(4)])
        client.restart_workers(sorted(client.nthreads()))
    print([len(set(numbers)) for numbers in zip(*drawn)])
"""


@pytest.mark.parametrize("way", ["as a script", "initialize"])
def test_no_slot_draws_the_random_numbers_of_another(
    runner: Runner, program: Program, way: str
) -> None:
    """Those of numpy's global state were the same in all slots of a worker."""
    start = "from mpicluster import initialize; initialize()" if way == "initialize" else ""
    script = program(DRAW.format(start=start))
    if way == "initialize":
        ended = runner.raw_mpi(4, runner.environment.python, str(script))
    else:
        ended = runner.run(*runner.mpi_words(4, script, options=["--slots", "2"]))
    assert (ended.status, ended.stdout.splitlines()) == (0, ["[8, 8, 8]"]), ended


@pytest.mark.parametrize("way", ["-m mpicluster", "initialize"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_ranks_that_have_no_input_or_output(
    runner: Runner, program: Program, tmp_path: Path, closed: str, way: str
) -> None:
    found = tmp_path / "found"
    start = "from mpicluster import initialize; initialize()" if way == "initialize" else ""
    script = program(
        f"""
import os, subprocess
from pathlib import Path
from mpicluster import Client
{start}
def look():
    subprocess.run(["true"], check=True)
    print("a task can print")
    return [os.readlink(f"/proc/self/fd/{{fd}}") for fd in (0, 1, 2)]
with Client() as client:
    names = [*client.submit(look).result(), os.readlink("/proc/self/fd/0")]
    Path({str(found)!r}).write_text("\\n".join(names))
"""
    )
    options = "-m mpicluster " * (way == "-m mpicluster")
    line = f"exec {runner.environment.python} {options}{script} {closed}"
    ended = runner.raw_mpi(4, "sh", "-c", line)
    assert ended.status == 0, ended
    streams = found.read_text().splitlines()
    assert streams[0] == streams[3] == "/dev/null"
    if ">&-" in closed.split():
        assert streams[1] == "/dev/null"
    if "2>&-" in closed.split():
        assert streams[2] == "/dev/null"


def test_a_task_that_secedes_and_ends_leaves_no_process_behind(
    runner: Runner, program: Program
) -> None:
    script = program(
        """
import os
from mpicluster import Client, secede
def away():
    secede()
    return os.getpid()
with Client() as client:
    first, second = sorted(client.nthreads())
    print(len({client.submit(away, pure=False, workers=[first]).result() for _ in range(12)}) <= 2)
"""
    )
    ended = runner.mpi(4, script)
    assert (ended.status, ended.stdout) == (0, "True\n"), ended


@pytest.mark.parametrize(
    "way", ["as a script", "with other ranks lost", "after numpy and MPI", "initialize"]
)
def test_a_slot_has_nothing_of_its_rank(runner: Runner, program: Program, way: str) -> None:
    """However its zygote came to be: as a fork of the rank, which the launcher knows, or anew."""
    imports, start = {
        "as a script": ("", ""),
        "with other ranks lost": ("", ""),
        "after numpy and MPI": ("", ""),
        "initialize": (", initialize", "initialize()"),
    }[way]
    script = program(LOOK.format(imports=imports, start=start))
    (script.parent / "beside.py").write_text("")
    if way == "as a script":
        ended = runner.mpi(4, script)
    elif way == "with other ranks lost":
        ended = runner.run(*runner.mpi_words(4, script, options=["--survive", "ranks"]))
    elif way == "initialize":
        ended = runner.raw_mpi(4, runner.environment.python, str(script))
    else:
        runs = (
            "import sys, numpy; sys.argv[1:] = [sys.argv[1]]; "
            "from mpicluster.cli import main_in_rank; sys.exit(main_in_rank(sys.argv[1:]))"
        )
        ended = runner.raw_mpi(4, runner.environment.python, "-c", runs, str(script))
    assert ended.status == 0, ended
    # MPICH's ranks that may be lost have loaded its library before, to know that it is MPICH's.
    forked = way == "as a script" or (
        way == "with other ranks lost" and runner.environment.name == "openmpi"
    )
    assert ended.stdout.splitlines() == [
        "variables of MPI: []",
        "threads of libraries: 1",
        "its module: (None, ['-c'], '')",
        "MPI: []",
        "pool: [3]",
        "modules beside the script: beside.py",
        "own group: True",
        "fault handler: False",
        "input: /dev/null",
        "shared with the rank: []",
        f"forked: {forked}",
    ], ended
