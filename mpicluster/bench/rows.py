"""What is a measured figure, and how are several runs put together?"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """What one contender needed for one case at one size.

    `values` has one figure per run. It is empty where nothing was measured; `note` says why.

    >>> Row("mpicluster", "map", 1000, "µs/task", [9.0, 8.0, 14.0]).median
    9.0
    """

    contender: str
    case: str
    size: int
    unit: str
    values: list[float] = field(default_factory=list)
    note: str = ""
    #: What `size` counts: "tasks", "bytes" and so on.
    size_unit: str = "tasks"

    @property
    def median(self) -> float | None:
        """The middle of all runs, None if there was none."""
        return statistics.median(self.values) if self.values else None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON has it, with median and range for those who only read."""
        found = asdict(self)
        found["median"] = self.median
        found["low"] = min(self.values, default=None)
        found["high"] = max(self.values, default=None)
        return found

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Row":
        """Return the row that `to_dict` has written."""
        return cls(**{name: found[name] for name in cls.__dataclass_fields__ if name in found})


def find(rows: Sequence[Row], contender: str, case: str, size: int) -> Row | None:
    """Return the row of a contender, None if it has none."""
    for row in rows:
        if (row.contender, row.case, row.size) == (contender, case, size):
            return row
    return None


def unique(found: Sequence[Any]) -> list[Any]:
    """Return the members once each, in the order of their first appearance."""
    return list(dict.fromkeys(found))
