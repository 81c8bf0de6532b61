"""How does one talk to OpenPBS and PBS Professional?

Formats after qsub(1B), qstat(1B), qdel(1B) and the reference guide of PBS Professional ("Job
Attributes", "Job Exit Status Codes"). Torque, which also has these commands, answers in no JSON and
is not supported. Pure, as `system.py` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobqueue.shell import Command, Output
from jobqueue.spec import JobSpec
from jobqueue.states import JobState, JobStatus
from jobqueue.system import BatchSystem, safe_name
from jobqueue.units import clock, mebibytes

#: The letters of the attribute job_state.
STATES = {
    "B": JobState.RUNNING,  # an array of which an element has started
    "E": JobState.RUNNING,  # ending
    "R": JobState.RUNNING,
    "S": JobState.RUNNING,  # suspended
    "U": JobState.RUNNING,  # suspended since someone uses the workstation
    "H": JobState.QUEUED,
    "M": JobState.QUEUED,  # moved to another server
    "Q": JobState.QUEUED,
    "T": JobState.QUEUED,  # on its way to another queue
    "W": JobState.QUEUED,
    "F": JobState.COMPLETED,  # finished: the exit status says how
    "X": JobState.COMPLETED,  # an element of an array, finished
}

WAITS = {
    "H": "It is held, or waits for another job to end; `qrls` frees a held one.",
    "M": "It was moved to another server.",
    "T": "It is on its way to another queue.",
    "W": "Its earliest start time has not come.",
}

#: Negative exit statuses come from PBS and not from the job.
ENDS = {
    -1: "PBS could not start the job.",
    -2: "PBS could not start the job after its files were in place.",
    -3: "PBS could not start the job; it may be tried again.",
    -24: "PBS ended the job: it used more cores than it had asked for.",
    -25: "PBS ended the job: it used more cores than it had asked for.",
    -26: "PBS ended the job: it used more virtual memory than it had asked for.",
    -27: "PBS ended the job: it used more memory than it had asked for.",
    -28: "PBS ended the job: it used more processor time than it had asked for.",
    -29: "PBS ended the job when it reached its time limit; ask for more time.",
}

#: The attribute substate of a finished job that was deleted.
_DELETED = 91
_UNKNOWN_JOB = re.compile(r"qstat: (Unknown Job Id|Job has finished)", re.IGNORECASE)


class PBS(BatchSystem):
    """OpenPBS and PBS Professional: `PBS(queue="workq").submit("analysis.py", nodes=4,
    cpus_per_task=32)`.
    """

    name = "pbs"
    title = "PBS"
    prefix = "#PBS"
    programs = ("qsub", "pbsnodes")
    index_variable = "PBS_ARRAY_INDEX"
    id_expression = r"${PBS_JOBID/\[*\]/[]}"  # 17[].server, of each element
    manual = "https://help.altair.com/2022.1.0/PBS%20Professional/PBSReferenceGuide2022.1.pdf"
    transient_errors = (
        "cannot connect to server",
        "Connection refused",
        "Connection timed out",
        "Server could not connect to MOM",
        "Resource temporarily unavailable",
        "Communication failure",
    )
    advice = {
        "Unknown queue": "Name another queue with --queue; `qstat -Q` lists them.",
        "Job violates queue and/or server resource limits": (
            "Ask for less; `qstat -Qf` shows the limits of each queue."
        ),
        "Invalid account": "Name your account with --account.",
        "Unknown resource": "Your site has other resources; see --skip-directive and --directive.",
        "Illegal attribute or resource value": (
            "Your site has other resources; see --skip-directive and --directive."
        ),
        "Unauthorized Request": "You may not use this queue; name another with --queue.",
    }
    already_ended = ("Job has finished", "Unknown Job Id", "Request invalid for state of job")

    def directives(self, spec: JobSpec) -> list[str]:
        """Return the options of qsub."""
        wanted = spec.resources
        if spec.signal_before_s is not None:
            raise self.unsupported(
                "to send a signal some time before the time limit",
                "It sends TERM at the limit; let the program save its work from time to time.",
            )
        lines = [
            f"-N {safe_name(spec, self, 230)}",
            "-S /bin/bash",  # else the login shell, which may be another, reads the script
            "-V",  # the environment of the submitting shell, which Slurm passes on by itself
            "-j oe",
            f"-o batch{'' if spec.array is None else '-^array_index^'}.log",
            f"-l select={self._select(spec)}",
            f"-l place=scatter{':excl' if wanted.whole_nodes else ''}",
        ]
        if wanted.walltime is not None:
            lines.append(f"-l walltime={clock(wanted.walltime)}")
        if spec.queue is not None:
            lines.append(f"-q {self.plain('queue', spec.queue)}")
        if spec.account is not None:
            lines.append(f"-A {self.plain('account', spec.account)}")
        return lines + self._conditions(spec)

    def _conditions(self, spec: JobSpec) -> list[str]:
        """Return the options about when a job starts, whom it tells and what happens to it."""
        lines = []
        if spec.array is not None:
            limit = "" if spec.array.at_once is None else f"%{spec.array.at_once}"
            lines.append(f"-J {spec.array}{limit}")
        waits = [
            ":".join((word, *job_ids))
            for word, job_ids in (
                ("afterok", spec.after_ok),
                ("afterany", spec.after_any),
                ("afternotok", spec.after_not_ok),
            )
            if job_ids
        ]
        if waits:
            lines.append(f"-W depend={','.join(waits)}")
        if spec.mail_user is not None:
            lines.append(f"-M {self.plain('mail_user', spec.mail_user)}")
        if spec.mail_when:
            letters = {"begin": "b", "end": "e", "fail": "a"}
            lines.append(f"-m {''.join(letters[event] for event in spec.mail_when)}")
        if spec.requeue is not None:
            lines.append(f"-r {'y' if spec.requeue else 'n'}")
        return lines

    def _select(self, spec: JobSpec) -> str:
        """Return the chunks: one for each node."""
        wanted = spec.resources
        parts = [str(wanted.nodes)]
        if wanted.cores_per_node is not None:
            parts.append(f"ncpus={wanted.cores_per_node}")
        parts.append(f"mpiprocs={wanted.tasks_per_node or 1}")
        if wanted.memory_per_node is not None:
            parts.append(f"mem={mebibytes(wanted.memory_per_node)}mb")
        if wanted.gpus_per_node:
            parts.append(f"ngpus={wanted.gpus_per_node}")
        if spec.constraint is not None:
            parts.append(self.plain("constraint", spec.constraint))
        return ":".join(parts)

    def submit_command(self, script: Path, spec: JobSpec) -> Command:
        """Return the command line of qsub."""
        del spec
        return Command(("qsub", script.name), folder=script.parent)

    def parse_job_id(self, output: Output) -> str:
        """Return the id that qsub prints alone: `1234.server` or, for an array, `1234[].server`."""
        lines = output.stdout.strip().splitlines()
        if output.status == 0 and lines and re.fullmatch(r"\d+(\[\])?\.[\w.-]+", lines[-1]):
            return lines[-1]
        raise self.submit_error(output)

    def status_command(self, job_ids: Sequence[str]) -> Command:
        """Return one qstat for all jobs, those included that have finished."""
        return Command(("qstat", "-x", "-f", "-F", "json", *job_ids))

    def parse_status(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Read qstat's JSON. qstat ends with an error when it does not know one of the ids, and
        prints the others.
        """
        errors = [line for line in output.stderr.splitlines() if line.strip()]
        if not all(_UNKNOWN_JOB.match(line) for line in errors) or (output.status and not errors):
            raise self.unreadable(output)
        if not output.stdout.strip() and errors:
            return {}
        jobs = self._jobs(output)
        return {job_id: self._status(jobs[job_id]) for job_id in job_ids if job_id in jobs}

    def _jobs(self, output: Output) -> Mapping[str, Any]:
        try:
            jobs = json.loads(output.stdout, strict=False).get("Jobs", {})
            if isinstance(jobs, dict) and all(isinstance(job, dict) for job in jobs.values()):
                return jobs
        except (ValueError, AttributeError):
            jobs = _read_lines(output.stdout)
            if jobs:
                return jobs
        raise self.unreadable(output)

    def _status(self, job: Mapping[str, Any]) -> JobStatus:
        native = str(job.get("job_state", ""))
        state = STATES.get(native)
        if state is None:
            return self.unknown_state(native)
        if state is not JobState.COMPLETED:
            reason = ""
            if state is JobState.QUEUED:
                comment = str(job.get("comment", "")).removeprefix("Not Running: ").strip()
                reason = WAITS.get(native) or (
                    f"PBS says: {comment.rstrip('.')}." if comment else ""
                )
            hosts = str(job.get("exec_host", ""))
            return JobStatus(state=state, native=native, reason=reason, hosts=hosts)
        code = _number(job.get("Exit_status"))
        if _number(job.get("substate")) == _DELETED:
            state, reason = JobState.CANCELLED, "The job was cancelled."
        elif code is None:
            # A finished job that never ran has no exit status.
            state, reason = JobState.CANCELLED, "The job was deleted before it ran."
        else:
            state = JobState.COMPLETED if code == 0 else JobState.FAILED
            reason = ENDS.get(
                code, "" if code >= 0 else f"PBS ended the job with its own status {code}."
            )
        return JobStatus(state=state, native=native, reason=reason, exit_status=_exit_status(code))

    def cancel_command(self, job_ids: Sequence[str]) -> Command:
        """Return the command line of qdel."""
        return Command(("qdel", *job_ids))


def _read_lines(text: str) -> dict[str, dict[str, str]]:
    """Return jobs from JSON that is not valid: some versions of qstat forget to escape what users
    have in variables.

    Each attribute stands on its own line, so those that matter can be read all the same.
    """
    jobs: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r'\s*"(\d+(?:\[\d*\])?\.[\w.-]+)":\s*\{\s*', line):
            current = jobs.setdefault(match[1], {})
        elif match := re.fullmatch(
            r'\s*"(job_state|substate|Exit_status|comment|exec_host)":\s*"?(.*?)"?,?\s*', line
        ):
            current.setdefault(match[1], match[2])
    return jobs


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _exit_status(code: int | None) -> int | None:
    """Return a shell's exit status; PBS adds 256 to the number of a signal, and its own statuses
    are negative.
    """
    if code is None or code < 0:
        return None
    return 128 + code - 256 if code > 256 else code
