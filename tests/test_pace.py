"""Schedules handed out in chunks, in full and against the clock."""

from __future__ import annotations

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.pace import Pace


@pytest.mark.parametrize("steps", [1, 99, 100, 101, 250])
def test_pace(steps):
    monitor = Monitor()
    monitor.start(Budget(), np.zeros(1))
    pace, positions = Pace(monitor, steps), []
    while (chunk := pace.next()) is not None:
        positions.extend(chunk[0])
        assert chunk[1] == pytest.approx(1 / steps)
    np.testing.assert_allclose(positions, np.arange(steps) / steps, atol=1e-12)
    assert pace.taken == steps
    assert pace.position == pytest.approx(1)


def test_pace_ends_in_time():
    monitor = Monitor()
    monitor.start(Budget(seconds=0.2), np.zeros(1))
    pace, last = Pace(monitor, 10**9), 0.0
    while (chunk := pace.next()) is not None:
        begun = monitor.elapsed()
        while monitor.elapsed() < begun + 1e-4 * len(chunk[0]):
            pass
        assert last <= chunk[0][0] < 1
        last = chunk[0][-1]
    assert 0.15 < monitor.elapsed() < 0.24
    assert pace.taken > 500
    assert pace.position == pytest.approx(1)
