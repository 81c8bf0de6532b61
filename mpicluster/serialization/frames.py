"""How does an object become frames, and frames an object?

A small value is one pickle. A large one is its pickle and the buffers that pickle protocol 5
(PEP 574) leaves out of it, so that arrays are sent from and received into their final place.
Plain pickle is tried first because it is ten times faster; cloudpickle takes what it cannot do,
and everything that refers to the user's script, which other processes cannot import.
"""

import pickle
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import cloudpickle

#: The modules that `cloudpickle.register_pickle_by_value` has been called for.
_registry: set[str] = cloudpickle.cloudpickle._PICKLE_BY_VALUE_MODULES  # noqa: SLF001
#: The pickle and its buffers, each contiguous.
Frames = list[bytes | memoryview]


#: Frames that lie together begin at multiples of this many bytes, a cache line: numpy and the
#: libraries below it work faster on aligned memory.
ALIGNMENT = 64


def frame_offsets(extents: Sequence[int]) -> tuple[list[int], int]:
    """Return where frames of these sizes lie in one block of memory, and the size of the block.

    >>> frame_offsets([10, 100])
    ([0, 64], 164)
    """
    offsets, end = [], 0
    for nbytes in extents:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        offsets.append(start)
        end = start + nbytes
    return offsets, end


def split_frames(block: memoryview, extents: Sequence[int]) -> list[memoryview]:
    """Return the frames that lie in a block of memory."""
    offsets, _ = frame_offsets(extents)
    return [
        block[start : start + nbytes] for start, nbytes in zip(offsets, extents, strict=True)
    ]


def dumps(value: Any) -> bytes:
    """Return a pickle with all buffers inside.

    >>> loads(dumps({"a": [1, 2]}))
    {'a': [1, 2]}
    """
    if not _by_value():
        try:
            content = pickle.dumps(value, 5)
        except Exception:  # noqa: BLE001  (user code runs here; cloudpickle decides)
            return _cloudpickle(value, None)
        if b"__main__" not in content:
            return content
    return _cloudpickle(value, None)


def to_frames(value: Any, inline_bytes_max: int) -> bytes | Frames:
    """Return one pickle if it has at most `inline_bytes_max` bytes, else frames."""
    buffers: list[pickle.PickleBuffer] = []
    content = None
    if not _by_value():
        try:
            content = pickle.dumps(value, 5, buffer_callback=buffers.append)
        except Exception:  # noqa: BLE001
            content = None
    if content is None or b"__main__" in content:
        buffers.clear()
        content = _cloudpickle(value, buffers.append)
    if not buffers:
        return content if len(content) <= inline_bytes_max else [content]
    raw = [buffer.raw() for buffer in buffers]
    if len(content) + sum(len(view) for view in raw) <= inline_bytes_max:
        return dumps(value)
    return [content, *raw]


def loads(frame: bytes | memoryview) -> Any:
    """Return the object of a pickle with all buffers inside."""
    return pickle.loads(frame)


def from_frames(frames: list[memoryview]) -> Any:
    """Return the object; its arrays use the memory of the frames."""
    return pickle.loads(frames[0], buffers=frames[1:])


def is_by_reference(value: Any) -> bool:
    """Return whether a function or class is pickled as its name, which other processes import."""
    module = sys.modules.get(value.__module__ or "")
    if module is None or module.__name__ == "__main__" or _by_value():
        return False
    found: Any = module
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value


def _by_value() -> bool:
    """Whether the user asked cloudpickle to pickle some modules by value.

    `list_registry_pickle_by_value` copies the registry, which for small values costs as much as
    pickling them.
    """
    return bool(_registry)


def _cloudpickle(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    with BytesIO() as file:
        cloudpickle.Pickler(file, protocol=5, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()
