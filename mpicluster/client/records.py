"""What does the client know about a key?"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from hashlib import blake2b
from typing import Any, Final

from mpicluster.ids import Key, NBytes, Rank
from mpicluster.messages import ErrorColumns

PENDING: Final = "pending"
FINISHED: Final = "finished"
ERROR: Final = "error"
CANCELLED: Final = "cancelled"


class FutureRecord:
    """One key that futures of this client refer to.

    What all begin with is in the class, so that a long `map` makes records quickly.
    """

    status: str = PENDING
    #: How many `Future` objects there are.
    references: int = 0
    #: Where the value is, once it is in memory; -1 if that is not known.
    rank: Rank = -1
    nbytes: NBytes = 0
    #: The pickle of a small value, which the worker sent without being asked.
    value: bytes | None = None
    error: ErrorColumns | None = None
    #: Called once, when the status is final; None when there are none.
    callbacks: list[Callable[[FutureRecord], None]] | None = None

    def __init__(self, key: Key, prefix: str, name: Hashable | None, token: Any) -> None:
        self.key = key
        self.prefix = prefix
        self._name = name
        #: (function, payload, input keys or digests) of a pure call: equal calls share the record.
        self.token = token

    @property
    def name(self) -> Hashable:
        """The key as users see it; made when somebody looks."""
        if self._name is None:
            digest = blake2b(repr(self.token or self.key).encode(), digest_size=16).hexdigest()
            self._name = f"{self.prefix}-{digest}"
        return self._name

    @property
    def done(self) -> bool:
        """Whether the status is final."""
        return self.status is not PENDING
