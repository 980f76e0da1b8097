"""The trace of a long run: bounded, and still the run's own curve."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.harness.race import falls
from solvers import budget
from solvers.budget import Budget, Monitor, thinned
from tests.clocks import Clock


def curve(reports: int, rows: int = 3, seed: int = 0) -> np.ndarray:
    """Energies [reports, rows] that fall ever more slowly, by chance."""
    rng = np.random.default_rng(seed)
    steps = rng.random((reports, rows)) / np.arange(1, reports + 1)[:, None]
    return 100 - steps.cumsum(axis=0)


def traced(energies: np.ndarray, start: float = 100.0) -> Monitor:
    """A monitor after one report of the energies [T, R] per second."""
    clock = Clock()
    monitor = Monitor(clock=clock)
    monitor.start(Budget(), np.full(energies.shape[1], start))
    for now, each in enumerate(energies, 1):
        clock.now = now
        monitor.record(each)
    return monitor


def test_short_traces_are_whole():
    energies = np.ones((budget.LEAST_ENTRIES - 1, 2))
    assert len(traced(energies).seconds) == budget.LEAST_ENTRIES


@pytest.mark.parametrize(
    ("rows", "most"),
    [
        (1, budget.TRACE_ENTRIES),
        (512, budget.TRACE_NUMBERS // 512),
        (10**5, budget.LEAST_ENTRIES),
    ],
)
def test_memory_is_bounded(rows, most):
    """Whatever the number of rows and of reports."""
    monitor = Monitor(clock=Clock())
    monitor.start(Budget(), np.zeros(rows))
    lengths = []
    energies = np.zeros(rows)
    for _ in range(most + 1):
        energies -= 1
        monitor.record(energies)
        lengths.append(len(monitor.seconds))
    assert max(lengths) == most
    assert most / 4 < lengths[-1] <= most / 2 + 1


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(budget, "TRACE_ENTRIES", 100)


@pytest.mark.usefixtures("small")
class TestLongRuns:
    def test_entries_are_the_runs_own(self):
        energies = curve(20_000)
        monitor = traced(energies)
        at = np.array(monitor.seconds)
        assert 20 < len(at) <= 100
        assert (np.diff(at) > 0).all()
        assert (at[0], at[-1]) == (0, 20_000)
        np.testing.assert_array_equal(monitor.energies[0], [100] * 3)
        np.testing.assert_array_equal(
            monitor.energies[1:], energies[at[1:].astype(int) - 1]
        )

    def test_the_curve_stays_where_it_was(self):
        """At any time what is left to the last energy is the true rest, nearly."""
        energies = curve(20_000)
        monitor = traced(energies)
        true = np.concatenate([[300], energies.sum(axis=1)])
        at = np.array(monitor.seconds).astype(int)
        latest = np.searchsorted(at, np.arange(len(true)), side="right") - 1
        seen = np.array(monitor.energies).sum(axis=1)[latest]
        assert (seen >= true).all()
        gap, true_gap = seen[:-1] - true[-1], true[:-1] - true[-1]
        assert (gap < 2 * true_gap).all()
        assert gap.mean() < 1.2 * true_gap.mean()

    def test_improvements_outlast_reports_without(self):
        energies = np.repeat(90.0 - np.arange(30), 1000)[:, None]
        monitor = traced(energies)
        found = {float(e[0]) for e in monitor.energies}
        assert found == {100.0, *energies[:, 0]}

    def test_an_improvement_of_one_row_counts(self):
        """Also beside rows whose size or lack of an answer drowns it in the sum."""
        energies = np.full((1000, 3), 1e30)
        energies[:, 1] = np.inf
        energies[500:, 2] = 5.0
        monitor = traced(energies, start=np.inf)
        assert 501.0 in monitor.seconds

    def test_the_same_reports_give_the_same_trace(self):
        one, two = traced(curve(5000)), traced(curve(5000))
        assert one.seconds == two.seconds
        assert len(one.seconds) <= 100

    def test_falls_of_a_thinned_trace(self):
        """`falls` of it begins, ends and lies where that of the whole trace does."""
        energies = np.concatenate([[[100.0] * 3], curve(5000)])
        monitor = traced(energies[1:])

        def fell(seconds, energies):
            solution = SimpleNamespace(
                trace=(np.array(seconds, float), np.array(energies)),
                timing={"prepare": 0.5},
                seconds=1.0,
            )
            return [tuple(fall) for fall in falls([solution]).tolist()]

        whole = fell(range(5001), energies)
        thin = fell(monitor.seconds, monitor.energies)
        assert set(thin) < set(whole)
        assert (thin[0], thin[-1]) == (whole[0], whole[-1])

    def test_callbacks_get_their_own(self):
        def spoil(seconds, energies):
            energies[:] = -1e9

        monitor = Monitor(spoil, clock=Clock())
        monitor.start(Budget(), np.zeros(2))
        monitor.record(np.full(2, -1.0))
        np.testing.assert_array_equal(monitor.best, [-1, -1])
        np.testing.assert_array_equal(monitor.energies, [[0, 0], [-1, -1]])

    def test_thinning_stops_the_clock(self, monkeypatch):
        clock = Clock()

        def slowly(energies):
            clock.now += 1000
            return thinned(energies)

        monkeypatch.setattr(budget, "thinned", slowly)
        monitor = Monitor(clock=clock)
        monitor.start(Budget(), np.zeros(1))
        for report in range(150):
            monitor.record(np.full(1, -report))
        assert clock.now >= 1000
        assert monitor.elapsed() == 0
