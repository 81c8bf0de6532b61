"""Who decides what happens next in a simulated run?

All choices of a run come from one object: a seeded generator for long runs, hypothesis for runs
that shrink.
"""

import random
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices(Protocol):
    """A source of decisions."""

    def integer(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included."""
        ...


class SeededChoices:
    """Choices that a seed repeats."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included."""
        return low + int(self._random.random() * (high - low + 1))


class DrawnChoices:
    """Choices that hypothesis draws, and makes simpler when a run fails."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def integer(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included."""
        drawn: int = self._data.draw(st.integers(low, high))
        return drawn


def chance(choices: Choices, percent: int) -> bool:
    """Return True in `percent` of 100 cases; False is the simpler case."""
    return percent > 0 and choices.integer(0, 99) >= 100 - percent


def pick(choices: Choices, items: Sequence[T]) -> T:
    """Return one of the items."""
    return items[choices.integer(0, len(items) - 1)]


def pick_some(choices: Choices, items: Sequence[T], most: int) -> list[T]:
    """Return up to `most` different items, in their order."""
    left = list(items)
    chosen: list[T] = []
    for _ in range(choices.integer(0, min(most, len(left)))):
        chosen.append(left.pop(choices.integer(0, len(left) - 1)))
    return sorted(chosen, key=list(items).index)


def pick_weighted(choices: Choices, weighted: Sequence[tuple[int, T]]) -> T:
    """Return one item; weights are whole numbers."""
    number = choices.integer(0, sum(weight for weight, _ in weighted) - 1)
    for weight, item in weighted:
        number -= weight
        if number < 0:
            return item
    raise AssertionError("weights must be positive")
