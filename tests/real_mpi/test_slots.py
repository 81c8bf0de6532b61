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
        "its module": (sys.modules["__main__"].__spec__, sys.argv),
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


@pytest.mark.parametrize("way", ["as a script", "after numpy and MPI", "initialize"])
def test_a_slot_has_nothing_of_its_rank(runner: Runner, program: Program, way: str) -> None:
    """However its zygote came to be: as a fork of the rank, which the launcher knows, or anew."""
    imports, start = {
        "as a script": ("", ""),
        "after numpy and MPI": ("", ""),
        "initialize": (", initialize", "initialize()"),
    }[way]
    script = program(LOOK.format(imports=imports, start=start))
    (script.parent / "beside.py").write_text("")
    if way == "as a script":
        ended = runner.mpi(4, script)
    elif way == "initialize":
        ended = runner.raw_mpi(4, runner.environment.python, str(script))
    else:
        runs = (
            "import sys, numpy; sys.argv[1:] = [sys.argv[1]]; "
            "from mpicluster.cli import main_in_rank; sys.exit(main_in_rank(sys.argv[1:]))"
        )
        ended = runner.raw_mpi(4, runner.environment.python, "-c", runs, str(script))
    assert ended.status == 0, ended
    assert ended.stdout.splitlines() == [
        "variables of MPI: []",
        "threads of libraries: 1",
        "its module: (None, ['-c'])",
        "MPI: []",
        "pool: [3]",
        "modules beside the script: beside.py",
        "own group: True",
        "fault handler: False",
        "input: /dev/null",
        "shared with the rank: []",
        f"forked: {way == 'as a script'}",
    ], ended
