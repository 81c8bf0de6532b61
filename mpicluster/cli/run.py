"""What does `mpicluster run` do?

Builds the command of the right launcher and runs it. `python -m mpicluster` understands the same
options inside a rank.
"""

import argparse
import importlib
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpicluster.errors import MpiclusterError

if TYPE_CHECKING:
    from mpicluster.cluster.job import JobOptions
    from mpicluster.cluster.launch import Launch

Command = Callable[[], int]

#: What options that may be repeated take.
_EXAMPLES = {
    "--resources": "NAME=AMOUNT, for example GPU=1",
    "--set": "NAME=VALUE, for example lost_after_s=120",
}


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the workers of a job are made, and the script."""
    add_worker_options(parser)
    parser.add_argument("script", help="the Python script that rank 1 runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the workers of a job are made."""
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--slots", type=positive, help="tasks that each worker runs at a time (default: its cores)"
    )
    group.add_argument(
        "--threads-per-slot", type=positive, help="BLAS and OpenMP threads of each task"
    )
    group.add_argument(
        "--memory-limit",
        help="memory of each worker, like 16GB (default, also with 0 and auto: the workers of a "
        "host share its memory)",
    )  # fmt: skip
    group.add_argument("--scratch", help="folder on a local disk for values that do not fit")
    group.add_argument(
        "--resources", action="append", default=[], metavar="NAME=AMOUNT",
        help="abstract resource that each worker offers; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--survive", choices=("tasks", "ranks"),
        help="tasks: a lost rank ends the job (the default); ranks: the others go on",
    )  # fmt: skip
    group.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="any other setting of mpicluster.Config; may be repeated",
    )  # fmt: skip


def add_launch_options(parser: argparse.ArgumentParser) -> Any:
    """Add the options that say how many ranks are started, and by what; return their group."""
    group = parser.add_argument_group("ranks")
    group.add_argument("-n", "--ranks", type=positive, help="ranks in all; at least 3")
    group.add_argument(
        "--workers-per-node", type=positive, default=1, help="worker ranks on each node"
    )
    group.add_argument("--nodes", type=positive, help="use only this many nodes of the allocation")
    group.add_argument(
        "--launcher", default="auto", choices=("auto", "mpirun", "mpiexec", "srun"),
        help="program that starts the ranks",
    )  # fmt: skip
    group.add_argument(
        "--launcher-option", action="append", default=[], metavar="WORD",
        help="one more word for the launcher; may be repeated",
    )  # fmt: skip
    return group


def add_command(commands: Any) -> None:
    """Add `run` to the commands of `mpicluster`."""
    parser = commands.add_parser(
        "run", help="run a script on this machine or in this allocation",
        description="Start a scheduler, a client and workers with the launcher of the MPI that "
        "mpi4py uses, and run a script.",
    )  # fmt: skip
    group = add_launch_options(parser)
    group.add_argument("--dry-run", action="store_true", help="print the command, start nothing")
    add_job_options(parser)
    parser.set_defaults(run=launch)


def positive(text: str) -> int:
    """Return a number that must be at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def plan_launch(
    arguments: argparse.Namespace, program: Sequence[str], survive: str = "tasks"
) -> "Launch":
    """Return what the launch options ask for; `program` is what every rank runs."""
    from mpicluster.cluster import launch as l
    from mpicluster.cluster.allocation import Allocation, find_allocation

    allocation = find_allocation(os.environ)
    if arguments.nodes is not None:
        if arguments.nodes > max(1, len(allocation.hosts)):
            raise MpiclusterError(
                f"{arguments.nodes} nodes were asked for, but the allocation has "
                f"{max(1, len(allocation.hosts))}. Ask the batch system for more."
            )
        allocation = Allocation(
            allocation.system, allocation.hosts[: arguments.nodes],
            allocation.cores[: arguments.nodes], allocation.exact,
        )  # fmt: skip
    library = l.find_library()
    launcher = l.find_launcher(library, arguments.launcher, allocation)
    if not any(word.startswith("--mpi") for word in arguments.launcher_option):
        l.check_srun(launcher, library)
    return l.Launch(
        library=library,
        launcher=launcher,
        allocation=allocation,
        ranks=arguments.ranks or l.default_ranks(allocation, arguments.workers_per_node),
        workers_per_node=arguments.workers_per_node,
        program=program,
        survive=survive,
        as_root=os.geteuid() == 0,
        extra=arguments.launcher_option,
    )


def launch(arguments: argparse.Namespace) -> int:
    """Start a job that runs a script; return its status."""
    check_script(arguments.script)
    words = [*worker_words(arguments), arguments.script, *arguments.arguments]
    return start_ranks(arguments, words)


def start_ranks(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Start ranks that run `python -m mpicluster` with these words; return the job's status."""
    from mpicluster.cluster import launch as l
    from mpicluster.cluster.launched import run_launcher

    program = [sys.executable, "-m", "mpicluster", *words]
    config = job_options(arguments).load_config()  # one sentence now, not one from every rank
    planned = plan_launch(arguments, program, config.survive)
    if planned.ranks < 3:
        raise MpiclusterError(
            f"A job of {planned.ranks} ranks has no worker: rank 0 is the scheduler and rank 1 "
            "runs the script. Use -n 3 or more, or `python script.py` for a cluster without MPI."
        )
    command = l.build_command(planned)
    if arguments.dry_run:
        return _print_answer(shlex.join(command))
    return run_launcher(command, l.rank_environment(os.environ))


def _print_answer(text: str) -> int:
    """Print what was asked for; return the status that tells whether that was possible."""
    try:
        print(text, flush=True)
    except OSError as error:
        importlib.import_module("jobqueue.streams").abandon_output()
        if isinstance(error, BrokenPipeError):  # who reads it has seen enough
            return 0
        raise MpiclusterError(f"The answer could not be written: {error.strerror}.") from None
    return 0


def worker_words(arguments: argparse.Namespace) -> list[str]:
    """Return the options about workers, which the ranks must hear."""
    words: list[str] = []
    for name in ("slots", "threads_per_slot", "memory_limit", "scratch"):
        value = getattr(arguments, name)
        if value is not None:
            words += ["--" + name.replace("_", "-"), str(value)]
    if arguments.survive is not None:
        words += ["--survive", arguments.survive]
    for name in ("resources", "set"):
        for pair in getattr(arguments, name):
            words += [f"--{name}", pair]
    return words


def run_in_rank(arguments: argparse.Namespace) -> int:
    """Play this rank's role for a script."""
    from mpicluster.cluster.script import run_script

    check_script(arguments.script)
    return run_script(arguments.script, arguments.arguments, job_options(arguments))


def job_options(arguments: argparse.Namespace) -> "JobOptions":
    """Return what the options about workers say."""
    from mpicluster.cluster.job import JobOptions

    settings: dict[str, Any] = dict(_pairs("--set", arguments.set))
    if arguments.survive is not None:
        settings["survive"] = arguments.survive
    for name in ("threads_per_slot", "scratch"):
        if getattr(arguments, name) is not None:
            settings[name] = getattr(arguments, name)
    amounts = _pairs("--resources", arguments.resources)
    resources = {name: _amount(name, text) for name, text in amounts.items()}
    return JobOptions(arguments.slots, arguments.memory_limit, resources, settings)


def _amount(name: str, text: str) -> float:
    """Return how much of a resource each worker offers."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise MpiclusterError(
            f"--resources was given {name}={text}; it takes an amount that is a number, 0 or more, "
            "for example GPU=2."
        )
    return amount


def check_script(script: str) -> None:
    """Raise unless the script is a file."""
    try:
        found = Path(script).is_file()
    except (OSError, ValueError):  # such as a name that is too long
        found = False
    if not found:
        raise MpiclusterError(
            f"There is no script {script!r} in {Path.cwd()}. Give the path of a Python file."
        )


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise MpiclusterError(
                f"{option} was given {text!r}; it takes {_EXAMPLES[option]}."
            )
        found[name] = value
    return found
