"""What do the tasks of the benchmark do?

Plain functions that every contender can pickle by name. Modules other than `time` are imported
inside, because the processes that run tasks import this file.
"""

import time
from typing import Any


def identity(value: Any) -> Any:
    """Return the argument: a task that costs nothing but its way."""
    return value


def now(_number: int) -> float:
    """Return the time at which the task ran."""
    return time.time()


def times_ten(number: int) -> int:
    """Return ten times a number."""
    return number * 10


def add(first: int, second: int) -> int:
    """Return the sum of two numbers."""
    return first + second


def add_all(*numbers: int) -> int:
    """Return the sum of many numbers."""
    return sum(numbers)


def burn(seconds: float) -> float:
    """Compute in pure Python for so long.

    The processor's time counts and not the wall's: a task that shares its core does its work too.
    """
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def step(seconds: float, level: int, column: int, sources: list[int], *values: Any) -> Any:
    """Compute, and return the place of this task in its pattern.

    The inputs must be those of the columns `sources` one level above: a pattern checks itself.
    """
    if seconds:
        burn(seconds)
    # Not called `inputs`: Parsl has a meaning of its own for that name.
    if values != tuple((level - 1, source) for source in sources):
        raise ValueError(f"The task ({level}, {column}) was given {values}, and not {sources}.")
    return (level, column)


def count(*values: Any) -> int:
    """Return how many inputs there are."""
    return len(values)


def make_bytes(nbytes: int) -> bytes:
    """Return so many bytes."""
    return bytes(nbytes)


def make_array(nbytes: int) -> Any:
    """Return an array of so many bytes, all written."""
    import numpy as np

    return np.ones(nbytes, np.uint8)


def first_byte(array: Any) -> int:
    """Look at an array without reading all of it."""
    return int(array[0])
