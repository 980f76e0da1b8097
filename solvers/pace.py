"""`Pace`: work handed out in chunks. `Schedule`: steps along a path, in time."""

from __future__ import annotations

import math

import numpy as np

from solvers.budget import Monitor
from solvers.qubo import Float

# Steps between two reports. Fixed, since the best reported state is kept.
CHUNK = 100
# Share of the seconds that a chunk may take.
SHARE = 0.02
# While it is not known what a unit takes, a chunk is this part of a whole one; later
# ones grow by at most this factor, since early estimates are made from little.
FIRST, GROWTH = 100, 4
# Seconds of a unit, at least: what a clock may not tell from nothing.
INSTANT = 1e-9


class Pace:
    """Hands out work in chunks of whole units.

    Without a limit of seconds chunks are always the same, so that what depends on them,
    such as a target, is reproducible. With one they are short against it, and there are
    none once time is up.

    Parameters
    ----------
    chunk
        Units between two reports, at most.
    each
        Seconds of a unit, as a first estimate; 0: not known.

    Attributes
    ----------
    taken
        Units handed out so far.
    """

    def __init__(self, monitor: Monitor, chunk: int, each: float = 0.0) -> None:
        self._monitor, self._chunk, self._each = monitor, chunk, each
        self._limited = math.isfinite(monitor.remaining())
        self._most = chunk if each or not self._limited else max(chunk // FIRST, 1)
        # Units and seconds from which on time is measured.
        self._since = 0, monitor.elapsed()
        self.taken = 0

    def affordable(self, spare: float = 0.0) -> float:
        """Units that time allows for if so many seconds are to be spared; at least one.

        Infinite without a limit, and while it is not known what a unit takes.
        """
        self._measure()
        if not self._limited or not self._each:
            return math.inf
        seconds = self._monitor.remaining() - spare
        return max(seconds / max(self._each, INSTANT), 1.0)

    def next(self, left: int) -> int:
        """Units to do next, of so many left; 0 where none is left or time is up."""
        remaining = self._monitor.remaining()
        if left <= 0 or remaining <= 0:
            return 0
        count = min(left, self._most)
        if math.isfinite(affordable := self.affordable()):
            seconds = self._monitor.elapsed() + remaining
            short = SHARE * seconds / max(self._each, INSTANT)
            count = max(int(min(count, affordable, short)), 1)
        self.taken += count
        self._most = min(self._chunk, GROWTH * count) if self._limited else self._chunk
        return count

    def _measure(self) -> None:
        """Find what a unit has taken so far."""
        units, began = self._since
        if not self._limited or self.taken == units:
            return
        now = self._monitor.elapsed()
        self._each = max((now - began) / (self.taken - units), INSTANT)
        if not units:
            # The first chunk may hold a compilation: later estimates leave it out.
            self._since = self.taken, now


class Schedule:
    """Hands out the positions of steps along one path, in chunks.

    Positions run from 0 to 1. With a limit of seconds, steps are lengthened so that the
    path ends in time.

    Parameters
    ----------
    steps
        From one end of the path to the other.
    chunk
        Steps between two reports, at most.
    each
        Seconds of a step, as a first estimate; 0: not known.
    rounds
        Times that the path is gone, one after the other; they share the seconds.
    closed
        Whether the last step is at 1, even where it is the only one, or as far before 1
        as steps are apart.

    Attributes
    ----------
    position
        How far along the path the next step is.
    fresh
        Whether the last chunk began at 0.
    """

    def __init__(
        self,
        monitor: Monitor,
        steps: int,
        chunk: int = CHUNK,
        *,
        each: float = 0.0,
        rounds: int = 1,
        closed: bool = False,
    ) -> None:
        self._monitor = monitor
        self._pace = Pace(monitor, chunk, each)
        self._steps = steps
        self._rounds = rounds
        self._closed = closed
        self.fresh = True
        self._begin()

    @property
    def taken(self) -> int:
        """Steps handed out so far."""
        return self._pace.taken

    def _begin(self) -> None:
        """Begin a round; equal shares of the seconds are spared for those after it."""
        self._left = self._steps
        self.position = 0.0
        later = self._rounds - 1
        self._spare = later / self._rounds * self._monitor.remaining() if later else 0.0

    def next(self) -> tuple[Float, float] | None:
        """Positions of the next steps and their distance; None at the end."""
        if not self._left:
            if self._rounds == 1:
                return None
            self._rounds -= 1
            self._begin()
        left = int(min(self._left, self._pace.affordable(self._spare)))
        count = self._pace.next(left)
        if not count:
            return None
        self.fresh = self._left == self._steps
        step = (1.0 - self.position) / max(left - self._closed, 1)
        first = 1.0 if self._closed and left == 1 else self.position
        positions: Float = first + step * np.arange(count, dtype=np.float64)
        self.position += step * count
        self._left = 0 if count == left else self._left - count
        return positions, step
