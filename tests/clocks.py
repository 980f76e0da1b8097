"""A clock that tests drive, so that no outcome hangs on how fast the machine is."""

from __future__ import annotations

import math

import pytest

from solvers.budget import Monitor
from solvers.pace import Pace


class Clock:
    """Seconds that move when told to, and by `tick` at every reading.

    Whoever still reads it after `last` does not heed a limit, and fails.
    """

    def __init__(self, tick: float = 0.0, last: float = math.inf) -> None:
        self.now, self.tick, self.last = 0.0, tick, last

    def __call__(self) -> float:
        self.now += self.tick
        if self.now > self.last:
            raise AssertionError(f"still at work after {self.now:g} seconds")
        return self.now

    def for_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be what monitors read that are given no other clock."""
        monkeypatch.setattr(Monitor.__init__, "__kwdefaults__", {"clock": self})

    def paces(self, monkeypatch: pytest.MonkeyPatch, each: float) -> list[int]:
        """Let each unit of work take so many seconds; the chunks that are handed out.

        Units are what `Pace` counts: sweeps, steps, flips per row, passes.
        """
        chunks: list[int] = []
        kept = Pace.next

        def following(pace: Pace, left: int) -> int:
            chunks.append(kept(pace, left))
            self.now += each * chunks[-1]
            return chunks[-1]

        monkeypatch.setattr(Pace, "next", following)
        return chunks
