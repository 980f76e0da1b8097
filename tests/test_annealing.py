"""Simulated annealing: temperatures, schedule, limits, precision."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.flips import annealing
from solvers.flips.annealing import SimulatedAnnealing, typical_flip_cost
from solvers.polish import descend
from solvers.qubo import QuboBatch
from solvers.testing import example_batch, reference_energies
from solvers.threads import over_rows
from solvers.walk import Walk
from tests.clocks import Clock

pytestmark = pytest.mark.arithmetic


def ill_conditioned(rows: int, n: int, seed: int = 0) -> QuboBatch:
    """Correlated inputs with a large common mean, as a first layer has them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * n, n)).cumsum(axis=1) * 0.05 + rng.normal(3, 1, (4 * n, 1))
    H = x.T @ x / len(x)
    t = rng.random((rows, n))
    pull = t @ H
    return QuboBatch(H, -2 * pull, (t * pull).sum(axis=1), np.ones((rows, 1)), t)


def scaled(qubo: QuboBatch, a: float) -> QuboBatch:
    return replace(qubo, H=a * qubo.H, linear=a * qubo.linear, offset=a * qubo.offset)


class TestTemperatures:
    @pytest.mark.parametrize("factor", [4.0, 2.0**-20])
    @pytest.mark.parametrize("float32", [True, False])
    def test_follow_the_energies(self, factor, float32):
        qubo = example_batch(3, 40)
        solver = SimulatedAnnealing(num_sweeps=100, float32=float32, polish="none")
        one, other = solver.solve(qubo), solver.solve(scaled(qubo, factor))
        np.testing.assert_array_equal(one.states, other.states)
        assert one.info["flips"] == other.info["flips"]

    def test_follow_the_scale(self):
        """Temperatures are the same for the same model with another grid step."""
        qubo = example_batch(3, 40)
        solver = SimulatedAnnealing(num_sweeps=100, polish="none")
        one = solver.solve(qubo)
        other = solver.solve(replace(qubo, H=qubo.H / 16, scale=4 * qubo.scale))
        np.testing.assert_array_equal(one.states, other.states)

    @pytest.mark.filterwarnings("ignore:overflow encountered in cast")
    @pytest.mark.parametrize("factor", [2.0**150, 2.0**-150])
    def test_follow_extreme_energies(self, factor):
        qubo = example_batch(2, 20)
        one = SimulatedAnnealing().solve(qubo)
        other = SimulatedAnnealing().solve(scaled(qubo, factor))
        np.testing.assert_array_equal(one.states, other.states)

    def test_unit_is_the_median_cost_at_a_local_optimum(self):
        qubo = replace(example_batch(3, 9), fixed=np.eye(3, 9, dtype=np.int8) - 1)
        optimum = descend(qubo, qubo.nearest())
        each = optimum[:, None] ^ np.eye(9, dtype=np.uint8)
        costs = (
            reference_energies(qubo, each) - reference_energies(qubo, optimum)[:, None]
        )
        free = qubo.fixed < 0
        expected = [np.median(c[f & (c > 0)]) for c, f in zip(costs, free, strict=True)]
        np.testing.assert_allclose(typical_flip_cost(qubo, optimum), expected)

    def test_unit_of_a_row_without_choice(self, recwarn):
        qubo = replace(example_batch(2, 3), fixed=[[0, 1, 1], [-1] * 3])
        unit = typical_flip_cost(qubo, qubo.nearest())
        assert unit[0] == 1
        assert unit[1] > 0
        assert not len(recwarn)

    def test_given_range(self):
        info = (
            SimulatedAnnealing(beta_min=0.5, beta_max=8).solve(example_batch(2, 5)).info
        )
        assert info["beta_range"] == pytest.approx((0.5, 8))

    def test_hot_moves_more_than_cold(self):
        qubo = example_batch(2, 40)
        flips = [
            SimulatedAnnealing(beta_min=b, beta_max=b).solve(qubo).info["flips"]
            for b in (1e-6, 1e-2, 1, 1e6)
        ]
        assert flips == sorted(flips, reverse=True)
        # At next to no cost every proposal is accepted; frozen, few are ever.
        assert flips[0] > 0.95 * 2 * 40 * 1000
        assert flips[-1] < 200

    def test_range_suits_ill_conditioned_matrices(self):
        """Few flips are accepted, but some; costs at other states give over 20 %."""
        qubo = ill_conditioned(6, 100)
        found = SimulatedAnnealing(polish="none").solve(qubo)
        assert 0.005 < found.info["flips"] / (1000 * 600) < 0.15
        start = reference_energies(qubo, qubo.nearest())
        assert found.energies.sum() < 0.05 * start.sum()


class TestSchedule:
    def test_anneals_better_with_more_sweeps(self):
        qubo = example_batch(10, 80)
        energies = [
            SimulatedAnnealing(num_sweeps=k, polish="none").solve(qubo).energies.sum()
            for k in (3, 30, 1000)
        ]
        assert energies == sorted(energies, reverse=True)

    def test_restarts_keep_the_best(self):
        qubo = example_batch(10, 60, definite=False)
        one = SimulatedAnnealing(num_sweeps=70, polish="none").solve(qubo)
        many = SimulatedAnnealing(num_sweeps=70, num_restarts=5, polish="none").solve(
            qubo
        )
        assert (many.energies <= one.energies).all()
        assert (many.energies < one.energies).any()
        assert (one.info["sweeps"], many.info["sweeps"]) == (70, 350)

    @pytest.mark.parametrize("sweeps", [1, 49, 50, 51, 120])
    def test_sweeps_are_capped(self, sweeps):
        found = SimulatedAnnealing().solve(
            example_batch(2, 5), budget=Budget(sweeps=sweeps)
        )
        assert found.info["sweeps"] == sweeps
        own = SimulatedAnnealing(num_sweeps=sweeps).solve(example_batch(2, 5))
        np.testing.assert_array_equal(found.states, own.states)

    @pytest.mark.parametrize("sweeps", [1, 2, 10, 120])
    def test_betas(self, sweeps, monkeypatch):
        """Geometric, from one end to the other, in every anneal."""
        seen = []

        def spy(kernel, shared, rows, threads):
            seen.append(rows[6][0].copy())
            over_rows(kernel, shared, rows, threads)

        monkeypatch.setattr(annealing, "over_rows", spy)
        solver = SimulatedAnnealing(
            num_sweeps=sweeps, num_restarts=2, beta_min=0.1, beta_max=10.0
        )
        solver.solve(example_batch(2, 5))
        expected = np.geomspace(0.1, 10, sweeps) if sweeps > 1 else [10.0]
        np.testing.assert_allclose(np.concatenate(seen), np.tile(expected, 2))

    def test_a_row_does_not_depend_on_the_others(self, monkeypatch):
        """Nor does the moment at which its fields are refreshed."""
        qubo = example_batch(4, 500)
        moved = []

        def move_to(walk, *arguments, kept=Walk.move_to):
            moved.append(len(walk.z))
            kept(walk, *arguments)

        monkeypatch.setattr(Walk, "move_to", move_to)
        solver = SimulatedAnnealing(num_sweeps=300, polish="none")
        both = solver.solve(qubo)
        alone = solver.solve(qubo.take([0]))
        assert moved.count(4) == moved.count(1) > 2
        np.testing.assert_array_equal(both.states[0], alone.states[0])

    def test_start_is_used(self):
        """One frozen sweep from a local optimum stays there."""
        qubo = example_batch(3, 60)
        start = descend(qubo, np.ones((3, 60), np.uint8))
        frozen = SimulatedAnnealing(num_sweeps=1, beta_min=1e9, beta_max=1e9)
        found = frozen.solve(qubo, initial=start)
        np.testing.assert_array_equal(found.states, start)

    def test_target(self):
        qubo = example_batch(3, 30)
        best = SimulatedAnnealing().solve(qubo).energies
        found = SimulatedAnnealing(num_restarts=1000).solve(
            qubo, budget=Budget(target=best + 1e-3)
        )
        assert found.status == "target"
        assert found.info["sweeps"] <= 1000 + annealing.CHUNK
        assert (found.energies <= best + 1e-3).all()


class TestTime:
    qubo = example_batch(16, 120, seed=2)

    @pytest.mark.parametrize("restarts", [1, 3])
    def test_ends_in_time(self, restarts, monkeypatch):
        """Far sooner than all the sweeps would take, and not before."""
        clock = Clock(last=330)
        clock.paces(monkeypatch, each=1.0)
        solver = SimulatedAnnealing(num_sweeps=10**8, num_restarts=restarts)
        found = solver.solve(
            self.qubo, budget=Budget(seconds=300), monitor=Monitor(clock=clock)
        )
        assert found.status in ("time", "done")
        assert found.info["sweeps"] == pytest.approx(300, rel=0.03)

    def test_ends_cold(self, monkeypatch):
        """A schedule cut short instead would end where it is hot.

        Without polish: the last sweeps must settle by themselves.
        """
        solver = SimulatedAnnealing(num_sweeps=10**8, polish="none")
        clock = Clock(last=1100)
        chunks = clock.paces(monkeypatch, each=1.0)
        short = solver.solve(
            self.qubo, budget=Budget(seconds=1000), monitor=Monitor(clock=clock)
        )
        assert sum(chunks) == short.info["sweeps"] < 1100
        full = SimulatedAnnealing(polish="none").solve(self.qubo)
        low, high = full.info["beta_range"]
        hot = replace(solver, num_sweeps=1000, beta_min=low, beta_max=1.01 * low)
        warm = hot.solve(self.qubo).energies.sum()
        nearest = reference_energies(self.qubo, self.qubo.nearest()).sum()
        assert high > 5 * low
        assert full.energies.sum() < warm < nearest
        gap = (short.energies.sum() - full.energies.sum()) / (
            warm - full.energies.sum()
        )
        assert gap < 0.5

    def test_enough_time_changes_the_chunks_alone(self, monkeypatch):
        clock = Clock()
        clock.paces(monkeypatch, each=1.0)
        found = SimulatedAnnealing(num_sweeps=60).solve(
            self.qubo, budget=Budget(seconds=10**4), monitor=Monitor(clock=clock)
        )
        assert found.info["sweeps"] == 60
        assert found.status == "done"

    def test_paused_time_is_free(self):
        """Slow reports cost no sweeps."""
        clock, pauses = Clock(), []

        def report(seconds, energies):
            clock.now += 500
            pauses.append(seconds)

        solver = SimulatedAnnealing(num_sweeps=60)
        monitor = Monitor(report, clock=clock)
        found = solver.solve(self.qubo, budget=Budget(seconds=60), monitor=monitor)
        assert len(pauses) >= 2
        assert found.info["sweeps"] == 60
        assert found.trace[0][-1] == found.seconds - 500 * len(pauses) == 0


class TestPrecision:
    def test_float32_is_as_good(self):
        for qubo in (example_batch(12, 80), ill_conditioned(12, 80)):
            low, high = (
                SimulatedAnnealing(float32=f, num_sweeps=500).solve(qubo).energies.sum()
                for f in (True, False)
            )
            assert abs(low - high) < 0.08 * high

    def test_trace_is_not_below_the_answer(self):
        """What is reported must be an energy of a state at hand."""
        found = SimulatedAnnealing(polish="none").solve(ill_conditioned(8, 147))
        last = found.trace[1][-1]
        np.testing.assert_allclose(last, found.energies, rtol=1e-6)

    def test_target_is_really_reached(self):
        qubo = ill_conditioned(8, 147)
        solver = SimulatedAnnealing(polish="none")
        goal = solver.solve(qubo).trace[1][-1]
        found = solver.solve(qubo, budget=Budget(target=goal))
        assert found.status == "target"
        assert (found.energies <= goal + 1e-9 * abs(goal)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sweeps": 0}, "num_sweeps must be at least 1"),
        ({"num_restarts": 0}, "num_restarts must be at least 1"),
        ({"beta_min": 1.0}, "give both beta_min and beta_max"),
        ({"beta_max": 1.0}, "give both beta_min and beta_max"),
        ({"beta_min": 2.0, "beta_max": 1.0}, "0 < beta_min <= beta_max"),
        ({"beta_min": -1.0, "beta_max": 1.0}, "0 < beta_min <= beta_max"),
        ({"beta_min": math.nan, "beta_max": 1.0}, "0 < beta_min <= beta_max"),
        pytest.param(
            {"beta_min": 1.0, "beta_max": math.inf},
            "beta_max",
        ),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver sa: .*{message}"):
        SimulatedAnnealing(**options)
