"""How does a job run where there is no batch system?

As a process of this machine that outlives the one that submitted it, behind the same interface: the
commands are bash and what Linux shows in /proc. It has no queue: a job starts at once. Pure, as
`system.py` says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobqueue.shell import Command, Output
from jobqueue.spec import JobSpec
from jobqueue.states import JobState, JobStatus
from jobqueue.system import BatchSystem

#: Says the job's id, runs the job script once for each index, one after the other, and ends what
#: that left running. A process id alone would be taken again one day, so the id is that and the
#: time at which the process started, field 22 of /proc/<pid>/stat (proc(5)). `timeout` plays the
#: batch system: it has a process group of its own with all that the script starts (0 is no limit),
#: and at the limit, or when it is told to end itself, it signals all of them, first TERM, later
#: KILL.
_SUPERVISOR = r"""
stop= child=
trap 'stop=1; [ -z "$child" ] || kill -TERM "$child"' TERM  # who knows the id may cancel
read -r -a fields <"/proc/$$/stat" && echo "$$.${fields[21]}"
exec >>batch.log 2>&1
limit=$1; shift
for index in "$@"; do
    file=exit-status${index:+-$index}
    if [ -n "$stop" ]; then
        printf '143 TERM\n' >"$file"
        break
    fi
    rm -f -- "$file"
    JOBQUEUE_ARRAY_INDEX=$index timeout --kill-after=30 "$limit" bash ./job.sh &
    child=$!
    [ -z "$stop" ] || kill -TERM "$child"  # told to end while there was no child to tell
    while kill -0 "$child" 2>/dev/null; do wait "$child"; done
    kill -KILL -- "-$child" 2>/dev/null
    # A script that was told to end before it could listen has left none.
    [ -z "$stop" ] || [ -e "$file" ] || printf '143 TERM\n' >"$file"
done
exit 0
"""

#: Starts the supervisor in a session of its own, so that it survives the end of this one.
_START = 'setsid bash -c "$0" jobqueue "$@" </dev/null 2>>batch.log &'

#: Prints the ids of jobs whose supervisor lives; a zombie does not.
_STATUS = r"""
for id in "$@"; do
    line=
    read -r line 2>/dev/null <"/proc/${id%.*}/stat" || continue
    read -r -a fields <<<"${line##*) }"
    if [ "${fields[19]}" = "${id#*.}" ] && [ "${fields[0]}" != Z ]; then echo "$id ${fields[0]}"; fi
done
exit 0
"""

#: Tells the supervisors of jobs to end.
_CANCEL = r"""
status=0
for id in "$@"; do
    line=
    read -r line 2>/dev/null <"/proc/${id%.*}/stat"
    read -r -a fields <<<"${line##*) }"
    if [ "${fields[19]}" = "${id#*.}" ]; then
        kill -TERM "${id%.*}" || status=1
    else
        echo "no such job: $id" >&2
        status=1
    fi
done
exit "$status"
"""

_ID = re.compile(r"\d+\.\d+")


class Local(BatchSystem):
    """This machine: `Local().submit("analysis.py").wait()`. Memory, cores, nodes and queues are not
    looked at.
    """

    name = "local"
    title = "This machine"
    prefix = "#JOBQUEUE"
    programs = ("bash", "setsid")
    index_variable = "JOBQUEUE_ARRAY_INDEX"
    id_expression = ""  # its supervisor names it before it starts the script
    manual = "the page docs/jobqueue.md"
    already_ended = ("no such job",)

    def _own_settings(self) -> dict[str, Any]:
        """Return short intervals: looking into /proc disturbs nobody."""
        return {"poll_interval_s_min": 0.05, "poll_interval_s_max": 1, "file_patience_s": 1}

    def directives(self, spec: JobSpec) -> list[str]:
        """Return nothing: there is nobody to direct."""
        if spec.resources.nodes > 1:
            raise self.unsupported(
                f"a job on {spec.resources.nodes} nodes",
                "Without a batch system there is one node: leave nodes out.",
            )
        if spec.after_ok or spec.after_any or spec.after_not_ok:
            raise self.unsupported(
                "to start a job after another",
                "Without a batch system there is no queue: wait for the other first.",
            )
        if spec.signal_before_s is not None:
            raise self.unsupported(
                "to send a signal before the time limit", "Leave the signal out."
            )
        return []

    def submit_command(self, script: Path, spec: JobSpec) -> Command:
        """Return the command that starts the supervisor of a job."""
        limit = spec.resources.walltime
        seconds = str(math.ceil(limit.total_seconds())) if limit else "0"
        indices = [""] if spec.array is None else [str(index) for index in spec.array.indices]
        return Command(("bash", "-c", _START, _SUPERVISOR, seconds, *indices), folder=script.parent)

    def parse_job_id(self, output: Output) -> str:
        """Return the id: process number and start time."""
        words = output.stdout.split()
        if output.status == 0 and len(words) == 1 and _ID.fullmatch(words[0]):
            return words[0]
        raise self.submit_error(output)

    def status_command(self, job_ids: Sequence[str]) -> Command:
        """Return a command that looks for the supervisors in /proc."""
        return Command(("bash", "-c", _STATUS, "jobqueue", *job_ids))

    def parse_status(self, job_ids: Sequence[str], output: Output) -> dict[str, JobStatus]:
        """Return RUNNING for each job whose supervisor lives."""
        found = dict(re.findall(r"^(\d+\.\d+) (\S+)$", output.stdout, re.MULTILINE))
        if output.status != 0:
            raise self.unreadable(output)
        return {
            job_id: JobStatus(state=JobState.RUNNING, native=found[job_id], hosts="localhost")
            for job_id in job_ids
            if job_id in found
        }

    def cancel_command(self, job_ids: Sequence[str]) -> Command:
        """Return a command that signals the processes of jobs."""
        return Command(("bash", "-c", _CANCEL, "jobqueue", *job_ids))
