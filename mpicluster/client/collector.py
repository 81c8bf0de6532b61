"""How often does Python look for unreachable cycles while a client makes many tasks?

A long `map` makes three objects per call that stay. Python's collector looks at the newest after
each 700, and again and again at all: as long as everything else that `map` does takes, and longer
where a script has imported much.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: So many new objects are looked at together instead: still soon enough for what user code leaves
#: behind meanwhile, and no more than some milliseconds at a time.
NEW_OBJECTS: Final = 50_000

_lock = threading.Lock()
#: How many threads are making tasks.
_makers = 0
#: The collector's thresholds before the first of them.
_before = (0, 0, 0)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let Python look for cycles after `NEW_OBJECTS` new objects, unless it does so less often.

    The thresholds are those of `gc.set_threshold` (Python Library Reference, module `gc`); where a
    script changes them meanwhile its choice stays.

    >>> before = gc.get_threshold()
    >>> with rare_collections():
    ...     gc.get_threshold()[0]
    50000
    >>> gc.get_threshold() == before
    True
    """
    global _makers, _before
    with _lock:
        if not _makers:
            _before = gc.get_threshold()
            if 0 < _before[0] < NEW_OBJECTS:
                gc.set_threshold(NEW_OBJECTS, *_before[1:])
        _makers += 1
    try:
        yield
    finally:
        with _lock:
            _makers -= 1
            if not _makers and gc.get_threshold() == (NEW_OBJECTS, *_before[1:]):
                gc.set_threshold(*_before)
