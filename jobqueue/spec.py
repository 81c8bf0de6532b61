"""What is a job, before any batch system is chosen?

Frozen, validated descriptions in no batch system's own words. This file must never run a command,
read a file or know a directive; whoever holds a `JobSpec` may rely on every rule checked here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobqueue.errors import SpecError
from jobqueue.paths import home_path
from jobqueue.units import parse_memory, parse_walltime

#: A job with more nodes than any machine has is a typing error.
NODES_MAX = 1_000_000
MAIL_EVENTS = ("begin", "end", "fail")
SIGNALS = ("HUP", "INT", "USR1", "USR2", "TERM", "CONT")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Nine digits: no batch system counts further.
_ARRAY = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?(?::([0-9]{1,9}))?(?:%([0-9]{1,9}))?")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\[\]-]*")


@dataclass(frozen=True, slots=True)
class Array:
    """The elements of a job array: every `step`-th index from `first` to `last`, at most `at_once`
    of them running.
    """

    first: int
    last: int
    step: int = 1
    at_once: int | None = None

    def __post_init__(self) -> None:
        if (
            self.last < self.first
            or self.step < 1
            or (self.at_once is not None and self.at_once < 1)
        ):
            raise SpecError(
                f"The array {self} is empty: its last index, step and number at once must be at "
                "least its first index, 1 and 1. Write 0-9 for ten elements, 0-9%2 to run two at "
                "once."
            )

    @classmethod
    def parse(cls, text: str) -> Array:
        """Read `0-9`, `0-9:3` (every third) or `0-9%2` (two at once).

        >>> Array.parse("1-10:3%2").indices
        range(1, 11, 3)
        """
        match = _ARRAY.fullmatch(text.strip())
        if match is None:
            raise SpecError(
                f"The array {text!r} cannot be read. Write first-last, first-last:step or "
                "first-last%at_once, such as 0-9, 0-9:3 or 0-9%2; lists with commas do not exist "
                "on every batch system."
            )
        first, last, step, at_once = (int(part) if part else None for part in match.groups())
        assert first is not None
        return cls(first, first if last is None else last, 1 if step is None else step, at_once)

    @property
    def indices(self) -> range:
        """The indices of the elements."""
        return range(self.first, self.last + 1, self.step)

    def __str__(self) -> str:
        step = "" if self.step == 1 else f":{self.step}"
        return f"{self.first}-{self.last}{step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a job occupies. When no cores are asked for, the job gets whole nodes."""

    nodes: int = 1
    #: processes that the batch system should expect on each node
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    #: bytes
    memory_per_node: int | None = None
    gpus_per_node: int = 0
    #: how long the job may run; None: the default of the queue
    walltime: timedelta | None = None
    #: no other job on the same nodes; None: only when no cores are asked for
    exclusive: bool | None = None

    def __post_init__(self) -> None:
        check_count("nodes", self.nodes, 1, NODES_MAX)
        check_count("gpus_per_node", self.gpus_per_node, 0)
        for name in ("tasks_per_node", "cpus_per_task", "memory_per_node"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 1)
        if self.walltime is not None and self.walltime <= timedelta(0):
            raise SpecError(f"The walltime {self.walltime} is not longer than nothing.")

    @property
    def cores_per_node(self) -> int | None:
        """Cores asked for on each node, or None for all of them."""
        if self.tasks_per_node is None and self.cpus_per_task is None:
            return None
        return (self.tasks_per_node or 1) * (self.cpus_per_task or 1)

    @property
    def whole_nodes(self) -> bool:
        """Whether the job shares its nodes with no other."""
        return self.cores_per_node is None if self.exclusive is None else self.exclusive


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job: what it runs, on what, and under which conditions. `from_options` reads what users
    write.
    """

    #: the words of the command that the job runs; never passed through a shell
    command: tuple[str, ...]
    name: str = "job"
    resources: Resources = field(default_factory=Resources)
    #: queue or partition
    queue: str | None = None
    #: account or project
    account: str | None = None
    #: a feature that the nodes must have, in the batch system's words
    constraint: str | None = None
    array: Array | None = None
    #: ids of jobs that must have ended with status 0, ended at all, ended otherwise, before this
    #: one starts
    after_ok: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    after_not_ok: tuple[str, ...] = ()
    mail_user: str | None = None
    #: some of "begin", "end", "fail"
    mail_when: tuple[str, ...] = ()
    #: variables set in the job
    environment: Mapping[str, str] = field(default_factory=dict)
    #: the folder in which the command runs
    working_folder: Path = field(default_factory=Path.cwd)
    #: the folder that holds one folder per job
    log_folder: Path = field(default_factory=lambda: Path.cwd() / "mpicluster-jobs")
    #: lines for the batch system, without their "#SBATCH"
    extra_directives: tuple[str, ...] = ()
    #: beginnings of directives that this site refuses, such as "--mem"
    skip_directives: tuple[str, ...] = ()
    #: shell lines before and after the command, such as "module load openmpi"
    prologue: tuple[str, ...] = ()
    epilogue: tuple[str, ...] = ()
    #: whether the batch system may start the job again after a node failed; None: its default
    requeue: bool | None = None
    #: send this signal to the command so many seconds before the walltime
    signal_name: str = "USR1"
    signal_before_s: int | None = None

    def __post_init__(self) -> None:
        if not self.command:
            raise SpecError(
                "A job without a command was asked for. Name a script or a command to run."
            )
        for place, word in enumerate(self.command):
            check_text("command", word, newlines=True, empty=place > 0)
        for name in ("name", "queue", "account", "constraint", "mail_user"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        for name in ("extra_directives", "skip_directives"):
            for line in getattr(self, name):
                check_text(name, line)
        for line in (*self.prologue, *self.epilogue):
            check_text("prologue or epilogue", line, newlines=True, empty=True)
        self._check_environment()
        self._check_choices()
        for name in ("working_folder", "log_folder"):
            check_text(name, str(getattr(self, name)), newlines=True)

    def _check_environment(self) -> None:
        for name, value in self.environment.items():
            if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
                raise SpecError(
                    f"The environment variable {name!r} is no name that a shell accepts: letters, "
                    "digits and underscores, not beginning with a digit. Rename it."
                )
            check_text(f"environment variable {name}", value, newlines=True, empty=True)

    def _check_choices(self) -> None:
        for name in ("after_ok", "after_any", "after_not_ok"):
            for job_id in getattr(self, name):
                check_job_id(job_id)
        for event in self.mail_when:
            if event not in MAIL_EVENTS:
                raise SpecError(
                    f"Mail at {event!r} is not possible; choose from {', '.join(MAIL_EVENTS)}."
                )
        if self.signal_name not in SIGNALS:
            raise SpecError(f"The signal {self.signal_name!r} is not one of {', '.join(SIGNALS)}.")
        if self.signal_before_s is not None:
            check_count("signal_before_s", self.signal_before_s, 1, 65535)

    @classmethod
    def from_options(cls, command: Iterable[str], options: Mapping[str, Any]) -> JobSpec:
        """Build a job from the options of `submit` or of a configuration file: flat, with texts
        such as "64GiB".

        Raises `SpecError` for an unknown option, and for a bad value.

        >>> JobSpec.from_options(["hostname"], {"nodes": 2, "walltime": "1h"}).resources.nodes
        2
        """
        check_known(options, OPTIONS, "job option")
        given = {name: value for name, value in options.items() if value is not None}
        for name, convert in _CONVERT.items():
            if name in given:
                given[name] = convert(name, given[name])
        for name in _LAUNCH_OPTIONS:
            given.pop(name, None)
        resources = Resources(
            **{name: given.pop(name) for name in _RESOURCE_OPTIONS if name in given}
        )
        return cls(command=tuple(map(str, command)), resources=resources, **given)

    @property
    def n_elements(self) -> int:
        """How many times the command runs: 1, or the number of elements of the array."""
        return 1 if self.array is None else len(self.array.indices)


def launch_words(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words before a Python script: by default those of `mpicluster run`."""
    launch = options.get("launch")
    if launch is None:
        python = options.get("python") or sys.executable
        if not isinstance(python, (str, Path)):
            raise SpecError(f"python is {python!r}; it must be the path of a Python.")
        launch = (str(python), "-m", "mpicluster", "run")
    elif isinstance(launch, str) and len(launch.split()) != 1:
        raise SpecError(
            f"launch is {launch!r}; a command of several words must be a list of them, such as "
            f"{launch.split()}."
        )
    return (*_strings("launch", launch), *_strings("run_options", options.get("run_options") or ()))


def check_known(options: Iterable[str], valid: Iterable[str], what: str, where: str = "") -> None:
    """Raise `SpecError` naming the valid ones if an option is not among them."""
    valid = tuple(valid)
    for name in options:
        if name not in valid:
            raise SpecError(
                f"The {what} {name!r}{where} does not exist. Valid are: "
                f"{', '.join(sorted(valid))}. Correct its spelling or remove it."
            )


def check_count(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise `SpecError` unless `value` is an int between `least` and `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"{name} is {value!r}; it must be a whole number, such as {max(least, 1)}.")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise SpecError(f"{name} is {value}; it must be {bounds}. Change it.")


def check_text(name: str, value: object, *, newlines: bool = False, empty: bool = False) -> None:
    """Raise `SpecError` unless `value` is a text that can stand in a job script where `name`
    stands.
    """
    if not isinstance(value, str):
        raise SpecError(f"{name} is {value!r}; it must be a text in quotes.")
    if not value and not empty:
        raise SpecError(f"{name} is empty. Give it a value or leave it out.")
    bad = next((c for c in value if c == "\0" or (not newlines and not c.isprintable())), None)
    if bad is not None:
        raise SpecError(
            f"{name} is {value!r}; it must not contain {bad!r}, which would end its line in the "
            "job script. Remove it."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SpecError(
            f"{name} is {value!r}, which cannot be written as UTF-8. Rename it."
        ) from error


def check_job_id(value: object) -> str:
    """Return a job id if it can be one on any batch system; else raise `SpecError`.

    >>> check_job_id(1234)
    '1234'
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if value < 10**20 else ""
    if not isinstance(value, str) or not _JOB_ID.fullmatch(value):
        raise SpecError(
            f"The job id {value!r} cannot be right: ids consist of letters, digits, dots, dashes "
            "and brackets, such as 1234 or 1234.server. Copy the id that `submit` printed."
        )
    return value


def _strings(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable):
        words = tuple(value)
        if all(isinstance(word, str) for word in words):
            return words
    raise SpecError(f"{name} is {value!r}; it must be a text or a list of texts.")


def _job_ids(_: str, value: object) -> tuple[str, ...]:
    many = value if isinstance(value, (list, tuple, set)) else [value]
    # A job that `submit` returned may stand for its id; only the attribute is looked at, not the
    # class.
    return tuple(check_job_id(getattr(one, "id", one)) for one in many)


def _environment(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{name} is {value!r}; it must map names to values.")
    return {
        key: str(item) if isinstance(item, (int, float)) and not isinstance(item, bool) else item
        for key, item in value.items()
    }


def _folder(name: str, value: object) -> Path:
    return Path.cwd() / home_path(name, value)


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise SpecError(f"{name} is {value!r}; it must be true or false.")
    return value


def _lines(name: str, value: object) -> tuple[str, ...]:
    return tuple(line for text in _strings(name, value) for line in text.splitlines())


_CONVERT: dict[str, Any] = {
    "walltime": lambda _, value: parse_walltime(value),
    "memory_per_node": lambda _, value: parse_memory(value),
    "array": lambda _, value: value if isinstance(value, Array) else Array.parse(str(value)),
    "after_ok": _job_ids,
    "after_any": _job_ids,
    "after_not_ok": _job_ids,
    "mail_when": _strings,
    "environment": _environment,
    "working_folder": _folder,
    "log_folder": _folder,
    "extra_directives": _strings,
    "skip_directives": _strings,
    "prologue": _lines,
    "epilogue": _lines,
    "exclusive": _truth,
    "requeue": _truth,
}
_RESOURCE_OPTIONS = tuple(one.name for one in fields(Resources))
#: how a Python script is started; they shape the command and are gone afterwards
_LAUNCH_OPTIONS = ("python", "run_options", "launch")
#: Every option of `submit`, of `Slurm(...)` and of a section of a configuration file.
OPTIONS = (
    *(one.name for one in fields(JobSpec) if one.name not in ("command", "resources")),
    *_RESOURCE_OPTIONS,
    *_LAUNCH_OPTIONS,
)
