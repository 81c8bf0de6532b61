"""How does one talk to Grid Engine (Sun, Univa, Altair, Son of, Open Cluster)?

Formats after qsub(1), qstat(1), qacct(1), qdel(1) and sge_status(5). Grid Engine knows slots and
parallel environments, not nodes: a site's environment decides how slots are spread, so its name
must be configured. Pure, as `system.py` says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

from jobqueue.config import SGESettings
from jobqueue.errors import SpecError, SubmitError
from jobqueue.shell import Command, Output
from jobqueue.spec import JobSpec
from jobqueue.states import JobState, JobStatus, combine
from jobqueue.system import BatchSystem, safe_name
from jobqueue.units import clock, mebibytes

#: The letters of which qstat composes a state, see sge_status(5).
_LETTERS = frozenset("dEhPqrRsStTwz")

#: The number in the line `failed` of qacct: at which step Grid Engine itself failed; 100 means
#: ended by a signal, 24 and 25 that the job was to run again.
_ENDED_BY_SIGNAL = 100
_TO_RUN_AGAIN = (24, 25)
_LIMIT = 37

_UNKNOWN_JOB = "does not exist"


class SGE(BatchSystem):
    """Grid Engine: `SGE(parallel_environment="mpi").submit("analysis.py", nodes=4,
    cpus_per_task=32)`.
    """

    name = "sge"
    title = "Grid Engine"
    prefix = "#$"
    programs = ("qsub", "qconf")
    index_variable = "SGE_TASK_ID"
    id_expression = "$JOB_ID"
    manual = "the manual page qsub(1)"
    transient_errors = (
        "unable to contact qmaster",
        "commlib error",
        "can't unpack gdi request",
        "unable to send message to qmaster",
        "error: failed receiving gdi request",
    )
    advice = {
        'queue "': "Name another queue with --queue; `qconf -sql` lists them.",
        "parallel environment": (
            "Name another in the configuration, [jobqueue.sge]; `qconf -spl` lists them."
        ),
        "unknown resource": (
            "Your site has other resources (`qconf -sc`); see [jobqueue.sge] and --skip-directive."
        ),
        "no suitable queues": (
            "No queue has what the job asks for: ask for less, or see `qhost -q`. This check "
            "(`-w e`) also refuses jobs that ask for load values such as mem_free, and all jobs "
            'for hosts that run an exclusive one; the directive "-w n" leaves it out.'
        ),
        "project": "Name your project with --account; `qconf -sprjl` lists them.",
        "initialize environment": (
            "This shell does not know the cluster: load the module of Grid Engine, or source its "
            "settings.sh, which sets SGE_ROOT and SGE_CELL."
        ),
    }
    #: 99 means "run me again", 100 "keep me, I have an error" (sge_conf(5), sge_shepherd(8)); the
    #: job would never end
    reserved_statuses = (99, 100)
    already_ended = (_UNKNOWN_JOB, "is already in deletion")

    def directives(self, spec: JobSpec) -> list[str]:
        """Return the options of qsub."""
        wanted = spec.resources
        if spec.after_ok or spec.after_not_ok:
            raise self.unsupported(
                "to start a job depending on how another ended",
                "It can only wait for its end: use after_any.",
            )
        if spec.signal_before_s is not None:
            raise self.unsupported(
                "to choose when a signal is sent before the time limit",
                'Add the directive "-notify": the queue then sends USR2 before it ends the job.',
            )
        lines = [
            f"-N {safe_name(spec, self, 200)}",
            "-S /bin/bash",
            "-cwd",
            "-V",  # the environment of the submitting shell, which Slurm passes on by itself
            "-j y",
            f"-o batch{'' if spec.array is None else '-$TASK_ID'}.log",
            *self._slots(spec),
        ]
        if wanted.walltime is not None:
            lines.append(f"-l h_rt={clock(wanted.walltime)}")
        if spec.queue is not None:
            lines.append(f"-q {self.plain('queue', spec.queue)}")
        if spec.account is not None:
            lines.append(f"-P {self.plain('account', spec.account)}")
        if spec.constraint is not None:
            lines.append(f"-l {self.plain('constraint', spec.constraint)}")
        return lines + self._conditions(spec)

    def _conditions(self, spec: JobSpec) -> list[str]:
        """Return the options about when a job starts, whom it tells and what happens to it."""
        lines = []
        if spec.array is not None:
            if spec.array.first < 1:
                raise self.unsupported(
                    "an array with the index 0", "Its arrays begin with 1: ask for 1-10."
                )
            lines.append(f"-t {spec.array}")
            if spec.array.at_once is not None:
                lines.append(f"-tc {spec.array.at_once}")
        if spec.after_any:
            lines.append(f"-hold_jid {','.join(spec.after_any)}")
        if spec.mail_user is not None:
            lines.append(f"-M {self.plain('mail_user', spec.mail_user)}")
        if spec.mail_when:
            letters = {"begin": "b", "end": "e", "fail": "a"}
            lines.append(f"-m {''.join(letters[event] for event in spec.mail_when)}")
        if spec.requeue is not None:
            lines.append(f"-r {'y' if spec.requeue else 'n'}")
        return lines

    def _slots(self, spec: JobSpec) -> list[str]:
        """Return the parallel environment and what is asked for per slot."""
        assert isinstance(self.settings, SGESettings)
        names, wanted = self.settings, spec.resources
        cores = wanted.cores_per_node or 1
        slots = wanted.nodes * cores
        lines = []
        if slots > 1:
            one_node = wanted.nodes == 1
            key = "parallel_environment_one_node" if one_node else "parallel_environment"
            environment = (
                names.parallel_environment_one_node if one_node else ""
            ) or names.parallel_environment
            if not environment:
                raise SpecError(
                    f"A job with {slots} cores on {wanted.nodes} node(s) was asked for, and Grid "
                    "Engine needs the name of a parallel environment for it. `qconf -spl` lists "
                    f"those of your site: write {key} = "
                    '"name" under [jobqueue.sge] in ~/.config/mpicluster.toml, or pass it to '
                    "SGE(...)."
                )
            environment = environment.replace("{cores}", str(cores))
            lines.append(f"-pe {self.plain('parallel environment', environment)} {slots}")
        if wanted.memory_per_node is not None:
            per_slot = math.ceil(mebibytes(wanted.memory_per_node) / cores)
            lines.append(f"-l {self.plain('memory_resource', names.memory_resource)}={per_slot}M")
        if wanted.gpus_per_node:
            lines.append(
                f"-l {self.plain('gpu_resource', names.gpu_resource)}={wanted.gpus_per_node}"
            )
        if wanted.whole_nodes and (wanted.exclusive or wanted.nodes > 1):
            lines.append(f"-l {self.plain('exclusive_resource', names.exclusive_resource)}=true")
        return lines

    def submit_command(self, script: Path, spec: JobSpec) -> Command:
        """Return the command line of qsub."""
        del spec
        # Grid Engine puts values for variables such as $HOME in a folder's name, then finds no such
        # folder, and has no way to write them otherwise. The script needs neither of the two.
        elsewhere = ("-wd", "/", "-o", "/dev/null") if "$" in str(script.parent) else ()
        return Command(("qsub", "-terse", *elsewhere, script.name), folder=script.parent)

    def refused(self, output: Output) -> SubmitError:
        """Return the error for a refusal, without the word with which qsub takes its leave."""
        shown = [text.strip().removesuffix("Exiting.") for text in (output.stderr, output.stdout)]
        return super().refused(replace(output, stderr=shown[0], stdout=shown[1]))

    def parse_job_id(self, output: Output) -> str:
        """Return the id from the last line of `qsub -terse`: `12` or, for an array, `12.1-10:1`."""
        lines = output.stdout.strip().splitlines()
        match = re.fullmatch(r"(\d+)(\.\d+-\d+:\d+)?", lines[-1]) if lines else None
        if match and output.status == 0:
            return match[1]
        raise self.submit_error(output)

    def status_command(self, job_ids: Sequence[str]) -> Command:
        """Return one qstat for all jobs of this user; qstat itself puts the name of the user for
        `$user`.
        """
        del job_ids
        return Command(("qstat", "-xml", "-u", "$user"))

    def parse_status(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Read qstat's XML; elements of one array are combined."""
        if output.status != 0:
            raise self.unreadable(output)
        try:
            # The text comes from the site's own batch system, so it is trusted as its other
            # commands are.
            root = ET.fromstring(output.stdout.strip())
        except ET.ParseError as error:
            raise self.unreadable(output) from error
        if root.tag.rpartition("}")[2] != "job_info":
            raise self.unreadable(output)
        found: dict[str, list[JobStatus]] = {}
        for job in root.iter("job_list"):
            number = (job.findtext("JB_job_number") or "").strip()
            native = (job.findtext("state") or "").strip()
            hosts = (job.findtext("queue_name") or "").strip().rpartition("@")[2]
            found.setdefault(number, []).append(self._status(number, native, hosts))
        return {job_id: combine(found[job_id]) for job_id in job_ids if job_id in found}

    def _status(self, number: str, native: str, hosts: str) -> JobStatus:
        letters = set(native)
        reason = ""
        if not letters or not letters <= _LETTERS:
            return self.unknown_state(native)
        if "E" in letters:
            state = JobState.QUEUED
            reason = (
                f"Grid Engine could not start it and keeps it: `qstat -explain E -j {number}` says "
                f"why, `qmod -cj {number}` lets it try again."
            )
        elif "q" in letters or "w" in letters:
            state = JobState.QUEUED
            reason = (
                "It is held, or waits for another job to end."
                if "h" in letters
                else f"It waits for its turn; `qalter -w p {number}` says whether it could run now."
            )
        else:
            state = JobState.RUNNING
        return JobStatus(state=state, native=native, reason=reason, hosts=hosts)

    def cancel_command(self, job_ids: Sequence[str]) -> Command:
        """Return the command line of qdel."""
        return Command(("qdel", *job_ids))

    def accounting_commands(self, job_ids: Sequence[str]) -> list[Command]:
        """Return one qacct for each job; it takes no list."""
        return [Command(("qacct", "-j", job_id)) for job_id in job_ids]

    def parse_accounting(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Read the records of qacct that have been written so far, each begun by a line of equal
        signs: at least one for each element of an array that ran.
        """
        if output.status != 0:
            return {}
        found: dict[str, dict[str, JobStatus]] = {}
        for block in re.split(r"^=+$", output.stdout, flags=re.MULTILINE):
            fields = dict(
                re.findall(
                    r"^(jobnumber|taskid|failed|exit_status|deleted_by)\s+(.*?)\s*$",
                    block,
                    re.MULTILINE,
                )
            )
            if "jobnumber" in fields and "exit_status" in fields:
                if _number(fields.get("failed", "")) in _TO_RUN_AGAIN:
                    continue
                # The last one counts: the job's own comes after those of the tasks that it started
                # by `qrsh -inherit`, and the last run after those before it.
                ends = found.setdefault(fields["jobnumber"], {})
                ends[fields.get("taskid", "")] = _end(fields)
        return {
            job_id: replace(combine(found[job_id].values()), n_elements=len(found[job_id]))
            for job_id in job_ids
            if job_id in found
        }


def _number(text: str) -> int | None:
    """Return the number with which a value of qacct begins, None without one."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


def _end(fields: dict[str, str]) -> JobStatus:
    """Return how a job ended, from the lines of its record."""
    failed = _number(fields.get("failed", "")) or 0
    status = _number(fields["exit_status"])
    native = f"failed {fields.get('failed', '0')}"
    if fields.get("deleted_by", "NONE") not in ("NONE", ""):
        return JobStatus(
            state=JobState.CANCELLED,
            native=native,
            reason="The job was cancelled.",
            exit_status=status,
        )
    if failed == 0:
        state = JobState.COMPLETED if status == 0 else JobState.FAILED
        return JobStatus(state=state, native=native, exit_status=status)
    if failed == _LIMIT:
        reason = (
            "Grid Engine ended the job when it reached a limit of time or memory; ask for more."
        )
    elif failed == _ENDED_BY_SIGNAL:
        reason = "A signal ended the job: it reached a limit, was deleted, or crashed."
    else:
        reason = f"Grid Engine could not run the job ({fields.get('failed')})."
    return JobStatus(
        state=JobState.FAILED, native=native, reason=reason, exit_status=status or None
    )
