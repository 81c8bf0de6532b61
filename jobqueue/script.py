"""What does a job do on its first node, whatever the batch system?

Writes the body of job scripts, in bash. It must never let a value of the user become shell code:
every value passes `shlex.quote`; only prologue and epilogue are code, since that is what they are
for. The script stores the job's exit status in the job's folder, also when it is told to end, and
exits with it.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from jobqueue.spec import JobSpec

#: Batch systems signal all processes of a job. A program that got the signal should end within this
#: time before the script passes it on: a second TERM makes mpirun give up its orderly end.
_PATIENCE_TENTHS_S = 50

_TELL_ID = r"""# For the caller whose submit command has not told it.
printf '%s\n' "@ID@" 2>/dev/null >"$JOBQUEUE_FOLDER/job-id" || :"""

_BEGIN = r"""
# A submission that was reported as failed must not run after all.
if [ -e "$JOBQUEUE_FOLDER/do-not-run" ]; then
    echo "jobqueue: this job was reported as not submitted, so it does not run." >&2
    exit 1
fi
jobqueue_exit_file="$JOBQUEUE_FOLDER/exit-status$jobqueue_suffix"
rm -f -- "$jobqueue_exit_file"
exec >>"$JOBQUEUE_FOLDER/output$jobqueue_suffix.log" 2>&1 || exit 1

jobqueue_child=
jobqueue_signal=
# A rename is atomic, also on NFS: readers see the whole file or none.
jobqueue_record() {
    printf '%s %s\n' "$1" "$jobqueue_signal" >"$jobqueue_exit_file.$$.new" &&
        mv -f -- "$jobqueue_exit_file.$$.new" "$jobqueue_exit_file"
}
jobqueue_forward() {
    jobqueue_interrupted=1
    [ -z "$jobqueue_child" ] || kill -s "$1" "$jobqueue_child" 2>/dev/null
}
jobqueue_terminate() {
    jobqueue_signal=TERM
    jobqueue_record 143  # at once, since KILL may follow
    [ -n "$jobqueue_child" ] || exit 143
    # The batch system signals every process of the job itself; only a command that was left out is
    # told here.
    jobqueue_patience=@PATIENCE@
    while [ "$jobqueue_patience" -gt 0 ] && kill -0 "$jobqueue_child" 2>/dev/null; do
        jobqueue_patience=$((jobqueue_patience - 1))
        sleep 0.1
    done
    jobqueue_forward TERM
}
trap 'jobqueue_status=$?; jobqueue_record "$jobqueue_status"@RESERVED@' EXIT
trap jobqueue_terminate TERM
@TRAPS@
"""

_RUN = r"""
# In the background, since bash answers signals only between two foreground commands.
@COMMAND@ &
jobqueue_child=$!
jobqueue_interrupted=1
while [ -n "$jobqueue_interrupted" ]; do
    jobqueue_interrupted=
    wait "$jobqueue_child"
    JOBQUEUE_EXIT_STATUS=$?
done
jobqueue_child=
[ -z "$jobqueue_signal" ] || JOBQUEUE_EXIT_STATUS=143
export JOBQUEUE_EXIT_STATUS
jobqueue_record "$JOBQUEUE_EXIT_STATUS"
"""


def body(
    spec: JobSpec,
    folder: Path,
    *,
    index_variable: str,
    id_expression: str,
    reserved_statuses: tuple[int, ...] = (),
) -> str:
    """Return the job script's part below the directives.

    `folder` is the job's folder, `index_variable` the name under which this batch system tells an
    element of an array its index, `id_expression` what bash reads as the job's id. Instead of one
    of the `reserved_statuses` the batch system gets 1; the exit record holds the true one.
    """
    quote = shlex.quote
    lines = [
        "# Written by jobqueue. To submit it by hand, do so in the folder that holds it.",
        f"export JOBQUEUE_FOLDER={quote(str(folder))}",
    ]
    if spec.array is None:
        lines.append("jobqueue_suffix=")
    else:
        lines += [
            f'export JOBQUEUE_ARRAY_INDEX="${index_variable}"',
            'jobqueue_suffix="-$JOBQUEUE_ARRAY_INDEX"',
        ]
    if id_expression:
        lines += _TELL_ID.replace("@ID@", id_expression).split("\n")
    traps = sorted({"USR1", "USR2", spec.signal_name} - {"TERM"})
    begin = _BEGIN.replace("@PATIENCE@", str(_PATIENCE_TENTHS_S)).replace(
        "@TRAPS@", "\n".join(f"trap 'jobqueue_forward {name}' {name}" for name in traps)
    )
    reserved = "|".join(map(str, reserved_statuses))
    instead = f"; case $jobqueue_status in {reserved}) exit 1;; esac" if reserved else ""
    begin = begin.replace("@RESERVED@", instead)
    lines += begin.strip("\n").split("\n")
    lines += [
        "",
        "# So that the log shows lines when they are printed.",
        "export PYTHONUNBUFFERED=1",
    ]
    lines += [f"export {name}={quote(value)}" for name, value in spec.environment.items()]
    lines += [f"cd -- {quote(str(spec.working_folder))} || exit 1"]
    lines += ["", *spec.prologue] if spec.prologue else []
    lines += _RUN.replace("@COMMAND@", shlex.join(spec.command)).rstrip("\n").split("\n")
    lines += ["", *spec.epilogue] if spec.epilogue else []
    lines += ["", 'exit "$JOBQUEUE_EXIT_STATUS"', ""]
    return "\n".join(lines)
