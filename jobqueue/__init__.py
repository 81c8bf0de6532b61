"""Submits multi-node jobs to Slurm, PBS, Grid Engine and LSF, and tells the truth about them.

    from jobqueue import Slurm

    job = Slurm(account="climate").submit("analysis.py", nodes=4, walltime="1:00:00")
    job.wait()
    print(job.output())

Runs on a login node and needs neither MPI nor the package `mpicluster`, whose `run` command starts
the script in the job. Every public name is listed here; all else may change.
"""

from jobqueue.config import Configuration, load_configuration
from jobqueue.detect import detect, system_class
from jobqueue.errors import (
    CancelError,
    CommandError,
    ConfigError,
    JobFailed,
    JobNotFound,
    JobqueueError,
    RemoteTraceback,
    SpecError,
    StatusError,
    SubmitError,
    SystemNotFound,
)
from jobqueue.job import Job
from jobqueue.local import Local
from jobqueue.lsf import LSF
from jobqueue.pbs import PBS
from jobqueue.polling import wait_all
from jobqueue.sge import SGE
from jobqueue.slurm import Slurm
from jobqueue.spec import Array, JobSpec, Resources
from jobqueue.states import JobState, JobStatus
from jobqueue.system import BatchSystem

__all__ = [
    "LSF",
    "PBS",
    "SGE",
    "Array",
    "BatchSystem",
    "CancelError",
    "CommandError",
    "ConfigError",
    "Configuration",
    "Job",
    "JobFailed",
    "JobNotFound",
    "JobSpec",
    "JobState",
    "JobStatus",
    "JobqueueError",
    "Local",
    "RemoteTraceback",
    "Resources",
    "Slurm",
    "SpecError",
    "StatusError",
    "SubmitError",
    "SystemNotFound",
    "detect",
    "load_configuration",
    "system_class",
    "wait_all",
]
