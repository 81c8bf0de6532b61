"""Do ranks get their roles, and does a job get the right command?"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mpicluster.cli.main import USAGE_STATUS, main
from mpicluster.cluster.allocation import Allocation, expand_hostlist, find_allocation
from mpicluster.cluster.job import JobOptions, _slots
from mpicluster.cluster.launch import (
    Launch,
    Launcher,
    Library,
    build_command,
    check_srun,
    default_ranks,
    place_ranks,
    rank_environment,
)
from mpicluster.cluster.roles import (
    Promise,
    Role,
    check_launcher,
    check_world,
    memory_shares,
    read_promise,
    role_of,
    worker_slots,
)
from mpicluster.errors import WorldError

OPENMPI = Library("openmpi", "Open MPI v5.0.11")
MPICH = Library("mpich", "MPICH Version: 5.0.2")


def test_roles() -> None:
    assert [role_of(rank) for rank in range(4)] == [
        Role.SCHEDULER, Role.CLIENT, Role.WORKER, Role.WORKER,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "promise"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, Promise(4, 3)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, Promise(1, 0)),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}, Promise(8, 5)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # sbatch's own environment
        ({"PMI_SIZE": "many", "PMI_RANK": "0"}, None),
    ],
)
def test_what_the_launcher_promises(environment: dict[str, str], promise: Promise | None) -> None:
    assert read_promise(environment) == promise


def test_worlds_that_make_no_cluster_are_refused_with_the_remedy() -> None:
    with pytest.raises(WorldError, match="each of them is alone in its MPI world"):
        check_world(1, Promise(4, 0), "MPICH")
    with pytest.raises(WorldError, match="no rank is left to be a worker"):
        check_world(2, Promise(2, 0), "MPICH")
    with pytest.raises(WorldError, match="started by Open MPI's mpirun, but mpi4py uses MPICH"):
        check_launcher({"OMPI_COMM_WORLD_SIZE": "4"}, "MPICH Version 5")
    check_world(3, Promise(3, 0), "MPICH")
    check_launcher({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI v5")
    check_launcher({"PMI_SIZE": "4"}, "MPICH")


def test_workers_share_the_cores_of_their_host() -> None:
    one, other = [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]
    assert worker_slots(["a"] * 4, [one] * 4, None) == {2: 2, 3: 2}
    assert worker_slots(["a", "a", "a", "b"], [one] * 4, None) == {2: 4, 3: 4}
    # Eight cores leave one each for the scheduler and the script.
    assert worker_slots(["a", "a", "a", "b"], [other] * 4, None) == {2: 6, 3: 8}
    # Ranks that are bound to cores of their own do not share.
    assert worker_slots(["a"] * 4, [[0], [1], [2], [3]], None) == {2: 1, 3: 1}
    assert worker_slots(["a"] * 4, [one] * 4, 5) == {2: 5, 3: 5}
    assert worker_slots(["a"] * 6, [[0, 1]] * 6, None) == {2: 1, 3: 1, 4: 1, 5: 1}


def test_workers_share_the_memory_of_their_host() -> None:
    assert memory_shares(["a", "a", "a", "b", "b"], [100, 100, 100, 60, 60]) == {
        2: 100, 3: 30, 4: 30,
    }  # fmt: skip


def test_hostlists() -> None:
    assert expand_hostlist("n1") == ["n1"]
    assert expand_hostlist("n[01-03]-ib,x[2,4]") == ["n01-ib", "n02-ib", "n03-ib", "x2", "x4"]


def test_allocations(tmp_path: object) -> None:
    slurm = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_JOB_CPUS_PER_NODE": "4(x2),2",
    }  # fmt: skip
    assert find_allocation(slurm) == Allocation("slurm", ("n1", "n2", "n3"), (4, 4, 2), True)
    assert find_allocation({"LSB_MCPU_HOSTS": "h1 4 h2 2"}) == Allocation(
        "lsf", ("h1", "h2"), (4, 2)
    )
    assert find_allocation({}) == Allocation("", (), ())


def test_allocations_in_files(tmp_path) -> None:
    nodes = tmp_path / "nodes"
    nodes.write_text("a\na\nb\n")
    assert find_allocation({"PBS_NODEFILE": str(nodes)}).cores == (2, 1)
    nodes.write_text("a\nb\n")
    assert find_allocation({"PBS_NODEFILE": str(nodes), "NCPUS": "16"}).cores == (16, 16)
    # One line for each queue that gives slots on a host.
    nodes.write_text("a 3 q@a UNDEFINED\nb 2 q@b UNDEFINED\na 1 r@a UNDEFINED\n")
    granted = Allocation("sge", ("a", "b"), (4, 2), exact=True)
    assert find_allocation({"PE_HOSTFILE": str(nodes)}) == granted
    with pytest.raises(WorldError, match="cannot be read"):
        find_allocation({"PBS_NODEFILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "nodes",
    [
        "n[a-b]", "n[1-", "n[1-3]]", "n[1--2]", "n[" + "9" * 30 + "]", "n[3-1]", "n[0-999999999]",
    ],
)  # fmt: skip
def test_damaged_hostlists_are_sentences(nodes: str) -> None:
    with pytest.raises(WorldError, match="cannot be read"):
        find_allocation({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": nodes})


@pytest.mark.parametrize("text", ["n1 x", "n1", "", "\n", "n1 -3 q"])
def test_damaged_hostfiles_are_sentences(tmp_path, text: str) -> None:
    nodes = tmp_path / "nodes"
    nodes.write_text(text)
    with pytest.raises(WorldError, match="cannot be read"):
        find_allocation({"PE_HOSTFILE": str(nodes)})
    if not text.strip():
        with pytest.raises(WorldError, match="The empty list"):
            find_allocation({"PBS_NODEFILE": str(nodes)})


@pytest.mark.parametrize("text", ["n1 x", "n1", "n1 4 n2"])
def test_damaged_lists_of_lsf_are_sentences(text: str) -> None:
    with pytest.raises(WorldError, match="cannot be read"):
        find_allocation({"LSB_MCPU_HOSTS": text})


@pytest.mark.parametrize("loads", [True, False])
def test_srun_without_the_plugin_of_the_mpi_is_refused(tmp_path, loads: bool) -> None:
    srun = tmp_path / "srun"
    answer = "echo ok" if loads else (
        "echo 'mpi_pmix.c:195: pmi/pmix: can not load PMIx library' >&2; "
        "echo \"srun: error: Invalid MPI type 'pmix'\" >&2; exit 1"
    )  # fmt: skip
    srun.write_text(f"#!/bin/bash\necho \"$@\" >>{tmp_path}/asked\n{answer}\n")
    srun.chmod(0o755)
    launcher = Launcher("srun", str(srun), "srun")
    if loads:
        check_srun(launcher, OPENMPI)
    else:
        with pytest.raises(WorldError, match=r"can not load PMIx library.*--launcher mpirun"):
            check_srun(launcher, OPENMPI)
    assert (tmp_path / "asked").read_text() == "--mpi=pmix --test-only true\n"
    check_srun(Launcher("mpirun", "/none", "openmpi"), OPENMPI)


def launch(
    library: Library,
    launcher: Launcher,
    hosts: tuple[str, ...] = (),
    ranks: int = 5,
    survive: str = "tasks",
) -> str:
    allocation = Allocation("slurm" if hosts else "", hosts, (4,) * len(hosts))
    planned = Launch(library, launcher, allocation, ranks, 1, ["python", "s.py"], survive)
    return shlex.join(build_command(planned))


def test_commands_on_one_machine() -> None:
    assert launch(OPENMPI, Launcher("mpirun", "mpirun", "openmpi")) == (
        "mpirun -n 5 --bind-to none --host localhost:5 python s.py"
    )
    assert launch(MPICH, Launcher("mpiexec", "mpiexec", "mpich")) == (
        "mpiexec -n 5 -bind-to none python s.py"
    )


def test_options_that_mean_nothing_are_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "s.py"
    script.write_text("")
    assert main(["run", "-n", "4", "--memory-limit", "3zz", str(script)]) == USAGE_STATUS
    assert "The size '3zz' is not understood" in capsys.readouterr().err
    assert main(["run", "-n", "4", "--set", "spin_s=soon", str(script)]) == USAGE_STATUS
    assert "it must be float, as for example 0.0025" in capsys.readouterr().err


def test_ranks_0_and_1_lie_beside_the_first_worker() -> None:
    command = launch(OPENMPI, Launcher("mpirun", "mpirun", "openmpi"), ("a", "b", "c"))
    assert "--host a:3,b:1,c:1" in command
    assert "--map-by slot:OVERSUBSCRIBE" in command
    assert "-hosts a:3,b:1,c:1" in launch(
        MPICH, Launcher("mpiexec", "mpiexec", "mpich"), ("a", "b", "c")
    )
    srun = launch(MPICH, Launcher("srun", "srun", "srun"), ("a", "b", "c"))
    assert "--nodelist=a,a,a,b,c --distribution=arbitrary --mpi=pmi2" in srun
    assert "--kill-on-bad-exit=1" in srun


def test_more_ranks_than_hosts_go_round() -> None:
    allocation = Allocation("slurm", ("a", "b"), (4, 4))
    planned = Launch(OPENMPI, Launcher("m", "m", "openmpi"), allocation, 7, 2, [])
    assert place_ranks(planned) == [("a", 5), ("b", 2)]
    assert default_ranks(allocation, 2) == 6


@pytest.mark.parametrize(
    ("cores", "exact", "home"),
    [
        ((1, 4, 4), True, "b"), ((1, 4, 4), False, "a"), ((1, 2, 1), True, "a"),
        ((8, 8, 8), True, "a"),
    ],
)  # fmt: skip
def test_ranks_0_and_1_are_where_cores_are_left(
    cores: tuple[int, ...], exact: bool, home: str
) -> None:
    """A first host with one core once got three ranks while others had cores to spare."""
    allocation = Allocation("slurm", ("a", "b", "c"), cores, exact)
    planned = Launch(OPENMPI, Launcher("m", "m", "openmpi"), allocation, 5, 1, [])
    others = [(host, 1) for host in "abc" if host != home]
    assert place_ranks(planned) == [(home, 3), *others]
    assert default_ranks(Allocation("", (), ()), 1) == 3


def test_surviving_ranks_need_flags() -> None:
    assert "--with-ft ulfm" in launch(
        OPENMPI, Launcher("mpirun", "mpirun", "openmpi"), survive="ranks"
    )
    assert "-disable-auto-cleanup" in launch(
        MPICH, Launcher("mpiexec", "mpiexec", "mpich"), survive="ranks"
    )
    srun = Launcher("srun", "srun", "srun")
    assert "--kill-on-bad-exit=0" in launch(OPENMPI, srun, ("a",), survive="ranks")
    # What srun starts in a worker's place ends with 0 when the worker is lost.
    assert "--kill-on-bad-exit=1" in launch(MPICH, srun, ("a",), survive="ranks")


def test_the_job_scripts_own_tasks_are_no_limit() -> None:
    assert rank_environment({"SLURM_NTASKS": "1", "HOME": "/"}) == {"HOME": "/"}


@pytest.mark.parametrize(
    ("granted", "slots"),
    [({}, 4), ({"a": 3}, 3), ({"a": 64}, 4), ({"b": 1}, 4)],
    ids=["unknown", "fewer than there are", "more than there are", "another host"],
)
def test_a_worker_has_no_more_slots_than_cores_were_granted(
    granted: dict[str, int], slots: int
) -> None:
    info = {"host": "a.site", "cores": [0, 1, 2, 3], "granted": granted}
    assert _slots([info] * 3, JobOptions()) == {2: slots}
    assert _slots([info] * 3, JobOptions(slots=8)) == {2: 8}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--resources", "GPU=nan"], "--resources was given GPU=nan; it takes an amount"),
        (["--resources", "GPU=-1"], "0 or more"),
        (["--resources", "GPU"], "NAME=AMOUNT, for example GPU=1"),
        (["--set", "x"], "NAME=VALUE, for example lost_after_s=120"),
    ],
)
def test_bad_options_of_run_are_sentences(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--dry-run", *words, __file__]) == USAGE_STATUS
    assert sentence in capsys.readouterr().err


def test_a_script_with_an_impossible_name_is_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "--dry-run", "x" * 300]) == USAGE_STATUS
    assert "There is no script" in capsys.readouterr().err


def test_a_dry_run_that_cannot_be_written_is_a_sentence() -> None:
    words = [sys.executable, "-m", "mpicluster", "run", "--dry-run", __file__]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == USAGE_STATUS
    assert done.stderr == "mpicluster: The answer could not be written: No space left on device.\n"


def test_a_user_without_a_home_has_settings() -> None:
    code = (
        "import pwd; pwd.getpwuid = lambda uid: {}[uid]; from mpicluster.config import Config; "
        "print(Config.load({}).allowed_failures)"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CONFIG_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "3\n", done.stderr
