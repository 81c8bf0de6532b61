"""Which defaults do the administrators, the user and the project set for jobs?

Reads the table `jobqueue` of three TOML files; a later file overrides an earlier one key by key.
Keys directly in `[jobqueue]` hold for every batch system, `[jobqueue.slurm]` and the like for one.
Other tables belong to others and are not looked at. This file must never decide what a key means.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jobqueue.errors import ConfigError, SpecError
from jobqueue.spec import OPTIONS, check_known

SYSTEMS = ("slurm", "pbs", "sge", "lsf", "local")


_SECONDS_MAX = 10 * 366 * 86400
_MAY_BE_NOTHING = ("file_patience_s", "silence_s_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to talk to a batch system: limits and intervals, all in seconds."""

    #: sbatch under load takes its time, and a submission must not be given up lightly
    submit_timeout_s: float = 120
    status_timeout_s: float = 60
    #: the first interval between two status calls; each call without news makes it half as long
    #: again
    poll_interval_s_min: float = 2
    #: and no longer than this: users want to know within half a minute, administrators want few
    #: calls
    poll_interval_s_max: float = 30
    #: a batch system may be silent so long before waiting for a job ends with an error (an upgrade
    #: takes an hour)
    silence_s_max: float = 7200
    #: files of a job that ended on another host may take so long to appear on a network file system
    file_patience_s: float = 20

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name.endswith(("_s", "_s_min", "_s_max")) and (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not (0 if one.name in _MAY_BE_NOTHING else 0.001) <= value < _SECONDS_MAX
            ):
                raise SpecError(
                    f"{one.name} is {value!r}; it must be a number of seconds, "
                    f"{'0 or more' if one.name in _MAY_BE_NOTHING else 'more than 0'} and less "
                    f"than {_SECONDS_MAX:,} (ten years)."
                )
            if isinstance(one.default, str) and not isinstance(value, str):
                raise SpecError(f"{one.name} is {value!r}; it must be a text in quotes.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SGESettings(Settings):
    """What sites with Grid Engine name as they like; `{cores}` stands for the cores per node."""

    #: parallel environment for jobs on one node with several cores, such as "smp"
    parallel_environment_one_node: str = ""
    #: parallel environment for jobs on several nodes, such as "mpi" or "mpi-{cores}"
    parallel_environment: str = ""
    #: the resource that limits memory; counted per core, as Grid Engine does
    memory_resource: str = "h_vmem"
    #: the resource that counts GPUs
    gpu_resource: str = "gpu"
    #: the resource that gives a job its nodes alone
    exclusive_resource: str = "exclusive"


SETTINGS: dict[str, type[Settings]] = dict.fromkeys(SYSTEMS, Settings) | {"sge": SGESettings}


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the files say. `Configuration()` is an empty one, which no file of the machine can
    change.
    """

    #: keys for every system
    common: Mapping[str, Any] = field(default_factory=dict)
    #: keys for one system
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options(self, system: str) -> dict[str, Any]:
        """Return the keys that hold for one system."""
        return {**self.common, **self.sections.get(system, {})}

    @property
    def system(self) -> str:
        """The batch system to use when none is named: "auto" means to look for one."""
        return str(self.common.get("system", "auto"))


def configuration_files() -> tuple[Path, ...]:
    """Return the files that are read, the weakest first: the administrators', the user's, the
    project's.
    """
    files = [Path("/etc/mpicluster.toml"), Path("mpicluster.toml")]
    with contextlib.suppress(RuntimeError):  # a user without a home has no file there
        home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        files.insert(1, home / "mpicluster.toml")
    return tuple(files)


def load_configuration(files: Iterable[Path] | None = None) -> Configuration:
    """Read the configuration files that exist.

    Raises `ConfigError` for a file that is no TOML and for a key that nothing knows; the message
    names the valid ones.
    """
    common: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for file in configuration_files() if files is None else files:
        table = _read(file)
        if not isinstance(table, dict):
            raise ConfigError(
                f"`jobqueue` in {file} is no table. Write [jobqueue] or [jobqueue.slurm]."
            )
        try:
            for key, value in table.items():
                if isinstance(value, dict) and key not in OPTIONS:
                    check_known([key], SYSTEMS, "section jobqueue.", f" of {file}")
                    check_known(value, valid_keys(key), "key", f" in [jobqueue.{key}] of {file}")
                    sections.setdefault(key, {}).update(value)
                else:
                    check_known(
                        [key], ("system", *valid_keys()), "key", f" in [jobqueue] of {file}"
                    )
                    common[key] = value
        except SpecError as error:
            raise ConfigError(str(error)) from None
    return Configuration(common, sections)


def valid_keys(system: str | None = None) -> tuple[str, ...]:
    """Return the keys that a section may have."""
    settings = Settings if system is None else SETTINGS[system]
    return (*OPTIONS, *(one.name for one in fields(settings)))


def _read(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration file {file} cannot be read: {error}. Correct or remove it."
        ) from error
    try:
        return tomllib.loads(text).get("jobqueue", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"The configuration file {file} is not valid TOML: {error}. Correct that line."
        ) from error
