"""What must a batch system be able to say, for this package to use it?

`BatchSystem` is the seam: a new system is one file with these functions, and nothing else changes.
They are pure: they turn a job into texts and command lines, and the output of commands into values.
This file and the files of the systems must never run a command, wait, or touch a file;
`submission.py`, `polling.py` and `job.py` do that.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from jobqueue.config import SETTINGS, Configuration, Settings, load_configuration
from jobqueue.errors import SpecError, StatusError, SubmitError
from jobqueue.script import body
from jobqueue.shell import Command, Output, Runner, run
from jobqueue.spec import OPTIONS, JobSpec, check_known, check_text
from jobqueue.states import JobState, JobStatus

if TYPE_CHECKING:
    from jobqueue.job import Job
    from jobqueue.polling import Poller

logger = logging.getLogger("jobqueue")

#: Characters that stand for themselves in the directives of every batch system.
_PLAIN = re.compile(r"[A-Za-z0-9_.,:=@%+/~^*!?-]+")


class BatchSystem(ABC):
    """A batch system, with the defaults for the jobs that this object submits.

    `configuration` replaces the configuration files; `options` are those of `submit` (see `JobSpec`
    and `Resources`) and of `Settings`, and hold for every job of this object. Raises `SpecError`
    for an unknown option.
    """

    #: the name in configuration files and on the command line
    name: ClassVar[str]
    #: the name in sentences
    title: ClassVar[str]
    #: what directives in a script begin with
    prefix: ClassVar[str]
    #: programs that are on PATH wherever this system is
    programs: ClassVar[tuple[str, ...]]
    #: the variable that tells an element of an array its index
    index_variable: ClassVar[str]
    #: what bash in a job reads as the id that `parse_job_id` returns
    id_expression: ClassVar[str]
    #: the pages from which the formats in the file of this system are taken
    manual: ClassVar[str]
    #: parts of error texts that mean: the same may succeed later
    transient_errors: ClassVar[tuple[str, ...]] = ()
    #: parts of error texts, and what the user should do about them
    advice: ClassVar[Mapping[str, str]] = {}
    #: exit statuses of a job script by which this system does something else than to end the job
    reserved_statuses: ClassVar[tuple[int, ...]] = ()
    #: parts of cancel errors that mean: the job has ended already
    already_ended: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, *, configuration: Configuration | None = None, runner: Runner = run, **options: Any
    ) -> None:
        if configuration is None:
            configuration = load_configuration()
        settings_type = SETTINGS[self.name]
        names = [one.name for one in fields(settings_type)]
        check_known(options, (*OPTIONS, *names), f"option of {type(self).__name__}(...)")
        merged = {**configuration.options(self.name), **options}
        merged.pop("system", None)
        self.settings: Settings = settings_type(
            **{**self._own_settings(), **{key: merged.pop(key) for key in names if key in merged}}
        )
        #: options for every job of this object
        self.defaults: dict[str, Any] = merged
        self.runner = runner

    def _own_settings(self) -> dict[str, Any]:
        """Return settings in which this system differs from the others."""
        return {}

    # The six functions of a batch system, and what its accounting adds.

    @abstractmethod
    def directives(self, spec: JobSpec) -> list[str]:
        """Return the lines that ask for what `spec` says, without their prefix.

        Raises `SpecError` for something that this system cannot do.
        """

    def script(self, spec: JobSpec, folder: Path) -> str:
        """Return the whole job script; `folder` is the job's folder."""
        lines = [line for line in self.directives(spec) if not _skipped(line, spec.skip_directives)]
        lines += [line.removeprefix(self.prefix).strip() for line in spec.extra_directives]
        head = ["#!/bin/bash", *(f"{self.prefix} {line}" for line in lines), ""]
        return (
            "\n".join(head)
            + "\n"
            + body(
                spec,
                folder,
                index_variable=self.index_variable,
                id_expression=self.id_expression,
                reserved_statuses=self.reserved_statuses,
            )
        )

    @abstractmethod
    def submit_command(self, script: Path, spec: JobSpec) -> Command:
        """Return the command that submits a script, from within the script's folder."""

    @abstractmethod
    def parse_job_id(self, output: Output) -> str:
        """Return the id from what the submit command printed.

        Raises `SubmitError`, which `submit_error` builds.
        """

    @abstractmethod
    def status_command(self, job_ids: Sequence[str]) -> Command:
        """Return one command that asks about all these jobs."""

    @abstractmethod
    def parse_status(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Return the status of those jobs that the batch system still knows.

        Raises `StatusError` when the output does not answer the question.
        """

    @abstractmethod
    def cancel_command(self, job_ids: Sequence[str]) -> Command:
        """Return the command that cancels these jobs."""

    def accounting_commands(self, job_ids: Sequence[str]) -> list[Command]:
        """Return commands that may tell how jobs ended that have left the queue; the first to tell
        is believed.
        """
        del job_ids
        return []

    def parse_accounting(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Return how jobs ended, as far as one of the `accounting_commands` tells; unreadable
        output tells nothing.
        """
        del job_ids, output
        return {}

    # What the systems share.

    def refused(self, output: Output) -> SubmitError:
        """Return the error for a submission that the batch system refused in words."""
        said = output.said
        advice = next(
            (text for part, text in self.advice.items() if part.lower() in said.lower()),
            f"Correct the job, or see {self.manual}.",
        )
        transient = any(part.lower() in said.lower() for part in self.transient_errors)
        if transient:
            advice = "That may pass: submit again in a minute."
        return SubmitError(
            f"{self.title} did not take the job: `{output.command.words[0]}` ended with status "
            f"{output.status} and said: {said.rstrip('.')}. {advice}",
            transient=transient,
        )

    def submit_error(self, output: Output) -> SubmitError:
        """Return the error for a submit command that named no job's id: a refusal, or nobody knows
        whether the job exists.
        """
        if output.status > 0:
            return self.refused(output)
        return SubmitError(
            f"{self.title} did not name the job's id: `{output.command.words[0]}` ended with "
            f"status {output.status} and said: {output.said}. {self.doubt} Ask the administrators "
            "what is wrong with this command.",
            in_doubt=True,
        )

    @property
    def doubt(self) -> str:
        """What holds after a submission of which nobody knows whether a job came of it."""
        return (
            "A job that was made all the same ends at once without running anything, unless it "
            f"has begun already: look at your jobs in {self.title}, and cancel what is too many."
        )

    def unreadable(self, output: Output) -> StatusError:
        """Return the error for a status call that does not answer the question."""
        return StatusError(
            f"{self.title} did not say how its jobs are: `{output.command.words[0]}` ended with "
            f"status {output.status} and said: {output.said}. Try again later; if it stays so, ask "
            "the administrators."
        )

    def unknown_state(self, native: str) -> JobStatus:
        """Return UNKNOWN for a state that the manual does not list, and warn once about each."""
        if native not in self._unknown_states:
            self._unknown_states[native] = None
            logger.warning(
                "%s reports a job state %r that jobqueue does not know; it counts as unknown.",
                self.title,
                native,
            )
        return JobStatus(
            state=JobState.UNKNOWN, native=native, reason=f"{self.title} says {native!r}."
        )

    @cached_property
    def _unknown_states(self) -> dict[str, None]:
        return {}

    def plain(self, what: str, value: str) -> str:
        """Return a value that can stand in a directive as it is; else raise `SpecError`."""
        if not _PLAIN.fullmatch(value):
            raise SpecError(
                f"The {what} {value!r} cannot stand in a line for {self.title}: only letters, "
                "digits and _ . , : = @ % + / ~ ^ * ! ? - can. Change it."
            )
        return value

    def unsupported(self, what: str, instead: str) -> SpecError:
        """Return the error for something that this batch system cannot do."""
        return SpecError(f"{self.title} cannot do what was asked: {what}. {instead}")

    # What users call.

    @cached_property
    def poller(self) -> Poller:
        """What asks for the states of all jobs of this object."""
        from jobqueue.polling import Poller

        return Poller(self)

    def submit(
        self, target: str | Path | Callable[..., object], *arguments: Any, **options: Any
    ) -> Job:
        """Submit a Python script with its arguments, or a function with its arguments, as one job.

        `options` are those of `JobSpec` and `Resources`. Returns a `Job` as soon as the batch
        system has taken it. Raises `SpecError` for a bad value and `SubmitError` when the batch
        system refuses or does not answer.

            job = Slurm(account="climate").submit("analysis.py", "--year", "2026", nodes=4)
            job.wait()
        """
        from jobqueue.submission import submit

        return submit(self, target, arguments, options)

    def submit_command_line(self, words: Sequence[str], **options: Any) -> Job:
        """Submit a command that is no Python script: its words, run as they are, on the job's first
        node.
        """
        from jobqueue.submission import submit_words

        return submit_words(self, words, options)

    def job_script(self, target: str | Path, *arguments: str, **options: Any) -> str:
        """Return the script that `submit` would submit, and submit nothing."""
        from jobqueue.submission import preview

        return preview(self, target, arguments, options)

    def job(self, job_id: str | int) -> Job:
        """Return the job of this id, submitted earlier, here or in another process.

        Raises `JobNotFound` when this user has not submitted it by jobqueue.
        """
        from jobqueue.submission import attach

        return attach(self, job_id)

    def check_job_id(self, job_id: str) -> None:
        """Raise `SpecError` for what can be the id of a job, but not here."""
        del job_id

    @classmethod
    def attach(cls, job_id: str | int) -> Job:
        """Return the job of this id, submitted earlier, with the configured settings.

        Slurm.attach("1234").wait()
        """
        return cls().job(job_id)

    @classmethod
    def configured(cls, **options: Any) -> Self:
        """Return this batch system with the configuration files applied."""
        return cls(**options)


def _skipped(line: str, skip: Sequence[str]) -> bool:
    """Whether a directive begins with one of the texts to skip, as a whole option: "--mem" is not
    "--mem-per-cpu".
    """
    return any(
        line == part or line.startswith((part + "=", part + " ", part + ":")) for part in skip
    )


def safe_name(spec: JobSpec, system: BatchSystem, length_max: int) -> str:
    """Return the job's name where a batch system allows few characters; raise `SpecError` for a
    name that it refuses.
    """
    check_text("name", spec.name)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", spec.name) or len(spec.name) > length_max:
        raise SpecError(
            f"The name {spec.name!r} is not possible for {system.title}: it must begin with a "
            "letter, consist of letters, digits, dots, dashes and underscores, and have at most "
            f"{length_max}. Rename the job."
        )
    return spec.name
