"""For how long has a rank said nothing, although this one listened?

MPICH does not report ranks that are gone, and no MPI reports one that hangs. Time counts only as
far as this rank listened: after it was busy or stopped itself, signs of life may still wait to be
received.
"""

from collections.abc import Mapping

from mpicluster.config import Config
from mpicluster.ids import Rank


class Silence:
    """Counts the silence of some ranks, without a clock of its own."""

    def __init__(self, config: Config) -> None:
        #: How often to look. A rank that listens does so at least twice as often.
        self.interval_s = min(config.status_interval_s, config.lost_after_s / 4)
        self._last_look: float | None = None
        self._next_look = 0.0
        #: {rank: its last sign of life at the last look}.
        self._signs: dict[Rank, float] = {}
        self._silent_s: dict[Rank, float] = {}

    def is_due(self, now: float) -> bool:
        """Return whether it is time to look."""
        return now >= self._next_look

    def look(self, now: float, signs: Mapping[Rank, float]) -> dict[Rank, float]:
        """Return for how many seconds each rank has been silent.

        `signs` tells its last sign of life; only whether it has changed matters.

        >>> silence = Silence(Config())
        >>> silence.look(0.0, {2: 0.0}), silence.look(1.0, {2: 0.0}), silence.look(2.0, {2: 1.5})
        ({2: 0.0}, {2: 1.0}, {2: 0.0})
        """
        listened_s = 0.0
        if self._last_look is not None:
            listened_s = min(now - self._last_look, 2 * self.interval_s)
        self._last_look = now
        self._next_look = now + self.interval_s
        found: dict[Rank, float] = {}
        for rank, sign in signs.items():
            known = self._signs.get(rank) == sign
            found[rank] = self._silent_s.get(rank, 0.0) + listened_s if known else 0.0
        self._signs, self._silent_s = dict(signs), found
        return found
