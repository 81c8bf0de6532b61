#!/bin/bash
#SBATCH --job-name=full
#SBATCH --output=batch-%a.log
#SBATCH --open-mode=append
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --time=26:30:00
#SBATCH --exclusive
#SBATCH --partition=batch
#SBATCH --account=climate
#SBATCH --constraint=rome
#SBATCH --mail-user=user@example.org
#SBATCH --array=1-9:2%3
#SBATCH --dependency=afterok:19,afterany:17:18
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=BEGIN,END,FAIL
#SBATCH --requeue
#SBATCH --signal=B:USR2@300
#SBATCH --site-option=1

# Written by jobqueue. To submit it by hand, do so in the folder that holds it.
export JOBQUEUE_FOLDER=/logs/job-1
export JOBQUEUE_ARRAY_INDEX="$SLURM_ARRAY_TASK_ID"
jobqueue_suffix="-$JOBQUEUE_ARRAY_INDEX"
# For the caller whose submit command has not told it.
printf '%s\n' "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}" 2>/dev/null >"$JOBQUEUE_FOLDER/job-id" || :
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
    jobqueue_patience=50
    while [ "$jobqueue_patience" -gt 0 ] && kill -0 "$jobqueue_child" 2>/dev/null; do
        jobqueue_patience=$((jobqueue_patience - 1))
        sleep 0.1
    done
    jobqueue_forward TERM
}
trap 'jobqueue_status=$?; jobqueue_record "$jobqueue_status"' EXIT
trap jobqueue_terminate TERM
trap 'jobqueue_forward USR1' USR1
trap 'jobqueue_forward USR2' USR2

# So that the log shows lines when they are printed.
export PYTHONUNBUFFERED=1
export TITLE='it'"'"'s $HOME'
cd -- /work || exit 1

module load openmpi
echo "on $(hostname)"

# In the background, since bash answers signals only between two foreground commands.
python 'a script.py' '$HOME' &
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

echo done

exit "$JOBQUEUE_EXIT_STATUS"
