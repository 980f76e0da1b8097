"""`Pace`: a schedule handed out in chunks of steps, shortened to end in time."""

from __future__ import annotations

import math

import numpy as np

from solvers.budget import Monitor
from solvers.qubo import Float

# Steps between two reports. Fixed, since the best reported state is kept.
CHUNK = 100
# Share of the seconds that a chunk may take.
SHARE = 0.02


class Pace:
    """Hands out a schedule in chunks of steps.

    Positions run from 0 to below 1. With a limit of seconds, steps are lengthened so
    that the schedule ends in time.

    Attributes
    ----------
    taken, position
        Steps handed out so far, and the share of the schedule that they are.
    """

    def __init__(self, monitor: Monitor, steps: int, chunk: int = CHUNK) -> None:
        self._monitor, self._chunk = monitor, chunk
        self._left = steps
        self.position = 0.0
        self._first = (0, monitor.elapsed())
        self.taken = 0

    def next(self) -> tuple[Float, float] | None:
        """Positions of the next steps and their distance; None at the end."""
        if not self._left:
            return None
        left, count = self._left, min(self._chunk, self._left)
        if math.isfinite(self._monitor.remaining()):
            left, count = self._in_time(left, count)
        step = (1.0 - self.position) / left
        positions: Float = self.position + step * np.arange(count, dtype=np.float64)
        self.position += step * count
        self._left = 0 if count == left else self._left - count
        self.taken += count
        return positions, step

    def _in_time(self, left: int, count: int) -> tuple[int, int]:
        """Steps left and in the next chunk that time allows for."""
        if not self.taken:
            return left, 1
        now = self._monitor.elapsed()
        steps, since = self.taken - self._first[0], now - self._first[1]
        if not self._first[0]:
            # The first chunk may hold a compilation: later estimates leave it out.
            self._first = (self.taken, now)
        seconds = self._monitor.remaining()
        each = max(since / steps, 1e-9)
        left = max(min(left, int(seconds / each)), 1)
        return left, max(min(count, left, int(SHARE * (now + seconds) / each)), 1)
