"""`Budget`, `Monitor`, `Task`, `Solution`, and all that `Solver.solve` itself does."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from solvers.base import Solver, Task
from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.polish import descend
from solvers.qubo import QuboBatch, States
from solvers.registry import parse_solver
from solvers.testing import brute_force, example_batch, reference_energies
from tests.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock that only moves when a test moves it."""
    return Clock()


def worst_states(qubo: QuboBatch) -> States:
    """The states of highest energy, by brute force on the negative energies."""
    return brute_force(
        replace(qubo, H=-qubo.H, linear=-qubo.linear, offset=-qubo.offset)
    )[0]


@dataclass(frozen=True, kw_only=True)
class Worst(Solver):
    """A deliberately bad solver."""

    name: ClassVar[str] = "worst"

    def search(self, task: Task) -> States:
        task.info["warm"] = task.warm
        return worst_states(task.qubo)


@dataclass(frozen=True, kw_only=True)
class WorstRule(Worst):
    rule: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Steps(Solver):
    """Reports the given energies, then answers with the best states."""

    name: ClassVar[str] = "steps"
    seen: ClassVar[list[bool]] = []

    def search(self, task: Task) -> States:
        self.seen.clear()
        for energy in (5.0, 3.0, 4.0, 1.0):
            going = task.monitor.report(np.full(task.qubo.rows, energy))
            self.seen.append(going)
        return brute_force(task.qubo)[0]


class TestBudget:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"seconds": 0}, "seconds must be positive, not 0"),
            ({"seconds": -1.0}, "seconds must be positive, not -1.0"),
            ({"seconds": math.nan}, "seconds must be positive, not nan"),
            ({"sweeps": 0}, "sweeps must be at least 1, not 0"),
            ({"threads": 0}, "threads must be at least 1, not 0"),
        ],
    )
    def test_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            Budget(**options)

    @pytest.mark.parametrize(
        "options", [{"target": math.nan}, {"sweeps": 2.5}, {"threads": 1.5}]
    )
    def test_refused_kinds_of_numbers(self, options):
        with pytest.raises(InputError, match=next(iter(options))):
            Budget(**options)

    def test_cap(self):
        assert Budget().cap(7) == 7
        assert Budget(sweeps=3).cap(7) == 3
        assert Budget(sweeps=9).cap(7) == 7

    def test_frozen(self):
        with pytest.raises(FrozenInstanceError):
            Budget().sweeps = 3


class TestMonitor:
    def test_clock_stops_during_reports(self, clock):
        handled = []

        def slowly(seconds, energies):
            clock.now += 50
            handled.append((seconds, energies.copy()))

        clock.now = 100
        monitor = Monitor(slowly, clock=clock)
        monitor.start(Budget(seconds=10), np.array([3.0, 3.0]))
        clock.now += 2
        assert monitor.report(np.array([2.0, 4.0]))
        assert monitor.elapsed() == 2
        assert monitor.remaining() == 8
        clock.now += 3
        assert monitor.report(np.array([5.0, 1.0]))
        assert monitor.seconds == [0, 2, 5]
        np.testing.assert_array_equal(monitor.energies, [[3, 3], [2, 3], [2, 1]])
        assert [s for s, _ in handled] == [2, 5]
        np.testing.assert_array_equal(handled[1][1], [2, 1])

    def test_seconds(self, clock):
        monitor = Monitor(clock=clock)
        monitor.start(Budget(seconds=10), np.zeros(1))
        clock.now += 9
        assert monitor.report(np.zeros(1))
        clock.now += 1
        assert not monitor.report(np.zeros(1))
        assert monitor.status == "time"
        clock.now += 5
        assert monitor.remaining() == 0

    def test_target_needs_every_row(self):
        monitor = Monitor()
        monitor.start(Budget(target=1.0), np.array([3.0, 3.0]))
        assert monitor.report(np.array([1.0, 3.0]))
        # Best so far counts, not the present state.
        assert not monitor.report(np.array([2.0, 0.5]))
        assert monitor.status == "target"

    def test_target_per_row(self):
        monitor = Monitor()
        monitor.start(Budget(target=np.array([1.0, 2.0])), np.array([3.0, 3.0]))
        assert monitor.report(np.array([1.0, 2.1]))
        assert not monitor.report(np.array([3.0, 2.0]))

    def test_no_limit(self, clock):
        monitor = Monitor(clock=clock)
        monitor.start(Budget(), np.zeros(1))
        clock.now += 1e9
        assert monitor.report(np.zeros(1))
        assert monitor.remaining() == math.inf
        assert monitor.status == "done"

    def test_starts_afresh(self, clock):
        monitor = Monitor(clock=clock)
        monitor.start(Budget(seconds=1), np.zeros(1))
        clock.now += 2
        monitor.report(np.zeros(1))
        monitor.start(Budget(), np.ones(2))
        assert monitor.status == "done"
        assert monitor.elapsed() == 0
        assert monitor.seconds == [0]
        np.testing.assert_array_equal(monitor.best, [1, 1])

    def test_nan_is_no_improvement(self):
        monitor = Monitor()
        monitor.start(Budget(target=0.0), np.array([3.0, 3.0]))
        assert monitor.report(np.array([np.nan, 1.0]))
        np.testing.assert_array_equal(monitor.best, [3, 1])

    def test_a_report_may_be_kept_and_changed(self):
        kept = []
        monitor = Monitor(lambda seconds, energies: kept.append(energies))
        monitor.start(Budget(), np.array([3.0]))
        monitor.report(np.array([2.0]))
        monitor.report(np.array([1.0]))
        assert [float(k[0]) for k in kept] == [2, 1]


class TestStreams:
    def streams(self, rows: int, seed: int) -> np.ndarray:
        qubo = example_batch(rows, 1)
        start = qubo.nearest()
        return Task(qubo, start, False, seed, Budget(), Monitor(), {}).streams()

    def test_one_per_row_and_seed(self):
        both = np.concatenate([self.streams(50, 0), self.streams(50, 1)])
        assert len(np.unique(both)) == 100
        np.testing.assert_array_equal(self.streams(50, 0), both[:50])

    def test_more_rows_change_none(self):
        few, many = self.streams(3, 5), self.streams(9, 5)
        np.testing.assert_array_equal(few, many[:3])


class TestSolve:
    qubo = example_batch(4, 6)

    def test_guard_against_worse_answers(self):
        found = Worst().solve(self.qubo)
        np.testing.assert_array_equal(found.states, self.qubo.nearest())
        start = brute_force(self.qubo)[0]
        found = Worst().solve(self.qubo, initial=start)
        np.testing.assert_array_equal(found.states, start)
        exact = reference_energies(self.qubo, found.states)
        np.testing.assert_allclose(found.energies, exact)

    def test_guard_works_row_by_row(self):
        """Rows that start at their worst get the solver's answer."""
        worst, best = worst_states(self.qubo), brute_force(self.qubo)[0]
        initial = worst.copy()
        initial[0] = best[0]
        found = Worst().solve(self.qubo, initial=initial).states
        np.testing.assert_array_equal(found, initial)

    def test_rules_are_exempt(self):
        found = WorstRule().solve(self.qubo, initial=brute_force(self.qubo)[0])
        np.testing.assert_array_equal(found.states, worst_states(self.qubo))

    @pytest.mark.parametrize("solver", [Worst, WorstRule])
    def test_polish(self, solver):
        found = solver(polish="one-flip").solve(self.qubo)
        descended = descend(self.qubo, worst_states(self.qubo))
        energies = reference_energies(self.qubo, descended)
        start = reference_energies(self.qubo, self.qubo.nearest())
        bound = energies if solver.rule else np.minimum(energies, start)
        np.testing.assert_allclose(found.energies, bound)

    def test_unknown_polish(self):
        with pytest.raises(
            InputError, match="solver worst: polish must be one of none"
        ):
            Worst(polish="two-flip")

    def test_frozen(self):
        with pytest.raises(FrozenInstanceError):
            Worst().polish = "one-flip"

    def test_warm(self):
        assert not Worst().solve(self.qubo).info["warm"]
        assert Worst().solve(self.qubo, initial=self.qubo.nearest()).info["warm"]

    def test_initial_is_pinned_and_kept(self):
        qubo = replace(self.qubo, fixed=np.tile([1, 0, -1, -1, -1, -1], (4, 1)))
        initial = np.zeros((4, 6), int)
        found = Worst().solve(qubo, initial=initial)
        np.testing.assert_array_equal(found.states[:, :2], [[1, 0]] * 4)
        assert (initial == 0).all()

    @pytest.mark.parametrize(
        ("initial", "message"),
        [
            (np.zeros((3, 6)), r"initial must have shape \(4, 6\), not \(3, 6\)"),
            (np.zeros(6), r"initial must have shape \(4, 6\), not \(6,\)"),
            (np.full((4, 6), 2), "initial may hold only 0 and 1"),
            (np.full((4, 6), 0.5), "initial may hold only 0 and 1"),
            (np.full((4, 6), np.nan), "initial may hold only 0 and 1"),
        ],
    )
    def test_bad_initial(self, initial, message):
        with pytest.raises(InputError, match=message):
            Worst().solve(self.qubo, initial=initial)

    def test_trace_target_and_solution(self):
        qubo = replace(example_batch(1, 4), offset=[0.0])
        lowest = brute_force(qubo)[1]
        qubo = replace(qubo, offset=-lowest + 1)
        start = float(qubo.energies(qubo.nearest())[0])
        found = Steps().solve(qubo, budget=Budget(target=3.0))
        assert Steps.seen == [start > 3 and 5 > 3, False, False, False]
        assert found.status == "target"
        seconds, energies = found.trace
        expected = np.minimum.accumulate([start, 5, 3, 4, 1, 1])
        np.testing.assert_allclose(energies[:, 0], expected)
        assert seconds.shape == (6,)
        assert found.energies == pytest.approx([1.0])

    def test_timing(self, clock):
        @dataclass(frozen=True, kw_only=True)
        class Slow(Worst):
            def search(self, task: Task) -> States:
                clock.now += 2
                return task.start

        found = Slow().solve(self.qubo, monitor=Monitor(clock=clock))
        assert found.timing == {"prepare": 0, "solve": 2, "finish": 0}
        assert found.seconds == 2

    def test_given_monitor(self):
        calls = []
        monitor = Monitor(lambda seconds, energies: calls.append(seconds))
        Steps().solve(self.qubo, monitor=monitor)
        assert len(calls) == 5
        assert len(monitor.seconds) == 6

    def test_supports(self):
        @dataclass(frozen=True, kw_only=True)
        class Tiny(Worst):
            def supports(self, qubo: QuboBatch) -> str | None:
                return "takes n <= 2" if qubo.n > 2 else None

        assert Tiny().solve(example_batch(1, 2)).status == "done"
        with pytest.raises(InputError, match="solver worst: takes n <= 2"):
            Tiny().solve(self.qubo)

    @pytest.mark.parametrize("target", [np.zeros(3), np.zeros((4, 1))])
    def test_target_of_another_shape(self, target):
        with pytest.raises(InputError, match="target must"):
            Steps().solve(self.qubo, budget=Budget(target=target))

    def test_negative_seed(self):
        @dataclass(frozen=True, kw_only=True)
        class Random(Worst):
            def search(self, task: Task) -> States:
                task.streams()
                return task.start

        with pytest.raises(InputError, match="seed must"):
            Random().solve(self.qubo, seed=-1)


@pytest.mark.parametrize("name", ["stochastic", "cem", "sa", "neal"])
def test_seconds_bind_on_large_problems(name):
    """No solver may need the whole of a large batch to look at the clock."""
    n, rows = 300, 60
    qubo = QuboBatch.from_matrix(
        np.random.default_rng(0).standard_normal((n, n)), np.zeros((rows, n))
    )
    # The one that cannot stop within a row has to stop between two.
    many = {"sa": "num_sweeps=100000", "neal": "num_sweeps=300"}
    solver = parse_solver(f"{name}[{many.get(name, 'samples=100000')}]")
    # Every reading is a second: looks at the clock are counted, not what it says.
    monitor = Monitor(clock=Clock(tick=1, last=60))
    found = solver.solve(qubo, budget=Budget(seconds=20), monitor=monitor)
    assert found.status == "time" or name == "sa"


def test_time_ends_the_polish(monkeypatch):
    monkeypatch.setattr("solvers.polish.CHUNK", 1)
    qubo = example_batch(40, 60, definite=False)
    solver = parse_solver("nearest[polish=pair-flip]")
    whole = solver.solve(qubo)
    monitor = Monitor(clock=Clock(tick=1e-2, last=1.0))
    cut = solver.solve(qubo, budget=Budget(seconds=0.1), monitor=monitor)
    assert cut.energies.sum() > whole.energies.sum()


def test_polish_goes_on_after_the_target(monkeypatch):
    """A target ends the search; only time ends the polish."""
    monkeypatch.setattr("solvers.polish.CHUNK", 1)
    qubo = example_batch(40, 60, definite=False)
    polished = parse_solver("nearest[polish=pair-flip]").solve(qubo).states
    budget = Budget(target=1e30, seconds=60)
    found = parse_solver("nearest[polish=pair-flip]").solve(qubo, budget=budget)
    np.testing.assert_array_equal(found.states, polished)
