"""Which inputs does a slot keep for the next tasks that need them?

Many tasks may need one input, such as the pieces into which a shuffle cuts a partition: without
this each of them would be sent the value and unpickle it (measured: a groupby of 240 partitions,
in which 900 tasks take one of 30 tables out of a dict, took 3.6 s, of which 3 s went there).

An input that a slot is to get for the second time is sent as one to keep, after that only its key.
A slot keeps few; what is dropped from the store, it forgets.
"""

from collections.abc import Iterable
from typing import Any, Final

from mpicluster.ids import Key, NBytes

#: Inputs of which it is remembered that a slot has had them.
RECENT_MAX: Final = 512
#: Inputs that one slot keeps.
KEPT_MAX: Final = 64
#: Bytes of the pickles that one slot keeps; large values stay where they are and count nothing.
KEPT_BYTES_MAX: Final[NBytes] = 1 << 24


class KeptInputs:
    """What one slot has been told to keep."""

    def __init__(self) -> None:
        #: The longest unused first.
        self._kept: dict[Key, NBytes] = {}
        self._recent: dict[Key, None] = {}
        self._nbytes: NBytes = 0
        #: What the slot has to be told with the next tasks: [(key, input), ...] and keys.
        self._to_keep: list[tuple[Key, Any]] = []
        self._to_forget: dict[Key, None] = {}

    def has(self, key: Key) -> bool:
        """Return whether the slot keeps an input, so that its key will do."""
        nbytes = self._kept.pop(key, None)
        if nbytes is None:
            return False
        self._kept[key] = nbytes
        return True

    def is_second_use(self, key: Key) -> bool:
        """Return whether the slot has had an input before, and remember that it has it now."""
        if key in self._recent:
            return True
        self._recent[key] = None
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        return False

    def keep(self, key: Key, found: Any) -> None:
        """Have the slot keep an input, and forget the longest unused if there are too many."""
        nbytes = len(found) if isinstance(found, bytes) else 0
        self._kept[key] = nbytes
        self._nbytes += nbytes
        self._to_keep.append((key, found))
        self._to_forget.pop(key, None)  # it would come after this order and undo it
        while len(self._kept) > KEPT_MAX or (self._nbytes > KEPT_BYTES_MAX and len(self._kept) > 1):
            self.forget(next(iter(self._kept)))

    def forget(self, key: Key) -> None:
        """Have the slot forget an input, if it keeps it."""
        nbytes = self._kept.pop(key, None)
        if nbytes is not None:
            self._nbytes -= nbytes
            self._recent.pop(key, None)
            self._to_forget[key] = None

    def forget_dropped(self, keys: Iterable[Key]) -> None:
        """Have the slot forget values that are dropped from the store."""
        if self._kept:
            for key in keys:
                self.forget(key)

    def forget_all(self) -> None:
        """Have the slot forget all inputs."""
        for key in list(self._kept):
            self.forget(key)

    def take_to_keep(self) -> list[tuple[Key, Any]]:
        """Return what the slot must be told to keep before its next tasks."""
        found, self._to_keep = self._to_keep, []
        return found

    def take_to_forget(self) -> list[Key]:
        """Return what the slot must be told to forget, after the tasks that it has."""
        found, self._to_forget = self._to_forget, {}
        return list(found)
