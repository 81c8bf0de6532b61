"""Which limits, intervals and sizes does a cluster run with?

One frozen object holds them all, with unit and reason. Values come from `/etc/mpicluster.toml`,
then the user's `~/.config/mpicluster.toml`, then `./mpicluster.toml`, then `MPICLUSTER_*`
variables, then arguments; a later source wins. Cores get the object, they never read files.
"""

import contextlib
import difflib
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from mpicluster.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """Every number that somebody might want to change.

    >>> Config().update({"allowed_failures": 5}, "an example").allowed_failures
    5
    """

    # --- tasks ---
    #: A task that ended its process this often fails with `KilledWorker`.
    allowed_failures: int = 3
    #: "tasks": a lost rank ends the job. "ranks": the others go on and compute again what it held.
    survive: str = "tasks"
    #: Work sent ahead to a worker, in seconds per slot. Half of it covers the way to the scheduler
    #: and back while all ranks sleep; when that half is left the other is sent, in one message.
    prefetch_s: float = 0.12
    #: Tasks sent ahead per slot at most, however short they are: bounds what must be stolen back.
    prefetch_tasks_max: int = 1000
    #: A task goes to a worker before its inputs are made where these are expected to take no longer
    #: than this: the way through the scheduler would take as long. 0: never.
    promise_s: float = 0.005
    #: What a task is thought to take before the first of its kind has been measured.
    unknown_duration_s: float = 0.5
    #: Waiting tasks are taken back from a worker that would need longer than this to start them.
    steal_after_s: float = 0.05
    #: How often the scheduler looks for workers that have fallen behind.
    balance_interval_s: float = 0.1
    #: Speed at which values are thought to move when placement weighs waiting against moving.
    bandwidth_bytes_per_s: float = 1e9
    #: Cost of asking for a value, beside its size.
    fetch_latency_s: float = 0.0005

    # --- slots ---
    #: Work queued at one slot: its way to the worker and back is hidden, and the slot may report
    #: several tasks together.
    slot_queue_s: float = 0.06
    #: Tasks queued at one slot at most.
    slot_queue_max: int = 256
    #: Threads of BLAS and OpenMP in each slot.
    threads_per_slot: int = 1
    #: Results of finished tasks wait at most this long in a slot for further ones to end.
    slot_report_s: float = 0.03

    # --- values ---
    #: A result up to this size goes to the client at once, before it asks.
    push_bytes_max: int = 4096
    #: A value larger than this lies in a shared segment; smaller ones travel inside messages.
    inline_bytes_max: int = 65536
    #: An argument larger than this goes straight to a worker, not in the task through the
    #: scheduler; with survive = "ranks" the limit is at least 1 MiB, since what is in a task is not
    #: lost with a worker.
    scatter_bytes_min: int = 1 << 17
    #: A graph whose serialised tasks exceed this gives a warning that names the largest.
    large_graph_bytes: int = 10_000_000
    #: Free segments kept for the next value, per worker: fresh memory is slower, ten times where
    #: pages are small.
    segment_cache_bytes: int = 2 << 30
    #: Values lie in pages of 2 MiB where the system permits that: the first write to memory takes
    #: an eighth of the time then, and sending half.
    huge_pages: bool = True
    #: Ranks of one host use large values where they lie; False: they send each other copies.
    share_memory: bool = True
    #: Values that one worker fetches at the same time.
    fetches_max: int = 8
    #: Small values are fetched together up to this size.
    fetch_bytes_max: int = 8 << 20

    # --- memory, as shares of the rank's limit ---
    #: Over this share of stored values the oldest go to scratch.
    memory_target: float = 0.6
    #: Over this share of all memory the worker takes no new task.
    memory_pause: float = 0.8
    #: Over this share of all memory the largest slot is ended and its task fails.
    memory_terminate: float = 0.95
    #: How often memory is measured while tasks run.
    memory_interval_s: float = 0.2
    #: Folder for values that do not fit into memory; "": a local disk of the host.
    scratch: str = ""

    # --- messages ---
    #: A client sends its graph in messages of this many bytes ...
    submit_bytes_max: int = 1 << 20
    #: ... of at most this many tasks: the first begin to run while the next are being made ...
    submit_tasks_max: int = 2000
    #: ... and at most this many that the scheduler has not accepted yet.
    submit_credits: int = 16
    #: Characters of a value that MPICH tells Slurm's `pmi2`: it announces 1024, but reads lines of
    #: 1024, which also hold up to 113 of other words. 0: as announced.
    pmi_value_max: int = 896

    # --- waiting ---
    #: Whether ranks wake those of their host when they send them something. A rank that all others
    #: wake sleeps for longer than is set below.
    ring: bool = True
    #: Where messages follow each other sooner than this, on average, a rank polls without sleeping:
    #: more than a task's way takes when every rank on it sleeps, so that none of them stays asleep.
    spin_gap_s: float = 0.0025
    #: It does so for this long after a message.
    spin_s: float = 0.0025
    #: Then it sleeps, for this long at least, a share of the time that messages are apart ...
    sleep_s_min: float = 0.00005
    #: ... and at most for this long, ...
    sleep_s_max: float = 0.0003
    #: ... longer while tasks run: it is their time that a rank takes when it wakes up, ...
    working_sleep_s_max: float = 0.002
    #: ... longer still while more tasks are ready than there are slots, ...
    full_load_sleep_s_max: float = 0.005
    #: ... and longest when nothing has happened for `idle_after_s`.
    idle_sleep_s_max: float = 0.02
    #: A rank without messages for this long is idle.
    idle_after_s: float = 1.0

    # --- life ---
    #: How often a worker gives a sign of life with its metrics.
    status_interval_s: float = 1.0
    #: A rank silent for this long is lost, and one that hangs for so long is ended (only with
    #: survive = "ranks"). Several times `status_interval_s`, and more than a loop is ever busy.
    lost_after_s: float = 30.0
    #: All workers must have started after this time, or the job ends with a message.
    start_timeout_s: float = 300.0
    #: A rank that has not left this long after the order to stop is ended by force.
    stop_timeout_s: float = 8.0
    #: State changes kept for `story(key)`.
    history_length: int = 20_000

    @classmethod
    def load(cls, overrides: Mapping[str, Any] | None = None) -> "Config":
        """Return the configuration from files, the environment and `overrides`, in this order."""
        config = cls()
        for path in config_files():
            if path.is_file():
                config = config.update(_read_file(path), str(path))
        environment = {
            name.removeprefix(_PREFIX).lower(): value
            for name, value in os.environ.items()
            if name.startswith(_PREFIX) and name.removeprefix(_PREFIX).lower() in _TYPES
        }
        config = config.update(environment, "the environment")
        config = config.update(dict(overrides or {}), "the arguments")
        _check_order(config)
        return config

    def update(self, values: Mapping[str, Any], source: str) -> "Config":
        """Return a configuration with `values` in place; a wrong name, type or size is an error."""
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name not in _TYPES:
                raise ConfigError(
                    f"The setting {name!r} from {source} is not known. Known settings are: "
                    f"{', '.join(sorted(_TYPES))}."
                )
            try:
                changes[name] = _PARSERS.get(_TYPES[name], _TYPES[name])(value)
            except (TypeError, ValueError):
                raise ConfigError(
                    f"The setting {name!r} from {source} is {value!r}, but it must be "
                    f"{_TYPES[name].__name__}, as for example {getattr(self, name)!r}."
                ) from None
            _check_bounds(name, changes[name], value, source)
        if changes.get("survive", "tasks") not in ("tasks", "ranks"):
            raise ConfigError(
                f"The setting 'survive' from {source} is {changes['survive']!r}; it must be "
                "'tasks' (a lost rank ends the job) or 'ranks' (the others go on)."
            )
        return replace(self, **changes)


def _check_order(config: Config) -> None:
    """Refuse settings that make no sense together."""
    if config.push_bytes_max > config.inline_bytes_max:
        raise ConfigError(
            f"The setting 'push_bytes_max' is {config.push_bytes_max!r} and 'inline_bytes_max' is "
            f"{config.inline_bytes_max!r}, but what goes to a client at once must fit into a "
            "message: 'push_bytes_max' must be at most 'inline_bytes_max'. Change one of them."
        )
    for lower, upper in _ORDER:
        low, high = getattr(config, lower), getattr(config, upper)
        if low >= high:
            raise ConfigError(
                f"The setting {lower!r} is {low!r} and {upper!r} is {high!r}, but {lower!r} must "
                f"be less than {upper!r}. Change one of them, or both."
            )


def _check_bounds(name: str, value: Any, given: Any, source: str) -> None:
    """Refuse a number that no cluster can run with; nan is never in bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high = _BOUNDS[name]
    if not low <= value <= high:
        raise ConfigError(
            f"The setting {name!r} from {source} is {given!r}, but it must be a number from "
            f"{low:g} to {high:g}; the default is {getattr(Config(), name)!r}."
        )


def warn_of_unknown_variables() -> None:
    """Say which `MPICLUSTER_` variables set nothing; for the process of the user alone."""
    for sentences in unknown_variables():
        print(f"mpicluster: {sentences}", file=sys.stderr, flush=True)


def unknown_variables() -> list[str]:
    """Return sentences about `MPICLUSTER_` variables in the environment that set nothing."""
    found = []
    for name in sorted(os.environ):
        setting = name.removeprefix(_PREFIX).lower()
        if not name.startswith(_PREFIX) or setting in _TYPES or setting.startswith(_OWN):
            continue
        near = difflib.get_close_matches(setting, _TYPES, n=1)
        hint = f"Did you mean {_PREFIX}{near[0].upper()}? " if near else ""
        found.append(
            f"the variable {name} in the environment is no setting and has no effect. "
            f"{hint}All settings are listed in docs/configuration.md."
        )
    return found


def _parse_int(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number


def _parse_bool(value: Any) -> bool:
    word = str(value).strip().lower()
    if word not in _BOOLS:
        raise ValueError(value)
    return _BOOLS[word]


_BOOLS: Final = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
#: How texts become values of a type, where calling the type would not do.
_PARSERS: Final[dict[type, Callable[[Any], Any]]] = {
    bool: _parse_bool, int: _parse_int,
}  # fmt: skip
_PREFIX: Final = "MPICLUSTER_"
#: How variables begin that are no settings: those of the benchmark and of the tests.
_OWN: Final = ("bench_", "test_")
_TYPES: Final[dict[str, type]] = {f.name: type(f.default) for f in fields(Config)}
_COUNT: Final = (1, 10**9)
_SIZE: Final = (0, 10**15)
_FULL_SIZE: Final = (1, 10**15)
_SHARE: Final = (0.01, 1.0)
_WAIT: Final = (0.0, 3600.0)
_INTERVAL: Final = (0.001, 86400.0)
_PATIENCE: Final = (0.1, 1e7)
#: The smallest and the largest number that a cluster can run with.
_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "allowed_failures": _COUNT, "prefetch_s": _WAIT, "prefetch_tasks_max": _COUNT,
    "promise_s": (0.0, 86400.0), "unknown_duration_s": (1e-6, 86400.0), "steal_after_s": (0.0, 1e7),
    "balance_interval_s": _INTERVAL, "bandwidth_bytes_per_s": (1.0, 1e15),
    "fetch_latency_s": _WAIT, "slot_queue_s": _WAIT, "slot_queue_max": _COUNT,
    "threads_per_slot": (1, 4096), "slot_report_s": _WAIT, "push_bytes_max": _SIZE,
    "inline_bytes_max": _SIZE, "scatter_bytes_min": _FULL_SIZE, "large_graph_bytes": _SIZE,
    "segment_cache_bytes": _SIZE, "fetches_max": _COUNT, "fetch_bytes_max": _FULL_SIZE,
    "memory_target": _SHARE, "memory_pause": _SHARE, "memory_terminate": _SHARE,
    "memory_interval_s": _INTERVAL, "submit_bytes_max": _FULL_SIZE, "submit_tasks_max": _COUNT,
    "submit_credits": _COUNT, "pmi_value_max": (0, 1024), "spin_gap_s": _WAIT, "spin_s": _WAIT,
    "sleep_s_min": (1e-6, 1.0), "sleep_s_max": (1e-6, 1.0), "working_sleep_s_max": (1e-6, 1.0),
    "full_load_sleep_s_max": (1e-6, 1.0),
    "idle_sleep_s_max": (1e-6, 1.0), "idle_after_s": (0.0, 86400.0),
    "status_interval_s": (0.01, 86400.0), "lost_after_s": _PATIENCE,
    "start_timeout_s": _PATIENCE, "stop_timeout_s": _PATIENCE, "history_length": _SIZE,
}  # fmt: skip
#: Settings of which the first must be less than the second.
_ORDER: Final = (
    ("memory_target", "memory_pause"), ("memory_pause", "memory_terminate"),
    ("sleep_s_min", "sleep_s_max"), ("status_interval_s", "lost_after_s"),
)  # fmt: skip


def config_files() -> list[Path]:
    """Return where settings are looked for, the weakest first."""
    files = [Path("/etc/mpicluster.toml"), Path("mpicluster.toml")]
    with contextlib.suppress(RuntimeError):  # a user without a home has no file there
        user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        files.insert(1, user / "mpicluster.toml")
    return files


def _read_file(path: Path) -> dict[str, Any]:
    """Return the settings of a file, without the sections that belong to other programs."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"The settings in {path} cannot be read: {error}. Correct the file or remove it."
        ) from error
    return {name: value for name, value in content.items() if not isinstance(value, dict)}
