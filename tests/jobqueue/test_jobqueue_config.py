"""Do the files of administrators, users and projects set the defaults, and are mistakes named?"""

from __future__ import annotations

from pathlib import Path

import pytest

from jobqueue import SGE, ConfigError, Configuration, Slurm, SpecError, load_configuration
from jobqueue.config import SGESettings, configuration_files


def load(home: Path, *texts: str) -> Configuration:
    files = []
    for number, text in enumerate(texts):
        files.append(home / f"{number}.toml")
        files[-1].write_text(text)
    return load_configuration(files)


def test_later_files_override_earlier_ones_key_by_key(home: Path) -> None:
    found = load(
        home,
        '[jobqueue.slurm]\nqueue = "batch"\naccount = "none"\nwalltime = "1:00:00"\n'
        "[jobqueue]\nnodes = 2\n",
        '[jobqueue.slurm]\naccount = "climate"\n[mpicluster]\nanything = 1\n',
    )
    assert found.options("slurm") == {
        "queue": "batch",
        "account": "climate",
        "walltime": "1:00:00",
        "nodes": 2,
    }
    assert found.options("pbs") == {"nodes": 2}
    assert found.system == "auto"


def test_the_three_places(home: Path) -> None:
    user = home.parent / "config" / "mpicluster.toml"
    assert configuration_files() == (Path("/etc/mpicluster.toml"), user, Path("mpicluster.toml"))
    user.parent.mkdir()
    user.write_text('[jobqueue.slurm]\nqueue = "users"\nprologue = ["module load openmpi"]\n')
    Path("mpicluster.toml").write_text(
        '[jobqueue.slurm]\nqueue = "projects"\n[jobqueue]\nsystem = "slurm"\n'
    )
    script = Slurm().job_script(__file__, nodes=3)
    assert "#SBATCH --partition=projects\n" in script
    assert "\nmodule load openmpi\n" in script
    assert "#SBATCH --nodes=3\n" in script
    assert "--partition=other" in Slurm(queue="other").job_script(__file__)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[jobqueue.slurm]\npartition = "x"\n', "'partition' in [jobqueue.slurm] of"),
        ("[jobqueue.slrum]\nnodes = 1\n", "Valid are: local, lsf, pbs, sge, slurm"),
        ("[jobqueue]\nwibble = 1\n", "'wibble' in [jobqueue] of"),
        ("[jobqueue.slurm]\nparallel_environment = 'x'\n", "parallel_environment"),
        ("[jobqueue\n", "not valid TOML"),
        ("jobqueue = 1\n", "no table"),
    ],
)
def test_mistakes_are_named_with_the_valid_keys(home: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(home, text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_systems_have_settings_of_their_own(home: Path) -> None:
    found = load(home, '[jobqueue.sge]\nparallel_environment = "mpi"\npoll_interval_s_max = 60\n')
    settings = SGE(configuration=found).settings
    assert isinstance(settings, SGESettings)
    assert (settings.parallel_environment, settings.poll_interval_s_max) == ("mpi", 60)
    assert "-pe mpi 4" in SGE(configuration=found).job_script(__file__, nodes=2, cpus_per_task=2)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(SpecError, match="number of seconds"):
        Slurm(configuration=Configuration(), poll_interval_s_min="often")
    with pytest.raises(SpecError, match=r"option of Slurm\(...\) 'wibble' does not exist"):
        Slurm(configuration=Configuration(), wibble=1)


@pytest.mark.parametrize(
    "setting",
    [
        {"submit_timeout_s": 0}, {"submit_timeout_s": float("nan")}, {"status_timeout_s": True},
        {"poll_interval_s_min": float("inf")}, {"silence_s_max": -1},
    ],
)  # fmt: skip
def test_times_that_none_can_wait_for_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="must be a number of seconds"):
        Slurm(configuration=Configuration(), **setting)
