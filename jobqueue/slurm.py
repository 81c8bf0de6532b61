"""How does one talk to Slurm?

Formats after https://slurm.schedmd.com/sbatch.html, squeue.html, sacct.html, scontrol.html and
job_state_codes.html. Works with and without an accounting database. Pure, as `system.py` says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jobqueue.errors import SpecError
from jobqueue.shell import Command, Output
from jobqueue.spec import JobSpec
from jobqueue.states import JobState, JobStatus, combine
from jobqueue.system import BatchSystem
from jobqueue.units import clock, mebibytes

#: https://slurm.schedmd.com/job_state_codes.html
STATES = {
    "PENDING": JobState.QUEUED,
    "CONFIGURING": JobState.QUEUED,
    "REQUEUED": JobState.QUEUED,
    "REQUEUE_FED": JobState.QUEUED,
    "REQUEUE_HOLD": JobState.QUEUED,
    "RESV_DEL_HOLD": JobState.QUEUED,
    "SPECIAL_EXIT": JobState.QUEUED,
    "RUNNING": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "POWER_UP_NODE": JobState.QUEUED,
    "COMPLETED": JobState.COMPLETED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "RECONFIG_FAIL": JobState.FAILED,
    "EXPEDITING": JobState.QUEUED,
    "TIMEOUT": JobState.FAILED,
    "DEADLINE": JobState.FAILED,
    "OUT_OF_MEMORY": JobState.FAILED,
    "NODE_FAIL": JobState.FAILED,
    "BOOT_FAIL": JobState.FAILED,
    "PREEMPTED": JobState.FAILED,
}

#: How a job ended, in a sentence.
ENDS = {
    "CANCELLED": "The job was cancelled.",
    "TIMEOUT": "Slurm ended the job when it reached its time limit; ask for more time.",
    "DEADLINE": "Slurm ended the job at its deadline.",
    "OUT_OF_MEMORY": (
        "The job used more memory than it had asked for; ask for more memory per node."
    ),
    "NODE_FAIL": "A node of the job failed; submit it again.",
    "BOOT_FAIL": "A node of the job could not be started; submit it again.",
    "LAUNCH_FAILED": "Slurm could not start the job on its nodes.",
    "PREEMPTED": "Slurm ended the job in favour of one with a higher priority; submit it again.",
}

NEVER = (
    "Slurm cancelled the job, because one that it waits for has not ended in the way it waits for."
)

#: Slurm reports this exit code for a job whose output it could not open on the first node.
_NO_OUTPUT_CODE = "0:53"
NO_OUTPUT = (
    "Slurm could not write into the job's folder on the job's first node: name a log folder on a "
    "file system that login and compute nodes share."
)

#: Why a job waits: https://slurm.schedmd.com/job_reason_codes.html
REASONS = {
    "None": "",
    "Resources": "It waits for nodes to become free.",
    "Priority": "Jobs with a higher priority are before it.",
    "Dependency": "It waits for another job to end.",
    "DependencyNeverSatisfied": (
        "It waits for a job that ended otherwise than it was to; cancel it."
    ),
    "JobHeldUser": "Its user holds it; `scontrol release` frees it.",
    "JobHeldAdmin": "An administrator holds it; ask why.",
    "BeginTime": "Its earliest start time has not come.",
    "PartitionTimeLimit": "It asks for more time than its partition allows; ask for less.",
    "PartitionNodeLimit": "It asks for more nodes than its partition allows; ask for fewer.",
    "PartitionDown": "Its partition is out of service.",
    "PartitionInactive": "Its partition starts no jobs at present.",
    "PartitionConfig": "What it asks for does not exist in its partition; change the request.",
    "BadConstraints": "No node has what it asks for; change the request.",
    "ReqNodeNotAvail": "Nodes that it needs are reserved or out of service.",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "Nodes that it needs are out of service or reserved."
    ),
    "Reservation": "It waits for its reservation to begin.",
    "Licenses": "It waits for a licence.",
    "InvalidAccount": "Its account is not valid; name another.",
    "InvalidQOS": "Its quality of service is not valid; name another.",
    "JobArrayTaskLimit": "As many elements of its array run as may run at once.",
    "AssocGrpCpuLimit": "Its account uses as many cores as it may.",
    "AssocGrpNodeLimit": "Its account uses as many nodes as it may.",
    "AssocGrpCPUMinutesLimit": "Its account has used up its core time.",
    "AssocMaxJobsLimit": "Its user runs as many jobs as one may.",
    "QOSMaxJobsPerUserLimit": "Its user runs as many jobs as one may.",
    "QOSMaxCpuPerUserLimit": "Its user uses as many cores as one may.",
    "QOSMaxNodePerUserLimit": "Its user uses as many nodes as one may.",
    "QOSGrpCpuLimit": "The jobs of its quality of service use as many cores as they may.",
    "Prolog": "Its nodes are being prepared.",
    "Cleaning": "It is queued again and its nodes are being cleaned.",
}

_FORMAT = "%F|%K|%T|%N|%r"
_NOT_THERE = "Invalid job id specified"
_ELEMENT = re.compile(r"(\d+)_(\d+|\[.*\])")
#: Slurm counts jobs in 32 bits, and none is 0.
_ID_MAX = 2**32 - 1
_SCONTROL = re.compile(r"\bJobState=(\S+) Reason=(\S+)")

#: Variables that sbatch would believe rather than the directives of the script, after the directive
#: they override.
OVERRIDING = {
    "--job-name": "SBATCH_JOB_NAME",
    "--partition": "SBATCH_PARTITION",
    "--account": "SBATCH_ACCOUNT",
    "--time": "SBATCH_TIMELIMIT",
    "--constraint": "SBATCH_CONSTRAINT",
    "--exclusive": "SBATCH_EXCLUSIVE",
    "--mem": "SBATCH_MEM_PER_NODE",
    "--gpus-per-node": "SBATCH_GPUS_PER_NODE",
    "--output": "SBATCH_OUTPUT",
    "--open-mode": "SBATCH_OPEN_MODE",
    "--signal": "SBATCH_SIGNAL",
    "--requeue": "SBATCH_REQUEUE",
    "--no-requeue": "SBATCH_NO_REQUEUE",
}
#: Variables that would make of any job something else: an array, or one that sbatch waits for.
ALWAYS_HIDDEN = ("SBATCH_ARRAY_INX", "SBATCH_WAIT")


class Slurm(BatchSystem):
    """Slurm: `Slurm(account="climate").submit("analysis.py", nodes=4, walltime="1:00:00")`."""

    name = "slurm"
    title = "Slurm"
    prefix = "#SBATCH"
    programs = ("sbatch",)
    index_variable = "SLURM_ARRAY_TASK_ID"
    id_expression = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}"
    manual = "https://slurm.schedmd.com/sbatch.html"
    transient_errors = (
        "Socket timed out",
        "Unable to contact slurm controller",
        "Resource temporarily unavailable",
        "Slurm controller not responding",
        "try again later",
        "Zero Bytes were transmitted",
        "Connection refused",
    )
    advice = {
        "Invalid account": (
            "Name your account with --account; `sacctmgr show associations user=$USER` lists yours."
        ),
        "invalid partition": "Name another partition with --queue; `sinfo -s` lists them.",
        "Requested node configuration is not available": (
            "No set of nodes has what the job asks for: ask for less, or see `sinfo -Nel`."
        ),
        "More processors requested than permitted": "Ask for fewer cores or nodes.",
        "Node count specification invalid": (
            "Ask for fewer nodes; `sinfo -s` shows how many each partition has."
        ),
        "Requested time limit is invalid": (
            "Ask for less time; `sinfo -s` shows the limit of each partition."
        ),
        "Job dependency problem": "Depend only on jobs that exist.",
        "Invalid feature specification": "Name another --constraint; `sinfo -o '%f'` lists them.",
        "Memory specification can not be satisfied": "Ask for less memory per node.",
        "Job violates accounting/QOS policy": (
            "The site limits such jobs: ask for less, or see `sacctmgr show qos`."
        ),
    }
    already_ended = ("already completing or completed", "Job/step already completing", _NOT_THERE)

    def directives(self, spec: JobSpec) -> list[str]:
        """Return the options of sbatch."""
        wanted = spec.resources
        lines = [
            f"--job-name={_quoted(spec.name)}",
            f"--output={_batch_log(spec)}",
            "--open-mode=append",
            f"--nodes={wanted.nodes}",
        ]
        if wanted.tasks_per_node is not None:
            lines.append(f"--ntasks-per-node={wanted.tasks_per_node}")
        if wanted.cpus_per_task is not None:
            lines.append(f"--cpus-per-task={wanted.cpus_per_task}")
        if wanted.memory_per_node is not None:
            lines.append(f"--mem={mebibytes(wanted.memory_per_node)}M")
        elif wanted.whole_nodes:
            lines.append("--mem=0")  # all of the node's, not the default per job
        if wanted.gpus_per_node:
            lines.append(f"--gpus-per-node={wanted.gpus_per_node}")
        if wanted.walltime is not None:
            lines.append(f"--time={clock(wanted.walltime)}")
        if wanted.whole_nodes:
            lines.append("--exclusive")
        for option, value in (
            ("partition", spec.queue),
            ("account", spec.account),
            ("constraint", spec.constraint),
            ("mail-user", spec.mail_user),
        ):
            if value is not None:
                lines.append(f"--{option}={_quoted(value)}")
        return lines + _conditions(spec)

    def submit_command(self, script: Path, spec: JobSpec) -> Command:
        """Return the command line of sbatch."""
        given = {line.split("=")[0] for line in self.directives(spec)}
        hidden = tuple(name for option, name in OVERRIDING.items() if option in given)
        hidden += ALWAYS_HIDDEN
        words = ("sbatch", "--parsable", *_output(script.parent, spec), script.name)
        return Command(words, folder=script.parent, without=hidden)

    def parse_job_id(self, output: Output) -> str:
        """Return the id from the last line of `sbatch --parsable`: `id` or `id;cluster`."""
        lines = output.stdout.strip().splitlines()
        match = re.fullmatch(r"(\d+)(;[\w.-]+)?", lines[-1]) if lines else None
        if match and output.status == 0 and _is_id(match[1]):
            return match[1]
        raise self.submit_error(output)

    def check_job_id(self, job_id: str) -> None:
        """Raise `SpecError` for what is no id: one such word, and squeue tells of no job."""
        element = _ELEMENT.fullmatch(job_id)
        if element:
            raise SpecError(
                f"{job_id} is one element of an array, and jobs are known by the id of the whole "
                f"array. Write {element[1]}: `logs` shows each element's output. To cancel one "
                f"element alone: scancel {job_id}"
            )
        if not _is_id(job_id):
            raise SpecError(
                f"The job id {job_id!r} cannot be right: the ids of Slurm are numbers from 1 to "
                f"{_ID_MAX}. Copy the id that `submit` printed."
            )

    def status_command(self, job_ids: Sequence[str]) -> Command:
        """Return one squeue for all jobs."""
        ids = ",".join(job_ids)
        return Command(
            ("squeue", "--noheader", "--states=all", f"--format={_FORMAT}", f"--jobs={ids}")
        )

    def parse_status(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Read squeue's lines; elements of one array are combined."""
        if output.status != 0:
            if _NOT_THERE in output.stderr:  # squeue says so when none of the jobs is left
                return {}
            raise self.unreadable(output)
        found: dict[str, list[JobStatus]] = {}
        for line in output.stdout.splitlines():
            parts = line.split("|", 4)
            if not line.strip():
                continue
            if len(parts) != 5 or not parts[0].isdigit():
                raise self.unreadable(output)
            job_id, _, native, hosts, reason = parts
            found.setdefault(job_id, []).append(self._status(native, reason, hosts=hosts))
        return {job_id: combine(found[job_id]) for job_id in job_ids if job_id in found}

    def _status(
        self, native: str, reason: str = "", exit_code: str = "", hosts: str = ""
    ) -> JobStatus:
        word = (
            native.split(maxsplit=1)[0].rstrip("+") if native.split() else ""
        )  # "CANCELLED by 1000"
        state = STATES.get(word)
        if state is None:
            return self.unknown_state(native)
        if state.final:
            never = reason.strip("()") == "DependencyNeverSatisfied"
            text = NO_OUTPUT if exit_code == _NO_OUTPUT_CODE else ENDS.get(word, "")
            sentence = NEVER if never else text
        elif word == "CONFIGURING":
            sentence = "Its nodes are being started."
        elif state is JobState.QUEUED:
            sentence = _reason(reason)
        else:
            sentence = ""
        return JobStatus(
            state=state,
            reason=sentence,
            native=word,
            exit_status=0 if state is JobState.COMPLETED else _exit_status(exit_code) or None,
            hosts=hosts,
        )

    def cancel_command(self, job_ids: Sequence[str]) -> Command:
        """Return the command line of scancel, which only with -v tells of jobs that Slurm does not
        know.
        """
        return Command(("scancel", "-v", *job_ids))

    def accounting_commands(self, job_ids: Sequence[str]) -> list[Command]:
        """Return sacct, and for clusters without a database scontrol, which knows jobs for some
        minutes.
        """
        ids = ",".join(job_ids)
        sacct = (
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            "--format=JobID,State,ExitCode",
        )
        scontrol = [
            Command(("scontrol", "--oneliner", "show", "job", job_id)) for job_id in job_ids
        ]
        return [Command((*sacct, f"--jobs={ids}")), *scontrol]

    def parse_accounting(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Read the lines of sacct or of scontrol; jobs that have not ended there are left out."""
        if output.status != 0:
            return {}
        found: dict[str, list[JobStatus]] = {}
        for line in output.stdout.splitlines():
            if output.command.words[0] == "sacct":
                parts = line.split("|")
                if len(parts) == 3:
                    job_id = re.split(r"[_+]", parts[0])[0]
                    found.setdefault(job_id, []).append(self._status(parts[1], "", parts[2]))
            else:
                state, code = _SCONTROL.search(line), re.search(r"\bExitCode=(\d+:\d+)", line)
                number = re.search(r"\bArrayJobId=(\d+)", line) or re.match(r"JobId=(\d+)", line)
                if state and number:
                    status = self._status(state[1], state[2], code[1] if code else "")
                    found.setdefault(number[1], []).append(status)
        ends = {job_id: combine(found[job_id]) for job_id in job_ids if job_id in found}
        return {job_id: end for job_id, end in ends.items() if end.state.final}


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,9}", text) is not None and int(text) <= _ID_MAX


def _output(folder: Path, spec: JobSpec) -> tuple[str, ...]:
    """Return what keeps sbatch from taking characters of the folder's name for its own signs.

    Slurm joins folder and file name before it replaces `%j` and the like, and a backslash anywhere
    means something else again, for which there is no other way to write it.
    """
    path = str(folder)
    if "\\" in path:
        return ("--output=/dev/null",)
    if "%" in path:
        return (f"--output={path.replace('%', '%%')}/{_batch_log(spec)}",)
    return ()


def _batch_log(spec: JobSpec) -> str:
    return f"batch{'' if spec.array is None else '-%a'}.log"


def _conditions(spec: JobSpec) -> list[str]:
    """Return the options about when a job starts, whom it tells and what happens to it."""
    lines = []
    if spec.array is not None:
        limit = "" if spec.array.at_once is None else f"%{spec.array.at_once}"
        lines.append(f"--array={spec.array}{limit}")
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
        lines.append(f"--dependency={_quoted(','.join(waits))}")
        # Otherwise a job whose condition has become impossible would stay in the queue for ever.
        lines.append("--kill-on-invalid-dep=yes")
    if spec.mail_when:
        lines.append(f"--mail-type={','.join(event.upper() for event in spec.mail_when)}")
    if spec.requeue is not None:
        lines.append("--requeue" if spec.requeue else "--no-requeue")
    if spec.signal_before_s is not None:
        # B: to the script, which passes it on to the command; without it only processes under srun
        # would get it.
        lines.append(f"--signal=B:{spec.signal_name}@{spec.signal_before_s}")
    return lines


def _quoted(value: str) -> str:
    """Return a value as sbatch reads it in a script: in double quotes, with backslashes before
    quotes and backslashes.
    """
    if re.fullmatch(r"[A-Za-z0-9_.,:@%+/=-]+", value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _reason(code: str) -> str:
    """Return why a job waits as a sentence, also for a reason that is new."""
    bare = code.strip("()")
    if bare in REASONS:
        return REASONS[bare]
    known = next(
        (
            text
            for start, text in REASONS.items()
            if start != "None" and bare.startswith(start + ",")
        ),
        None,
    )
    if known is not None:
        return known
    if bare.startswith(("Assoc", "QOS")):
        return f"A limit of its account or quality of service holds it ({bare})."
    return f"Slurm's reason is {bare}." if bare else ""


def _exit_status(code: str) -> int | None:
    """Return a shell's exit status from Slurm's `status:signal`."""
    match = re.fullmatch(r"(\d+):(\d+)", code)
    if match is None:
        return None
    status, signal = int(match[1]), int(match[2])
    return 128 + signal if signal and not status else status
