"""How does one talk to IBM Spectrum LSF?

Formats after the reference of LSF 10.1:
https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=reference-command, pages bsub, bjobs, bhist
and bkill. Pure, as `system.py` says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobqueue.shell import Command, Output
from jobqueue.spec import JobSpec
from jobqueue.states import JobState, JobStatus, combine
from jobqueue.system import BatchSystem, safe_name
from jobqueue.units import hours_and_minutes, mebibytes

#: The column STAT of bjobs.
STATES = {
    "PEND": JobState.QUEUED,
    "PROV": JobState.QUEUED,
    "PSUSP": JobState.QUEUED,
    "WAIT": JobState.QUEUED,
    "FWD_PEND": JobState.QUEUED,
    "RUN": JobState.RUNNING,
    "USUSP": JobState.RUNNING,
    "SSUSP": JobState.RUNNING,
    "DONE": JobState.COMPLETED,
    "EXIT": JobState.FAILED,
    "ZOMBI": JobState.FAILED,
}

#: LSF's words for how it ended a job.
ENDS = {
    "TERM_RUNLIMIT": "LSF ended the job when it reached its time limit; ask for more time.",
    "TERM_MEMLIMIT": (
        "The job used more memory than it had asked for; ask for more memory per node."
    ),
    "TERM_SWAP": "The job used more memory than it had asked for; ask for more memory per node.",
    "TERM_CPULIMIT": "LSF ended the job when it reached its limit of processor time.",
    "TERM_PROCESSLIMIT": "LSF ended the job when it reached its limit of processes.",
    "TERM_THREADLIMIT": "LSF ended the job when it reached its limit of threads.",
    "TERM_DEADLINE": "LSF ended the job at its deadline.",
    "TERM_PREEMPT": "LSF ended the job in favour of one with a higher priority; submit it again.",
    "TERM_LOAD": "LSF ended the job because its host was overloaded; submit it again.",
    "TERM_ADMIN": "An administrator ended the job.",
    "TERM_OWNER": "The job was cancelled.",
    "TERM_FORCE_OWNER": "The job was cancelled.",
    "TERM_FORCE_ADMIN": "An administrator ended the job.",
    "TERM_REMOVE_HUNG_JOB": "LSF gave up the job since its host does not answer; submit it again.",
}
_CANCELLED = ("TERM_OWNER", "TERM_FORCE_OWNER", "TERM_ADMIN", "TERM_FORCE_ADMIN")

_FIELDS = "jobid stat exit_code exit_reason exec_host pend_reason"
_NOT_FOUND = re.compile(
    r"Job <(\d+)(?:\[\d+\])?> is not found|No (unfinished )?job found", re.IGNORECASE
)


class LSF(BatchSystem):
    """IBM Spectrum LSF: `LSF(queue="normal").submit("analysis.py", nodes=4, cpus_per_task=32)`."""

    name = "lsf"
    title = "LSF"
    prefix = "#BSUB"
    programs = ("bsub",)
    index_variable = "LSB_JOBINDEX"
    id_expression = "$LSB_JOBID"
    manual = "https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=bsub-options"
    transient_errors = (
        "LSF is down",
        "Please wait",
        "Pending job threshold reached",
        "Failed in an LSF library call",
        "communication timeout",
        "try later",
    )
    advice = {
        "No such queue": "Name another queue with --queue; `bqueues` lists them.",
        "Unknown queue": "Name another queue with --queue; `bqueues` lists them.",
        "Too many processors requested": "Ask for fewer nodes or cores.",
        "RUNLIMIT": "Ask for less time; `bqueues -l` shows the limit of each queue.",
        "Bad resource requirement": (
            "Your site has other resources; see --skip-directive and --directive."
        ),
        "Invalid dependency condition": "Depend only on jobs that exist.",
        "User cannot use the queue": (
            "Name another queue with --queue; `bqueues -u $USER` lists yours."
        ),
    }
    already_ended = ("Job has already finished", "is not found", "No matching job found")

    def directives(self, spec: JobSpec) -> list[str]:
        """Return the options of bsub."""
        wanted = spec.resources
        name = safe_name(spec, self, 200)
        if spec.array is not None:
            if spec.array.first < 1:
                raise self.unsupported(
                    "an array with the index 0", "Its arrays begin with 1: ask for 1-10."
                )
            limit = "" if spec.array.at_once is None else f"%{spec.array.at_once}"
            name = f'"{name}[{spec.array}]{limit}"'
        cores = wanted.cores_per_node or 1
        lines = [
            f"-J {name}",
            f"-o batch{'' if spec.array is None else '-%I'}.log",
            f"-n {wanted.nodes * cores}",
            f'-R "span[ptile={cores}]"',
        ]
        if wanted.memory_per_node is not None:
            lines.append(f'-R "rusage[mem={mebibytes(wanted.memory_per_node)}MB/host]"')
        if wanted.gpus_per_node:
            lines.append(f'-gpu "num={wanted.gpus_per_node}/host"')
        if wanted.walltime is not None:
            lines.append(f"-W {hours_and_minutes(wanted.walltime)}")
        if wanted.whole_nodes:
            lines.append("-x")
        if spec.queue is not None:
            lines.append(f"-q {self.plain('queue', spec.queue)}")
        if spec.account is not None:
            lines.append(f"-P {self.plain('account', spec.account)}")
        if spec.constraint is not None:
            lines.append(f'-R "select[{self.plain("constraint", spec.constraint)}]"')
        return lines + self._conditions(spec)

    def _conditions(self, spec: JobSpec) -> list[str]:
        """Return the options about when a job starts, whom it tells and what happens to it."""
        lines = []
        waits = [
            f"{word}({job_id})"
            for word, job_ids in (
                ("done", spec.after_ok),
                ("ended", spec.after_any),
                ("exit", spec.after_not_ok),
            )
            for job_id in job_ids
        ]
        if waits:
            lines.append(f'-w "{" && ".join(waits)}"')
            # Otherwise a job whose condition has become impossible would stay in the queue for
            # ever.
            lines.append("-ti")
        if spec.mail_user is not None:
            lines.append(f"-u {self.plain('mail_user', spec.mail_user)}")
        if "begin" in spec.mail_when:
            lines.append("-B")
        if "end" in spec.mail_when or "fail" in spec.mail_when:
            lines.append("-N")
        if spec.requeue is not None:
            lines.append("-r" if spec.requeue else "-rn")
        if spec.signal_before_s is not None:
            lines += [f"-wa {spec.signal_name}", f"-wt {math.ceil(spec.signal_before_s / 60)}"]
        return lines

    def submit_command(self, script: Path, spec: JobSpec) -> Command:
        """Return the command line of bsub, which reads the script from its standard input."""
        del spec
        return Command(("bsub",), stdin=script, folder=script.parent)

    def parse_job_id(self, output: Output) -> str:
        """Return the id from `Job <12> is submitted to queue <normal>.`."""
        match = re.search(r"^Job <(\d+)> is submitted to ", output.stdout, re.MULTILINE)
        if match and output.status == 0:
            return match[1]
        raise self.submit_error(output)

    def status_command(self, job_ids: Sequence[str]) -> Command:
        """Return one bjobs for all jobs; -a adds those that ended within the last hour or so."""
        return Command(("bjobs", "-a", "-json", "-o", _FIELDS, *job_ids))

    def parse_status(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Read bjobs' JSON; elements of one array are combined."""
        text = output.stdout[max(output.stdout.find("{"), 0) :]  # "please wait" may stand before it
        if not text.strip():
            errors = [line for line in output.stderr.splitlines() if line.strip()]
            if errors and all(_NOT_FOUND.search(line) for line in errors):
                return {}
            raise self.unreadable(output)
        try:
            records = json.loads(text, strict=False)["RECORDS"]
            found: dict[str, list[JobStatus]] = {}
            for record in records:
                if "ERROR" not in record:
                    number = re.split(r"\[", record["JOBID"])[0]
                    found.setdefault(number, []).append(self._status(record))
        except (ValueError, KeyError, TypeError) as error:
            raise self.unreadable(output) from error
        return {job_id: combine(found[job_id]) for job_id in job_ids if job_id in found}

    def _status(self, record: Mapping[str, Any]) -> JobStatus:
        native = str(record["STAT"])
        state = STATES.get(native)
        if state is None:
            return self.unknown_state(native)
        hosts = str(record.get("EXEC_HOST", ""))
        reason, exit_status = "", None
        if state is JobState.QUEUED:
            said = str(record.get("PEND_REASON", "")).strip().rstrip(";.")
            reason = f"LSF says: {said}." if said else ""
        elif state is JobState.FAILED:
            word = str(record.get("EXIT_REASON", "")).partition(":")[0].strip()
            reason = ENDS.get(word, "")
            state = JobState.CANCELLED if word in _CANCELLED else state
            code = str(record.get("EXIT_CODE", "")).strip()
            exit_status = int(code) if code.isdigit() else None
        elif state is JobState.COMPLETED:
            exit_status = 0
        return JobStatus(
            state=state, native=native, reason=reason, exit_status=exit_status, hosts=hosts
        )

    def cancel_command(self, job_ids: Sequence[str]) -> Command:
        """Return the command line of bkill."""
        return Command(("bkill", *job_ids))

    def accounting_commands(self, job_ids: Sequence[str]) -> list[Command]:
        """Return one bhist for all jobs; it reads the event log, so it is asked only about jobs
        that bjobs forgot.
        """
        return [Command(("bhist", "-l", "-n", "0", *job_ids))]

    def parse_accounting(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Read the events in the text of `bhist -l`, which breaks lines at 80 columns and indents
        what follows.
        """
        text = re.sub(r"\n {10,}", "", output.stdout)
        found: dict[str, list[JobStatus]] = {}
        for block in re.split(r"^-{10,}$", text, flags=re.MULTILINE):
            number = re.search(r"^Job <(\d+)(?:\[\d+\])?>", block, re.MULTILINE)
            end = _end(block)
            if number and end:
                found.setdefault(number[1], []).append(end)
        return {job_id: combine(found[job_id]) for job_id in job_ids if job_id in found}


def _end(block: str) -> JobStatus | None:
    """Return how a job ended, from the last of its events; None if it has not."""
    if re.search(r": Done successfully", block):
        return JobStatus(state=JobState.COMPLETED, native="DONE", exit_status=0)
    ends = re.findall(r": Exited(?: with exit code (\d+)| by signal (\d+))?", block)
    if not ends:
        return None
    code, signal = ends[-1]
    word = next((word for word in ENDS if re.search(rf"\b{word}\b", block)), "")
    return JobStatus(
        state=JobState.CANCELLED if word in _CANCELLED else JobState.FAILED,
        native="EXIT",
        reason=ENDS.get(word, ""),
        exit_status=int(code) if code else 128 + int(signal) if signal else None,
    )
