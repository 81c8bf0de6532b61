"""How does a message end the sleep of its receiver?

MPI has nothing to wait on. But a rank can sleep on a pipe, and whoever sends it something from the
same host writes a byte into that afterwards: it rings. Nothing else goes this way. A ring in vain
costs a look at what has arrived, and one that is missed only time, since every sleep ends some day.

The pipes have no names; a rank opens those of others below /proc (pipe(7), proc(5)).
"""

import contextlib
import os
from collections.abc import Mapping

from mpicluster.ids import Rank

#: What a pipe holds.
_RINGS_MAX = 65536
#: The first ring of a rank, and all others.
_GREETING, _RING = b"?", b"!"


class Bells:
    """The bell of this rank, and those of others as far as it can ring them."""

    def __init__(self) -> None:
        #: Readable when somebody has rung.
        self.fd, self._own_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._others: dict[Rank, int] = {}
        self._rings = bytearray(_RINGS_MAX)

    @property
    def path(self) -> str:
        """Where ranks of this host find the bell, see `host_identity`."""
        return f"/proc/{os.getpid()}/fd/{self._own_end}"

    def reach(self, paths: Mapping[Rank, str]) -> None:
        """Greet other ranks; those that can be reached hear `ring` from now on."""
        for rank, path in paths.items():
            with contextlib.suppress(OSError):
                self._others[rank] = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.ring(rank, _GREETING)

    def ring(self, rank: Rank, how: bytes = _RING) -> None:
        """Wake a rank, if it is one that can be reached."""
        fd = self._others.get(rank)
        if fd is None:
            return
        try:
            os.write(fd, how)
        except BlockingIOError:
            return  # it has been rung often enough, and has not looked yet
        except OSError:
            self.forget(rank)  # its process has ended

    def heard(self) -> int:
        """Return how often this rank has been rung since the last call."""
        try:
            return os.readv(self.fd, [self._rings])
        except BlockingIOError:
            return 0

    def greeted(self) -> int:
        """Return how many ranks have greeted; some may already have sent something and rung."""
        return self._rings[: self.heard()].count(_GREETING)

    def forget(self, rank: Rank) -> None:
        """Do not ring a rank any more."""
        fd = self._others.pop(rank, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Give all descriptors back."""
        for rank in list(self._others):
            self.forget(rank)
        os.close(self.fd)
        os.close(self._own_end)
