"""What does `mpicluster doctor` do?

Alone it looks at this machine, starts ranks as `mpicluster run` would, and shows what they find.
Under a launcher each process is a rank, and rank 0 shows what all have found.
"""

import argparse
import os
import shlex
import sys
from typing import Any, Final

from mpicluster.cli.run import add_launch_options, plan_launch
from mpicluster.errors import MpiclusterError

#: Ranks that come from a slow file system to a slow network need a part of this.
TIMEOUT_S: Final = 60.0
#: A launcher has this much longer than its ranks: they can say more about what they wait for.
LAUNCHER_S: Final = 15.0
INTERRUPTED_STATUS: Final = 130


def add_command(commands: Any) -> None:
    """Add `doctor` to the commands of `mpicluster`."""
    parser = commands.add_parser(
        "doctor", help="check whether clusters would work here, and how well",
        description="Look at this machine, start ranks as `mpicluster run` would, and say what "
        "was found and what to do. Or start the ranks yourself: "
        "`mpirun -n 4 python -m mpicluster doctor`. The exit status is 1 if something would fail.",
    )  # fmt: skip
    add_launch_options(parser)
    parser.add_argument("--scratch", default="", help="folder that would be used for scratch")
    parser.add_argument(
        "--timeout", type=_seconds, default=TIMEOUT_S, metavar="SECONDS",
        help="time in which all ranks must have answered (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--as-rank", action="store_true",
        help="start no ranks: this process is one, whatever the environment says",
    )  # fmt: skip
    parser.set_defaults(run=examine)


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def examine(arguments: argparse.Namespace) -> int:
    """Print the findings; return 1 if something would fail."""
    from mpicluster.doctor import report

    try:
        findings = _find(arguments)
    except KeyboardInterrupt:
        print("mpicluster: interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED_STATUS
    if findings is None:
        return 0
    ordered = report.in_order(findings)
    (report.show_json if arguments.json else report.show)(ordered)
    return report.exit_status(ordered)


def _find(arguments: argparse.Namespace) -> list[Any] | None:
    """Return the findings, None if another rank has them."""
    from mpicluster.cluster.roles import read_promise
    from mpicluster.config import Config, unknown_variables
    from mpicluster.doctor.findings import from_error, note
    from mpicluster.doctor.ranks import RankOptions, run_rank
    from mpicluster.doctor.silence import no_promise

    settings = []
    try:
        config = Config.load({"scratch": arguments.scratch} if arguments.scratch else {})
    except MpiclusterError as error:
        config = Config()
        settings.append(from_error("settings", error))
    settings += [note("settings", sentences) for sentences in unknown_variables()]
    promise = read_promise(os.environ)
    # `srun -n 1 --pty bash` makes a world of one as well; from there ranks can be started.
    is_rank = promise is not None and (promise.size > 1 or "SLURM_STEP_NUM_TASKS" not in os.environ)
    if arguments.as_rank and promise is None:
        return [*settings, no_promise()]
    if promise is not None and (is_rank or arguments.as_rank):
        found = run_rank(promise, RankOptions(config, arguments.timeout))
        return None if found is None else [*settings, *found]
    # The ranks that were started have found the same about the settings.
    return list(dict.fromkeys([*settings, *_start_and_ask(arguments, config)]))


def _start_and_ask(arguments: argparse.Namespace, config: Any) -> list[Any]:
    """Return what is found on this machine and by ranks that are started from it."""
    from mpicluster.cluster.launch import build_command, find_library, rank_environment
    from mpicluster.doctor.findings import Finding, Level, describe_host, from_error, library
    from mpicluster.doctor.host import inspect_host, inspect_library
    from mpicluster.doctor.report import merge
    from mpicluster.doctor.starting import ask_ranks

    own = describe_host(inspect_host(0, config))
    try:
        find_library()
    except MpiclusterError as error:
        return [*own, from_error("MPI", error)]
    own.append(library(inspect_library()))
    program = [
        sys.executable, "-m", "mpicluster", "doctor", "--as-rank", "--json",
        "--timeout", str(arguments.timeout),
    ]  # fmt: skip
    if arguments.scratch:
        program += ["--scratch", arguments.scratch]
    try:
        planned = plan_launch(arguments, program)
    except MpiclusterError as error:
        return [*own, from_error("launcher", error)]
    hosts = len(planned.allocation.hosts)
    where = f"on the {hosts} hosts of this {planned.allocation.system} job" if hosts else "here"
    command = build_command(planned)
    words = shlex.join(command[: len(command) - len(program)])
    own.append(Finding("launcher", Level.GOOD, f"Ranks are started {where} with: {words}"))
    environment = rank_environment(os.environ)
    found = ask_ranks(command, environment, arguments.timeout + LAUNCHER_S)
    return merge(own, found)
