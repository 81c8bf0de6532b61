"""How does a script, a command or a function become a job in the queue?

Everything is checked before anything is written, and everything is written before anything is
submitted. A submission that failed leaves a folder that says so, and a job that may exist all the
same finds there that it must not run. This file must never leave a job in the queue that its caller
was told does not exist.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobqueue.errors import CommandError, SpecError, SubmitError
from jobqueue.folder import RECORD, SCRIPT, JobFolder, slug
from jobqueue.functions import RUNNER, pack_function, store_function
from jobqueue.job import Job
from jobqueue.paths import home_path, not_a_file
from jobqueue.registry import find, remember
from jobqueue.shell import Command, Output
from jobqueue.spec import JobSpec, check_job_id, launch_words
from jobqueue.states import JobState, JobStatus

if TYPE_CHECKING:
    from jobqueue.system import BatchSystem

logger = logging.getLogger("jobqueue")

Target = str | Path | Callable[..., object]


def submit(
    system: BatchSystem, target: Target, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Job:
    """Submit a Python script or a function; see `BatchSystem.submit`."""
    merged = {**system.defaults, **options}
    if isinstance(target, (str, Path)):
        spec = script_spec(target, arguments, merged)
        return _submit(system, spec, JobFolder.plan(spec.log_folder, spec.name))
    if not callable(target):
        raise SpecError(
            f"{target!r} was to be submitted; it must be the path of a Python script, or a "
            "function."
        )
    packed = pack_function(target, arguments)
    merged["name"] = merged.get("name") or slug(getattr(target, "__name__", "function"))
    # The command names a file in the folder, and the folder is named after the job, so the job
    # comes in two steps.
    first = JobSpec.from_options(["python"], merged)
    folder = JobFolder.plan(first.log_folder, first.name)
    words = [*launch_words(merged), str(folder.path / RUNNER)]
    return _submit(system, JobSpec.from_options(words, merged), folder, packed)


def submit_words(system: BatchSystem, words: Sequence[str], options: Mapping[str, Any]) -> Job:
    """Submit a command; see `BatchSystem.submit_command_line`."""
    spec = command_spec(words, {**system.defaults, **options})
    return _submit(system, spec, JobFolder.plan(spec.log_folder, spec.name))


def preview(
    system: BatchSystem,
    target: str | Path | Sequence[str],
    arguments: Sequence[str],
    options: Mapping[str, Any],
) -> str:
    """Return the script of a job, for a Python script or for the words of a command; see
    `BatchSystem.job_script`.
    """
    merged = {**system.defaults, **options}
    if isinstance(target, (str, Path)):
        spec = script_spec(target, arguments, merged)
    elif callable(target):
        raise SpecError(
            f"The job script of the function {target!r} was asked for, and it is known only when "
            "the function is submitted. Submit it and read job.sh in the job's folder."
        )
    else:
        spec = command_spec(target, merged)
    return system.script(spec, spec.log_folder / f"{slug(spec.name)}-preview")


def script_spec(
    script: str | Path, arguments: Sequence[Any], options: Mapping[str, Any]
) -> JobSpec:
    """Return the job that runs a Python script under its launcher; raise `SpecError` when there is
    no such file.
    """
    folder = home_path("working_folder", options.get("working_folder") or Path.cwd())
    path = Path.cwd() / folder / script
    found = not_a_file(path)
    if found:
        raise SpecError(
            f"The Python script {str(script)!r} was to be submitted, and {path} is {found}. "
            "Correct the path; for a command that is no Python script use --command."
        )
    named = {**options, "name": options.get("name") or slug(path.stem)}
    return JobSpec.from_options([*launch_words(named), str(path), *map(str, arguments)], named)


def command_spec(words: Sequence[str], options: Mapping[str, Any]) -> JobSpec:
    """Return the job that runs a command as it is."""
    if (
        isinstance(words, str)
        or not isinstance(words, Iterable)
        or not (words := list(words))
        or not all(isinstance(word, str) for word in words)
    ):
        raise SpecError(
            f'The command {words!r} must be a list of words, such as ["hostname", "-f"].'
        )
    named = {**options, "name": options.get("name") or slug(Path(words[0]).name)}
    return JobSpec.from_options(words, named)


def attach(system: BatchSystem, number: str | int) -> Job:
    """Return the job of an id; see `BatchSystem.job`."""
    job_id = check_job_id(number)
    system.check_job_id(job_id)
    known = find(job_id, system.name)
    return adopt(system, known.job_id if known else job_id, known.folder if known else None)


def adopt(system: BatchSystem, job_id: str, folder: JobFolder | None) -> Job:
    """Return the job of a whole id whose folder is known, or known not to be."""
    existing = system.poller.jobs.get(job_id)
    if existing is not None:
        return existing
    job = Job(system, job_id, folder)
    system.poller.add(job)
    return job


def _submit(
    system: BatchSystem, spec: JobSpec, folder: JobFolder, function: bytes | None = None
) -> Job:
    """Write the folder of a job and give the job to the batch system."""
    script = system.script(spec, folder.path)
    folder.create(script)
    try:
        if function is not None:
            store_function(folder, function)
        _write_first_record(folder, system, spec)
        job_id = _give(system, system.submit_command(folder.path / SCRIPT, spec), folder)
    except BaseException as error:
        raise _failed(system, folder, error) from error
    try:
        folder.update_record(submission="submitted", job_id=job_id, state=JobState.QUEUED.value)
    except OSError as error:  # the job is there all the same, and its id must be told
        logger.warning("That job %s was submitted cannot be noted: %s.", job_id, error)
    remember(system.name, job_id, folder)
    job = Job(system, job_id, folder, spec.array)
    job.note(JobStatus(state=JobState.QUEUED))
    system.poller.add(job)
    return job


def _give(system: BatchSystem, command: Command, folder: JobFolder) -> str:
    """Give a job to the batch system and return its id."""
    try:
        return system.parse_job_id(system.runner(command, system.settings.submit_timeout_s))
    except (CommandError, SubmitError) as error:
        # A command that hangs, or prints what nobody can read, may have done its work all the same.
        job_id = _late_id(system, command, folder, error)
        if not job_id:
            raise
        logger.warning("%s The job was made all the same: its id is %s.", error, job_id)
        return job_id


def _late_id(
    system: BatchSystem, command: Command, folder: JobFolder, error: CommandError | SubmitError
) -> str:
    """Return the id of a job whose submission went wrong: what the command had printed before it
    hung, or what the job, which has begun, says itself; "" if neither is there.
    """
    if isinstance(error, CommandError) and error.printed.endswith("\n"):
        with contextlib.suppress(SubmitError):
            return system.parse_job_id(Output(command, 0, error.printed))
    with contextlib.suppress(SpecError):
        job_id = check_job_id(folder.told_id())
        system.check_job_id(job_id)
        return job_id
    return ""


def _write_first_record(folder: JobFolder, system: BatchSystem, spec: JobSpec) -> None:
    folder.update_record(
        version=1,
        submission="prepared",
        system=system.name,
        name=spec.name,
        command=list(spec.command),
        nodes=spec.resources.nodes,
        array=None if spec.array is None else str(spec.array),
        working_folder=str(spec.working_folder),
        prepared_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        state=JobState.NEW.value,
        submitted_from=os.uname().nodename,
    )


def _failed(system: BatchSystem, folder: JobFolder, error: BaseException) -> BaseException:
    """Note in the folder that the submission failed, and return the error to raise."""
    if isinstance(error, CommandError):
        reason = str(error)
        if error.started:
            reason = (
                f"{system.title} was asked to take the job and it is not known whether it did. "
                f"{error} {system.doubt}"
            )
        failure: BaseException = SubmitError(
            reason, transient=error.started, in_doubt=error.started, folder=folder.path
        )
    elif isinstance(error, SubmitError):
        error.folder = folder.path
        failure = error
    elif isinstance(error, OSError):
        failure = SubmitError(
            f"The folder of the job could not be written: {error}. Name another with --log-folder.",
            folder=folder.path,
        )
    else:
        failure = error
        if isinstance(error, KeyboardInterrupt):
            failure.add_note(f"The submission to {system.title} was broken off. {system.doubt}")
    try:
        folder.forbid_start()
        notes = getattr(failure, "__notes__", ())
        told = " ".join(part for part in (str(failure), *notes) if part)
        folder.update_record(submission="failed", error=told or type(failure).__name__)
    except OSError as second:
        failure.add_note(f"{folder.path / RECORD} could not be written either: {second}.")
    told_id = folder.told_id()
    if told_id:
        failure.add_note(
            f"A job has come of it, {told_id}, and may have begun: its output is in {folder.path}."
        )
    return failure
