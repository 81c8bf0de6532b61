"""How does a message become bytes, and bytes a message?

On the wire a message is a msgpack array of two: the number of its class, and the array of its
fields in their order. A bundle is an array of messages. Used between ranks and between a worker and
its slots.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

import msgpack

from mpicluster.errors import ProtocolError

#: A packer that has made more than this is not used again: it keeps the memory.
_PACKED_BYTES_MAX: Final = 1 << 22
#: Fields that concern only the process that holds the message.
_LOCAL_FIELDS: Final = ("buffers", "on_sent")


class Codec:
    """Turns messages of the given classes into bytes and back.

    The number of a class on the wire is its place in the list; new ones go to the end.
    """

    def __init__(self, classes: Sequence[type[Any]]) -> None:
        self.classes = tuple(classes)
        #: {class: (number, what makes the array of fields)}.
        self._kinds = {
            found: (code, _row_maker(field_names(found))) for code, found in enumerate(classes)
        }
        self._pack = _make_pack()

    def encode(self, messages: Iterable[Any]) -> bytes:
        """Return the wire form of messages, in their order."""
        kinds = self._kinds
        rows = []
        for message in messages:
            code, row = kinds[type(message)]
            rows.append((code, row(message)))
        packed: bytes = self._pack(rows)
        if len(packed) > _PACKED_BYTES_MAX:
            self._pack = _make_pack()
        return packed

    def decode(self, bundle: bytes | memoryview) -> list[Any]:
        """Return the messages; a `ProtocolError` says what cannot be understood."""
        classes = self.classes
        try:
            rows = msgpack.unpackb(bundle, strict_map_key=False)
            return [classes[code](*row) for code, row in rows]
        except (IndexError, TypeError, ValueError) as error:
            raise ProtocolError(
                f"A bundle of {len(bundle)} bytes cannot be decoded ({error}). All ranks must run "
                "the same version of mpicluster: client.get_versions(check=True) compares them."
            ) from error


def _make_pack() -> Callable[[Any], bytes]:
    """Return what packs. Making a packer takes as long as packing a short message does, so one is
    kept. Threads may share it where it is compiled: it keeps the interpreter's lock.
    """
    compiled = not msgpack.Packer.__module__.endswith("fallback")
    pack: Callable[[Any], bytes] = msgpack.Packer().pack if compiled else msgpack.packb
    return pack


def field_names(message: type[Any]) -> tuple[str, ...]:
    """Return the fields of a message that travel."""
    return tuple(f.name for f in fields(message) if f.name not in _LOCAL_FIELDS)


def _row_maker(names: tuple[str, ...]) -> Callable[[Any], Sequence[Any]]:
    if not names:
        return lambda _message: ()
    if len(names) == 1:
        getter = attrgetter(names[0])
        return lambda found: (getter(found),)
    return attrgetter(*names)
