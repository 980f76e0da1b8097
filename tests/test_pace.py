"""Work handed out in chunks, in full and against the clock."""

from __future__ import annotations

import math

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.pace import GROWTH, SHARE, Pace, Schedule
from tests.clocks import Clock


def started(clock: Clock, seconds: float | None) -> Monitor:
    monitor = Monitor(clock=clock)
    monitor.start(Budget(seconds=seconds), np.zeros(1))
    return monitor


def chunks_of(pace: Pace, total: int, clock: Clock, each: float) -> list[int]:
    """All chunks if every unit takes the given seconds."""
    found = []
    while count := pace.next(total - pace.taken):
        found.append(count)
        clock.now += each * count
    return found


def positions_of(schedule: Schedule, clock: Clock, each: float) -> list[np.ndarray]:
    found = []
    while (chunk := schedule.next()) is not None:
        found.append(chunk[0])
        clock.now += each * len(chunk[0])
    return found


class TestPace:
    @pytest.mark.parametrize("each", [0.0, 1e-3, 1e3])
    def test_without_a_limit_all_chunks_are_whole(self, each):
        clock = Clock()
        pace = Pace(started(clock, None), 40)
        assert chunks_of(pace, 100, clock, each) == [40, 40, 20]
        assert pace.taken == 100
        assert pace.affordable() == math.inf

    def test_ends_with_the_seconds(self):
        clock = Clock(last=1.1)
        pace = Pace(started(clock, 1.0), 5000)
        chunks = chunks_of(pace, 10**9, clock, 1e-4)
        assert 1.0 <= clock.now < 1.0 + SHARE
        assert sum(chunks) == pace.taken == pytest.approx(10**4, rel=SHARE)

    def test_chunks_are_short_against_the_seconds_and_grow_slowly(self):
        clock = Clock()
        chunks = chunks_of(Pace(started(clock, 1.0), 5000), 10**9, clock, 1e-4)
        assert chunks[0] == 5000 // 100
        assert max(chunks) <= SHARE * 10**4 + 1
        grown = np.array(chunks[1:]) / chunks[:-1]
        assert grown.max() <= GROWTH

    def test_chunks_are_never_longer_than_without_a_limit(self):
        clock = Clock()
        chunks = chunks_of(Pace(started(clock, 1e6), 40), 1000, clock, 1e-4)
        assert max(chunks) == 40
        assert sum(chunks) == 1000

    def test_the_first_chunk_counts_no_longer_than_it_must(self):
        """The first chunk may hold a compilation: 50 times as long as all others."""
        clock = Clock()
        pace = Pace(started(clock, 100.0), 100)
        assert pace.next(10**6) == 1
        clock.now += 0.5
        assert pace.affordable() == pytest.approx(99.5 / 0.5)
        taken = pace.next(10**6)
        clock.now += 0.01 * taken
        assert pace.affordable() == pytest.approx((99.5 - 0.01 * taken) / 0.01)

    def test_a_first_estimate_saves_the_trial(self):
        clock = Clock()
        pace = Pace(started(clock, 10.0), 100, each=0.1)
        assert pace.affordable() == pytest.approx(100)
        assert pace.affordable(7.5) == pytest.approx(25)
        assert pace.next(10**6) == int(SHARE * 100)

    def test_a_unit_that_takes_all_the_time_is_begun(self):
        clock = Clock()
        pace = Pace(started(clock, 1.0), 100, each=50.0)
        assert pace.affordable() == 1
        assert pace.next(10) == 1

    def test_no_time_and_no_work(self):
        clock = Clock()
        pace = Pace(started(clock, 1.0), 100)
        assert pace.next(0) == 0
        clock.now = 1.0
        assert pace.next(10) == 0
        assert pace.taken == 0

    def test_a_clock_that_stands_still(self):
        chunks = chunks_of(Pace(started(Clock(), 1.0), 100), 1000, Clock(), 0.0)
        assert sum(chunks) == 1000
        assert max(chunks) == 100


class TestSchedule:
    @pytest.mark.parametrize("steps", [1, 99, 100, 101, 250])
    def test_positions(self, steps):
        schedule, positions = Schedule(started(Clock(), None), steps), []
        while (chunk := schedule.next()) is not None:
            positions.extend(chunk[0])
            assert chunk[1] == pytest.approx(1 / steps)
        np.testing.assert_allclose(positions, np.arange(steps) / steps, atol=1e-12)
        assert schedule.taken == steps
        assert schedule.position == pytest.approx(1)

    @pytest.mark.parametrize("steps", [1, 2, 49, 50, 51, 120])
    def test_closed_rounds(self, steps):
        """Every round goes to the very end, whatever chunks it is cut into."""
        schedule = Schedule(started(Clock(), None), steps, 50, rounds=3, closed=True)
        rounds: list[list[float]] = []
        while (chunk := schedule.next()) is not None:
            if schedule.fresh:
                rounds.append([])
            rounds[-1].extend(chunk[0])
        expected = np.linspace(0, 1, steps) if steps > 1 else np.ones(1)
        np.testing.assert_allclose(rounds, [expected] * 3, atol=1e-12)
        assert schedule.taken == 3 * steps

    def test_ends_in_time(self):
        clock = Clock(last=0.21)
        schedule = Schedule(started(clock, 0.2), 10**9)
        chunks = positions_of(schedule, clock, 1e-4)
        assert (np.diff(np.concatenate(chunks)) > 0).all()
        assert clock.now == pytest.approx(0.2, rel=2 * SHARE)
        assert schedule.taken == pytest.approx(2000, rel=2 * SHARE)
        assert schedule.position == pytest.approx(1)

    @pytest.mark.parametrize("each", [1e-4, 1e-2, 0.04, 0.3])
    @pytest.mark.parametrize("rounds", [1, 3])
    def test_ends_cold_and_in_time(self, each, rounds):
        clock = Clock()
        schedule = Schedule(
            started(clock, 1.0), 10**9, 50, each=each, rounds=rounds, closed=True
        )
        chunks = positions_of(schedule, clock, each)
        assert chunks[-1][-1] == pytest.approx(1)
        assert clock.now <= 1.0 + each
        assert clock.now > 0.9 - each

    def test_rounds_share_the_seconds(self):
        clock = Clock()
        schedule = Schedule(
            started(clock, 1.0), 10**9, 50, each=1e-3, rounds=4, closed=True
        )
        ends = []
        while (chunk := schedule.next()) is not None:
            if schedule.fresh:
                ends.append(clock.now)
            clock.now += 1e-3 * len(chunk[0])
        np.testing.assert_allclose(np.diff([*ends, clock.now]), 0.25, atol=0.02)

    def test_work_that_gets_slower_ends_in_time(self):
        """Work slows down by a factor of ten: estimates from the past are too low."""
        clock = Clock()
        schedule = Schedule(started(clock, 1.0), 10**9)
        while (chunk := schedule.next()) is not None:
            clock.now += 1e-5 * len(chunk[0]) * (1 + 9 * schedule.position)
        assert clock.now == pytest.approx(1.0, abs=0.1)
        assert schedule.position > 0.7

    def test_with_time_to_spare_all_steps_are_taken(self):
        clock = Clock()
        schedule = Schedule(started(clock, 60.0), 1000)
        chunks = positions_of(schedule, clock, 1e-3)
        np.testing.assert_allclose(
            np.concatenate(chunks), np.arange(1000) / 1000, atol=1e-12
        )
