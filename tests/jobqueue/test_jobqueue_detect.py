"""Is the batch system of a machine found?"""

from __future__ import annotations

import pytest

from jobqueue import LSF, PBS, SGE, Local, Slurm, SystemNotFound, detect, system_class


@pytest.mark.parametrize(
    ("programs", "environment", "found"),
    [
        (["sbatch"], {}, Slurm),
        (["sbatch", "qsub"], {}, Slurm),
        (["bsub"], {}, LSF),
        (["qsub", "pbsnodes"], {}, PBS),
        (["qsub", "qconf"], {}, SGE),
        (["qsub"], {"SGE_ROOT": "/opt/sge"}, SGE),
    ],
)
def test_detect(programs: list[str], environment: dict[str, str], found: type) -> None:
    assert detect({name: name for name in programs}.get, environment) is found


def test_no_batch_system_is_a_sentence() -> None:
    with pytest.raises(SystemNotFound, match="--system local"):
        detect({}.get, {})


def test_systems_have_names() -> None:
    assert system_class("local") is Local
    with pytest.raises(SystemNotFound, match="Choose from auto, slurm, lsf, sge, pbs, local"):
        system_class("torque")
