"""What does `mpicluster ...` do?

Joins the commands of this package and of `jobqueue`. Every command is a function from parsed
arguments to an exit status.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from mpicluster import __version__
from mpicluster.cli import bench, doctor, run
from mpicluster.errors import MpiclusterError

#: Exit status for wrong arguments and environments that cannot work.
USAGE_STATUS = 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="mpicluster",
        description="Run Python scripts with futures and dask collections on all cores of an "
        "allocation, over MPI.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run.add_command(commands)
    doctor.add_command(commands)
    bench.add_command(commands)
    importlib.import_module("jobqueue.cli").add_commands(commands)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    importlib.import_module("jobqueue.streams").open_closed_streams()
    arguments = make_parser().parse_args(words)
    return _guarded(lambda: int(arguments.run(arguments)))


def main_in_rank(words: Sequence[str]) -> int:
    """Run a script in this rank, or any other command, as `python -m mpicluster` does."""
    # A script mostly has a dot in its name, and making all commands takes each rank time.
    if words and "." not in words[0] and words[0] in command_names():
        return main(words)
    parser = argparse.ArgumentParser(
        prog="python -m mpicluster",
        description="Run a script on the ranks that mpirun, mpiexec or srun has started.",
    )
    run.add_job_options(parser)
    arguments = parser.parse_args(words)
    return _guarded(lambda: run.run_in_rank(arguments))


def command_names() -> set[str]:
    """Return the words that are commands, so that no script of that name is taken for one."""
    actions = make_parser()._subparsers  # noqa: SLF001  (argparse has no public way)
    found: set[str] = set()
    for action in actions._actions if actions is not None else ():  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            found |= set(action.choices)
    return found


def _guarded(command: "run.Command") -> int:
    """Run a command; an error of ours is a sentence, not a traceback."""
    try:
        return command()
    except MpiclusterError as error:
        print(f"mpicluster: {error}", file=sys.stderr)
        return USAGE_STATUS
