"""How do users write times and sizes, and how do batch systems?

Pure functions. A text that batch systems read differently is refused, never guessed: `1:30` is a
minute and a half for Slurm and PBS, and an hour and a half for LSF.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

from jobqueue.errors import SpecError

KIB = 1024
MIB = 1024**2

#: Letters without "i" count in powers of two where batch systems do ("16G"), in powers of ten where
#: disks do ("16GB").
_MEMORY_UNITS = {
    "": 1,
    "B": 1,
    **{
        letter + ending: base**power
        for power, letter in enumerate("KMGTP", start=1)
        for ending, base in (("", 1024), ("IB", 1024), ("B", 1000))
    },
}
_CLOCK = re.compile(
    r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]?\d):(?P<seconds>[0-5]?\d)", re.ASCII
)
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|m|min|h|d)", re.ASCII)
_CLOCK_UNITS_S = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
#: no text that is longer says a time or a size
_LENGTH_MAX = 40
_WALLTIME_S_MAX = 10 * 366 * 86400
_MEMORY_MAX = 1024**6
_DURATION_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_walltime(value: object) -> timedelta:
    """Return a time limit from `H:MM:SS`, `D-HH:MM:SS`, `90m`, `2h`, `1d` or a `timedelta`.

    Raises `SpecError` for anything else, numbers without a unit included.

    >>> parse_walltime("1-00:30:00")
    datetime.timedelta(days=1, seconds=1800)
    """
    if isinstance(value, timedelta):
        seconds: float = value.total_seconds()
    else:
        text = value.strip() if isinstance(value, str) and len(value) <= _LENGTH_MAX else ""
        if match := _CLOCK.fullmatch(text):
            parts = {name: int(digits or 0) for name, digits in match.groupdict().items()}
            seconds = sum(parts[name] * each for name, each in _CLOCK_UNITS_S.items())
        elif match := _DURATION.fullmatch(text):
            seconds = float(match["number"]) * _DURATION_UNITS_S[match["unit"]]
        else:
            raise SpecError(
                f"The walltime {_shown(value)} cannot be read: batch systems differ about times "
                "without hours, minutes and seconds. Write 1:30:00, 2-12:00:00, 90m, 2h or 1d."
            )
    if not 0 < seconds <= _WALLTIME_S_MAX:
        raise SpecError(
            f"The walltime {value!r} must be longer than nothing and at most ten years. Give it as "
            "1:30:00."
        )
    return timedelta(seconds=seconds)


def parse_memory(value: object) -> int:
    """Return bytes from a number of bytes or a text such as `64GiB`, `64G` (the same) or `64GB` (of
    10^9).

    Raises `SpecError` for anything else.

    >>> parse_memory("2G") == parse_memory("2GiB") == 2 * 1024**3
    True
    """
    found = 0
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and len(value) <= _LENGTH_MAX:
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
        factor = _MEMORY_UNITS.get(match[2].upper()) if match else None
        if match and factor is not None:
            found = math.ceil(float(match[1]) * factor)
    if not 0 < found <= _MEMORY_MAX:
        raise SpecError(
            f"The memory {_shown(value)} is none that a node can have. Write bytes as a number, or "
            "a size such as 64GiB, 64G or 500MB."
        )
    return found


def _shown(value: object) -> str:
    """Return a value for a sentence, cut where it would fill the screen."""
    if isinstance(value, int):
        return str(value) if -_MEMORY_MAX < value < 10**_LENGTH_MAX else "of so many digits"
    text = repr(value)
    return text if len(text) <= 2 * _LENGTH_MAX else text[: 2 * _LENGTH_MAX] + "..."


def mebibytes(nbytes: int) -> int:
    """Return `nbytes` in MiB, rounded up, since a request rounded down may not hold the data."""
    return math.ceil(nbytes / MIB)


def clock(duration: timedelta) -> str:
    """Return a duration as `H:MM:SS`, which Slurm, PBS and SGE read alike.

    >>> clock(timedelta(days=1, minutes=5))
    '24:05:00'
    """
    seconds = math.ceil(duration.total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def hours_and_minutes(duration: timedelta) -> str:
    """Return a duration as `H:MM`, rounded up, which is LSF's form."""
    minutes = math.ceil(duration.total_seconds() / 60)
    return f"{minutes // 60}:{minutes % 60:02}"
