"""`Pace`: work in chunks between looks at the clock. `Schedule`: steps along a path."""

from __future__ import annotations

import math

import numpy as np

from solvers.budget import Monitor
from solvers.qubo import Float

# Steps between two reports. It is a constant, since answers depend on it: the best of
# the reported states is kept.
CHUNK = 100
# Share of the time limit that a chunk may take.
SHARE = 0.02
# While the duration of a unit is unknown, a chunk is a whole one divided by FIRST; each
# chunk is at most GROWTH times the one before, since early estimates rest on little.
FIRST, GROWTH = 100, 4
# Least estimate of a unit's duration in seconds: a clock may read 0 for a short one.
INSTANT = 1e-9


class Pace:
    """Hands out work in chunks of whole units.

    Without a limit in seconds all chunks are the same, so that what depends on them,
    such as stopping at a target, is reproducible. With a limit, a chunk takes a small
    share of it, and there are none once time is up.

    Parameters
    ----------
    monitor
        Whose clock is read.
    chunk
        Largest number of units between two reports.
    each
        First estimate of the seconds that a unit takes; 0 if unknown.

    Attributes
    ----------
    taken
        Units handed out so far.
    """

    def __init__(self, monitor: Monitor, chunk: int, each: float = 0.0) -> None:
        self._monitor, self._chunk, self._each = monitor, chunk, each
        self._limited = math.isfinite(monitor.remaining())
        self._most = chunk if each or not self._limited else max(chunk // FIRST, 1)
        # Units taken and seconds elapsed where the measurement of durations begins.
        self._since = 0, monitor.elapsed()
        self.taken = 0

    def affordable(self, spare: float = 0.0) -> float:
        """Units that fit into the remaining time less `spare` seconds; at least one.

        Infinite without a limit in seconds, and while a unit's duration is unknown.
        """
        self._measure()
        if not self._limited or not self._each:
            return math.inf
        seconds = self._monitor.remaining() - spare
        return max(seconds / max(self._each, INSTANT), 1.0)

    def next(self, left: int) -> int:
        """Units to do next, of `left` in all; 0 if none is left or time is up."""
        remaining = self._monitor.remaining()
        if left <= 0 or remaining <= 0:
            return 0
        count = min(left, self._most)
        if math.isfinite(affordable := self.affordable()):
            limit = self._monitor.elapsed() + remaining
            share = SHARE * limit / max(self._each, INSTANT)
            count = max(int(min(count, affordable, share)), 1)
        self.taken += count
        self._most = min(self._chunk, GROWTH * count) if self._limited else self._chunk
        return count

    def _measure(self) -> None:
        """Update the estimate of a unit's duration."""
        units, began = self._since
        if not self._limited or self.taken == units:
            return
        now = self._monitor.elapsed()
        self._each = max((now - began) / (self.taken - units), INSTANT)
        if not units:
            # The first chunk may hold a compilation: later estimates leave it out.
            self._since = self.taken, now


class Schedule:
    """Hands out the positions of steps along a path, in chunks.

    Positions run from 0 to 1. With a limit in seconds, steps are lengthened so that the
    path ends in time.

    Parameters
    ----------
    monitor
        Whose clock is read.
    steps
        Number of steps from one end of the path to the other.
    chunk
        Largest number of steps between two reports.
    each
        First estimate of the seconds that a step takes; 0 if unknown.
    rounds
        How often the path is walked, one round after the other, each with an equal
        share of the seconds.
    closed
        If true, the last step of a round is at 1, even if it is the only one; otherwise
        it is one step's length before 1.

    Attributes
    ----------
    position
        Position of the next step.
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
        """Begin a round; spare equal shares of the seconds for the rounds after it."""
        self._left = self._steps
        self.position = 0.0
        later = self._rounds - 1
        self._spare = later / self._rounds * self._monitor.remaining() if later else 0.0

    def next(self) -> tuple[Float, float] | None:
        """Positions of the next steps and the distance between two; None at the end."""
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
