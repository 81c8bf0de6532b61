"""How are jobs submitted and watched from a shell?

Adds the commands submit, status, wait, cancel and logs to a parser; the program that owns the
parser calls the function in `arguments.run`, which returns an exit status. Answers go to standard
output and all else to standard error, so that `job=$(mpicluster submit ...)` works. This file must
never decide anything about jobs; it calls the Python interface.
"""

from __future__ import annotations

import argparse
import functools
import math
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobqueue.config import SYSTEMS, load_configuration
from jobqueue.detect import system_class
from jobqueue.display import ProgressLine, say, show_json, show_table
from jobqueue.errors import JobNotFound, JobqueueError, SpecError
from jobqueue.folder import MAIN_ROLE, RECORD
from jobqueue.follow import follow, show_logs
from jobqueue.job import Job
from jobqueue.polling import wait_all
from jobqueue.registry import find, known_jobs
from jobqueue.spec import MAIL_EVENTS, check_job_id
from jobqueue.states import JobState
from jobqueue.streams import abandon_output, open_closed_streams
from jobqueue.submission import adopt, preview
from jobqueue.system import BatchSystem

#: `status` without ids shows jobs that ended within this time
_RECENT_S = 24 * 3600
#: what `wait` ends with when its --timeout is over, as the command `timeout` does
_TIMED_OUT = 124
_INTERRUPTED = 130

#: Options of `submit` that carry their text over to the job as it is: name, metavar, help.
_TEXT_OPTIONS = (
    ("name", "NAME", "name of the job; default: that of the script"),
    ("account", "NAME", "account or project that pays"),
    ("constraint", "WORDS", "feature that the nodes must have, in the batch system's words"),
    ("array", "FIRST-LAST", "run once for each index, as in 0-9, 0-9:3 or 0-9%%2 (two at once)"),
    ("mail-user", "ADDRESS", "whom the batch system writes to"),
    ("memory-per-node", "SIZE", "such as 64GiB"),
    ("log-folder", "FOLDER", "holds one folder per job; default: mpicluster-jobs"),
    ("working-folder", "FOLDER", "where the job runs, and the script is; default: the current one"),
    ("python", "PATH", "the Python of the job; default: the one that runs this"),
)
_COUNT_OPTIONS = (
    ("nodes", "number of nodes; default 1"),
    ("tasks-per-node", "processes that the batch system should expect on each node"),
    ("cpus-per-task", "cores for each of them; without these two the job gets whole nodes"),
    ("gpus-per-node", "GPUs on each node"),
)
_LIST_OPTIONS = (
    ("after-ok", "ID", "start after this job has ended with status 0; may be repeated"),
    ("after-any", "ID", "start after this job has ended; may be repeated"),
    ("after-not-ok", "ID", "start after this job has failed; may be repeated"),
    (
        "prologue",
        "LINE",
        "shell line before the script, such as 'module load openmpi'; may be repeated",
    ),
    ("epilogue", "LINE", "shell line after the script; may be repeated"),
)


def add_commands(subparsers: Any) -> None:
    """Add the commands to what `argparse.ArgumentParser.add_subparsers` returned."""
    _add_submit(subparsers)
    for name, function, text in (
        ("status", run_status, "show how jobs are"),
        ("wait", run_wait, "wait for jobs, and end with their exit status"),
        ("cancel", run_cancel, "cancel jobs"),
        ("logs", run_logs, "show what jobs have printed"),
    ):
        parser = subparsers.add_parser(name, help=text, description=f"{text.capitalize()}.")
        parser.add_argument("job_ids", metavar="JOB", nargs="*", help="job ids; default: your jobs")
        _add_system(parser)
        parser.set_defaults(run=function)
        if name == "status":
            parser.add_argument("--json", action="store_true", help="print JSON for scripts")
        elif name == "wait":
            parser.add_argument(
                "--timeout", type=_seconds, metavar="SECONDS", help="give up, with status 124"
            )
        elif name == "cancel":
            parser.add_argument(
                "--yes", action="store_true", help="do not ask before cancelling all jobs"
            )
        else:
            parser.add_argument("-f", "--follow", action="store_true", help="until the jobs end")
            parser.add_argument("--role", default=MAIN_ROLE, help="another of the job's logs")
            parser.add_argument("--index", type=int, help="one element of a job array")


def _seconds(text: str) -> float:
    """Return a time that one can wait for."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return seconds


def _add_system(parser: argparse.ArgumentParser) -> None:
    choices = ", ".join(("auto", *SYSTEMS))
    parser.add_argument("--system", metavar="NAME", help=f"batch system: {choices}; default: auto")


def _add_submit(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "submit",
        help="submit a Python script as a batch job",
        description="Submit a Python script, run by `mpicluster run` on all nodes of a batch job. "
        "Prints the job's id alone on standard output.",
    )
    add = parser.add_argument
    _add_system(parser)
    for name, text in _COUNT_OPTIONS:
        add(f"--{name}", type=int, metavar="N", help=text)
    add(
        "--time",
        dest="walltime",
        metavar="H:MM:SS",
        help="how long the job may run; also 90m, 2h, 1-12:00:00",
    )
    add("--queue", "--partition", metavar="NAME", help="queue or partition")
    for name, metavar, text in _TEXT_OPTIONS:
        add(f"--{name}", metavar=metavar, help=text)
    for name, metavar, text in _LIST_OPTIONS:
        add(f"--{name}", metavar=metavar, action="append", help=text)
    add("--exclusive", action=argparse.BooleanOptionalAction, help="no other job on the nodes")
    add(
        "--requeue",
        action=argparse.BooleanOptionalAction,
        help="whether a node failure starts it again",
    )
    add(
        "--mail-when",
        metavar="EVENT",
        action="append",
        choices=MAIL_EVENTS,
        help=" or ".join(MAIL_EVENTS),
    )
    add(
        "--env", metavar="NAME=VALUE", action="append", default=[], help="set a variable in the job"
    )
    add(
        "--signal", metavar="NAME@SECONDS", help="signal the script so long before its time is over"
    )
    add(
        "--directive",
        metavar="LINE",
        action="append",
        help="a line for the batch system, as --directive=--foo=1",
    )
    add(
        "--skip-directive",
        metavar="START",
        action="append",
        help="leave out lines such as --skip-directive=--mem",
    )
    add("--run-options", metavar="TEXT", help="options for `mpicluster run`, such as '--slots 4'")
    add("--command", action="store_true", help="the words are a command, not a Python script")
    add("--dry-run", action="store_true", help="print the job script and submit nothing")
    add("--wait", action="store_true", help="wait for the job, and end with its exit status")
    add("words", metavar="SCRIPT [ARGS...]", nargs=argparse.REMAINDER, help="what to run")
    parser.set_defaults(run=run_submit)


def _told(function: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Let a command end with a sentence and status 1 where it would raise one of our errors."""

    @functools.wraps(function)
    def wrapper(arguments: argparse.Namespace) -> int:
        try:
            status = function(arguments)
            sys.stdout.flush()  # what cannot be written shows here and not at the interpreter's end
            return status
        except JobqueueError as error:
            _say_all(str(error), error)
            folder = getattr(error, "folder", None)
            if folder is not None and (folder / RECORD).exists():
                say(f"mpicluster: {folder / RECORD} says so too.")
            return 1
        except KeyboardInterrupt as error:
            notes = getattr(error, "__notes__", ())
            _say_all("interrupted." if notes else "interrupted; the jobs go on.", error)
            return _INTERRUPTED
        except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
            abandon_output()
            return 0
        except OSError as error:
            if error.filename is not None:
                say(f"mpicluster: {error.filename} cannot be used: {error.strerror}.")
            else:
                say(f"mpicluster: the answer could not be written: {error.strerror or error}.")
                abandon_output()
            return 1

    return wrapper


def _say_all(text: str, error: BaseException) -> None:
    """Say what an error says, and what was noted about it on its way."""
    for line in (text, *getattr(error, "__notes__", ())):
        say(f"mpicluster: {line}")


@_told
def run_submit(arguments: argparse.Namespace) -> int:
    """Submit a job and print its id."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        raise SpecError(
            "A job was to be submitted, and nothing to run was named. Write the Python script "
            "after the options, as in `mpicluster submit --nodes 4 analysis.py`."
        )
    system = _system(arguments.system)
    options = _options(arguments)
    if arguments.dry_run:
        target, rest = (words, ()) if arguments.command else (words[0], words[1:])
        sys.stdout.write(preview(system, target, rest, options))
        return 0
    if arguments.command:
        job = system.submit_command_line(words, **options)
    else:
        job = system.submit(words[0], *words[1:], **options)
    assert job.folder is not None
    say(f"{system.title} has taken job {job.id}; its folder is {job.folder.path}")
    sys.stdout.write(f"{job.id}\n")
    sys.stdout.flush()
    return _wait([job], None) if arguments.wait else 0


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a job; those not given are left to the configuration."""
    names = [
        name.replace("-", "_") for name, *_ in (*_TEXT_OPTIONS, *_COUNT_OPTIONS, *_LIST_OPTIONS)
    ]
    names += ["walltime", "queue", "exclusive", "requeue", "mail_when"]
    options = {name: getattr(arguments, name) for name in names}
    options["extra_directives"] = arguments.directive
    options["skip_directives"] = arguments.skip_directive
    if arguments.run_options is not None:
        options["run_options"] = _split(arguments.run_options)
    if arguments.signal is not None:
        name, _, seconds = arguments.signal.partition("@")
        if not re.fullmatch("[0-9]{1,9}", seconds):
            raise SpecError(
                f"The signal {arguments.signal!r} cannot be read. Write it as USR1@120."
            )
        options |= {"signal_name": name.removeprefix("SIG"), "signal_before_s": int(seconds)}
    for one in arguments.env:
        name, equals, value = one.partition("=")
        if not equals:
            raise SpecError(f"The variable {one!r} has no value. Write it as NAME=VALUE.")
        options.setdefault("environment", {})[name] = value
    return {name: value for name, value in options.items() if value is not None}


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SpecError(
            f"The options {text!r} cannot be read: {error}. Close the quotes."
        ) from error


@_told
def run_status(arguments: argparse.Namespace) -> int:
    """Show a table of jobs."""
    jobs = _jobs(arguments, ended=True)
    pollers = list({id(job.system.poller): job.system.poller for job in jobs}.values())
    for poller in pollers:
        poller.update()
    if arguments.json:
        show_json(jobs)
    elif jobs:
        show_table(jobs)
    else:
        say("You have no jobs that run or wait, and none ended within the last day.")
    return 1 if any(poller.failure for poller in pollers) else 0


@_told
def run_wait(arguments: argparse.Namespace) -> int:
    """Wait for jobs."""
    jobs = _jobs(arguments)
    if not jobs:
        say("There is no job to wait for.")
    return _wait(jobs, arguments.timeout)


def _wait(jobs: Sequence[Job], timeout_s: float | None) -> int:
    """Wait, say how jobs ended, and return the exit status of the first that failed."""
    with ProgressLine(jobs) as line:
        ended = wait_all(jobs, timeout_s, line.update)
    if not ended:
        waiting = ", ".join(job.id for job in jobs if not job.ended)
        say(
            f"mpicluster: {timeout_s:g} s are over, and not yet ended: {waiting}. Wait longer, or "
            "look at the logs."
        )
        return _TIMED_OUT
    for job in jobs:
        if job.last_status.state is not JobState.COMPLETED:
            say(f"mpicluster: {job.failure()}")
    return next((code for code in map(exit_code, jobs) if code), 0)


def exit_code(job: Job) -> int:
    """Return what a shell should see of a job that has ended: its exit status, and 1 where none is
    known.
    """
    status = job.last_status
    return 0 if status.state is JobState.COMPLETED else status.exit_status or 1


@_told
def run_cancel(arguments: argparse.Namespace) -> int:
    """Cancel jobs; without ids all of this user's that jobqueue has submitted."""
    jobs = _jobs(arguments)
    if not jobs:
        say("There is no job to cancel.")
        return 0
    if not arguments.job_ids and not arguments.yes:
        every = ", ".join(job.id for job in jobs)
        if not sys.stdin.isatty():
            # Such as `cancel $job` in a script where the submission failed.
            raise SpecError(
                f"Jobs were to be cancelled and none was named; that would be all of yours: "
                f"{every}. Name their ids, or say --yes to mean all."
            )
        say(f"These jobs would be cancelled: {every}. Go on? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("Nothing was cancelled.")
            return 1
    failed = False
    for job in jobs:
        if job.ended:
            say(f"Job {job.id} had ended before: {job.last_status.state.value}.")
            continue
        try:
            job.cancel()
            if job.cancel_accepted:
                say(f"{job.system.title} was asked to cancel job {job.id}.")
            else:
                say(
                    f"{job.system.title} has no job {job.id} that it could cancel: it has ended or "
                    "never was."
                )
                failed |= job.folder is None
        except JobqueueError as error:
            failed = True
            say(f"mpicluster: {error}")
    return 1 if failed else 0


@_told
def run_logs(arguments: argparse.Namespace) -> int:
    """Show the logs of jobs; without ids of those that have not ended, or else of the last one."""
    jobs = _jobs(arguments)
    if not jobs and not arguments.job_ids:
        newest = list(known_jobs())[-1:]
        jobs = [_system(known.system).job(known.job_id) for known in newest]
    if not jobs:
        raise JobNotFound(
            "Logs were asked for, and you have submitted no job from here. Name a job's id."
        )
    if arguments.follow:
        follow(jobs, arguments.role, arguments.index, time.sleep)
    else:
        show_logs(jobs, arguments.role, arguments.index)
    return 0


def _system(name: str | None) -> BatchSystem:
    """Return the batch system of a name, or the one that the configuration names or the machine
    has.
    """
    configuration = load_configuration()
    return system_class(name or configuration.system)(configuration=configuration)


def _jobs(arguments: argparse.Namespace, *, ended: bool = False) -> list[Job]:
    """Return the jobs that were named, or this user's: those not ended, and with `ended` those of
    the last day.

    All jobs of a batch system share one object, so that they are asked about together.
    """
    systems: dict[str | None, BatchSystem] = {}

    def system(name: str | None) -> BatchSystem:
        if name not in systems:
            systems[name] = _system(name)
        return systems[name]

    wanted = None if arguments.system in (None, "auto") else arguments.system
    if wanted is not None:
        system_class(wanted)  # says so at once if there is none of this name
    if arguments.job_ids:
        found = []
        for job_id in arguments.job_ids:
            known = find(check_job_id(job_id), wanted)
            if known is None:
                found.append(system(wanted).job(job_id))
            else:
                found.append(adopt(system(known.system), known.job_id, known.folder))
        return found
    chosen = []
    for known in known_jobs():
        if known.system not in SYSTEMS or wanted not in (None, known.system):
            continue
        one = adopt(system(known.system), known.job_id, known.folder)
        if not one.ended or (ended and _age_s(known.folder.path) < _RECENT_S):
            chosen.append(one)
    return chosen


def _age_s(folder: Path) -> float:
    """Return how long ago something was noted in a job's folder."""
    try:
        return time.time() - (folder / "job.json").stat().st_mtime
    except OSError:
        return float("inf")


def main(words: Sequence[str] | None = None) -> int:
    """Run the commands as a program of their own, `python -m jobqueue`."""
    open_closed_streams()
    parser = argparse.ArgumentParser(prog="jobqueue", description="Submit and watch batch jobs.")
    add_commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    arguments = parser.parse_args(words)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)
