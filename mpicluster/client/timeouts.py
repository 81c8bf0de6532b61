"""How many seconds does a user mean?"""

import re

_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0}


def to_seconds(timeout: float | str | None) -> float | None:
    """Return a time in seconds; texts may carry a unit, None means for ever.

    >>> to_seconds("200ms"), to_seconds(3), to_seconds(None)
    (0.2, 3.0, None)
    """
    if timeout is None:
        return None
    if isinstance(timeout, int | float):
        return float(timeout)
    found = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", timeout)
    if not found or found[2] not in _UNITS:
        raise ValueError(
            f"The timeout {timeout!r} is not understood; give seconds, or a text like '10s', "
            "'200ms' or '5min'."
        )
    return float(found[1]) * _UNITS[found[2]]
