"""Which batch system is on this machine?

Looks at which programs are on PATH and at a few variables, and runs nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping

from jobqueue.errors import SystemNotFound
from jobqueue.local import Local
from jobqueue.lsf import LSF
from jobqueue.pbs import PBS
from jobqueue.sge import SGE
from jobqueue.slurm import Slurm
from jobqueue.system import BatchSystem

#: In the order of detection: Slurm and others may bring a `qsub` of their own for users of PBS, so
#: that comes late.
SYSTEMS: dict[str, type[BatchSystem]] = {
    "slurm": Slurm,
    "lsf": LSF,
    "sge": SGE,
    "pbs": PBS,
    "local": Local,
}


def detect(
    which: Callable[[str], str | None] = shutil.which, environment: Mapping[str, str] = os.environ
) -> type[BatchSystem]:
    """Return the batch system of this machine; raise `SystemNotFound` if there is none.

    >>> programs = {"sbatch": "/usr/bin/sbatch"}
    >>> detect(which=programs.get, environment={}).title
    'Slurm'
    """
    if which("sbatch"):
        return Slurm
    if which("bsub"):
        return LSF
    if which("qsub"):
        if environment.get("SGE_ROOT") or which("qconf"):
            return SGE
        return PBS
    raise SystemNotFound(
        "A batch system was looked for, and none of sbatch (Slurm), bsub (LSF) and qsub (PBS, Grid "
        "Engine) is on PATH. Run this on a login node of the cluster, load the module that brings "
        "these commands, or run the job on this machine with --system local."
    )


def system_class(name: str) -> type[BatchSystem]:
    """Return the batch system of a name, or the one that is here for "auto"; raise `SystemNotFound`
    for another name.
    """
    if name == "auto":
        return detect()
    if name not in SYSTEMS:
        raise SystemNotFound(
            f"The batch system {name!r} does not exist here. Choose from auto, "
            f"{', '.join(SYSTEMS)}."
        )
    return SYSTEMS[name]
