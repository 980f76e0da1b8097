"""qbsolv: its parts and passes, its answers by brute force, its handicap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.flips.qbsolv import Qbsolv
from solvers.flips.tabu_walk import TabuWalk
from solvers.kernels import tabu_parts, tabu_rounds
from solvers.qubo import QuboBatch
from solvers.testing import (
    brute_force,
    check_solver,
    example_batch,
    reference_energies,
)
from tests.cases import flip_costs, make, some_states
from tests.clocks import Clock

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("options", [{}, {"initial": "random"}, {"subsize": 4}])
def test_optimum_of_small_problems(n, definite, options):
    qubo = example_batch(4, n, seed=n, definite=definite)
    _, lowest = brute_force(qubo)
    found = Qbsolv(**options).solve(qubo)
    np.testing.assert_allclose(found.energies, lowest, rtol=1e-9, atol=1e-9)


def test_optimum_of_sparse_and_pinned_problems():
    rng = np.random.default_rng(0)
    sparse = rng.normal(size=(12, 12)) * (rng.random((12, 12)) < 0.15)
    for qubo in (
        QuboBatch.from_matrix(sparse, rng.normal(size=(3, 12))),
        make(4, 12, seed=1),
        make(4, 12, seed=2, dtype=np.float32),
    ):
        _, lowest = brute_force(qubo)
        found = Qbsolv(subsize=5).solve(qubo)
        np.testing.assert_allclose(found.energies, lowest, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("large", [1e6, 1e7, 1e9, 1e12])
@pytest.mark.parametrize("options", [{}, {"initial": "random"}])
def test_large_coefficients(large, options):
    Q = np.random.default_rng(0).normal(size=(10, 10))
    Q[3, 5] += large
    single = np.diag([large, -1.0, -1.0, -1.0, -1.0, -1.0])
    for matrix in (single, Q):
        qubo = QuboBatch.from_matrix(matrix)
        _, lowest = brute_force(qubo)
        found = Qbsolv(**options).solve(qubo)
        np.testing.assert_allclose(found.energies, lowest, atol=1e-9)


def test_answers_are_optima_of_single_flips():
    Q = np.random.default_rng(0).normal(size=(60, 60))
    Q[0, 0] += 1e9
    for qubo in (QuboBatch.from_matrix(Q), make(3, 60)):
        found = Qbsolv().solve(qubo, budget=Budget(sweeps=1))
        assert flip_costs(qubo, found.states).min() > -1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"repeats": 5},
        {"repeats": 5, "initial": "random"},
        {"repeats": 3, "subsize": 1, "patience": 0.1},
    ],
)
def test_conformance_of_options(options):
    assert check_solver(Qbsolv(**options)) == []


def test_a_part_is_the_model_with_the_rest_clamped():
    qubo = make(2, 30, seed=3)
    start = some_states(qubo)
    walk = TabuWalk.at(qubo, start)
    walk.z[:, :30] = np.where(start, -1, 1) * qubo.full_scale() * walk.root[:, None]
    costs = flip_costs(qubo, start)
    walk.cost[:, :30] = np.where(np.isfinite(costs), costs / walk.unit[:, None], 1e30)
    chosen = np.flatnonzero(qubo.free(1))[[5, 2, 11]]
    H, z, cost = (np.zeros((k, 16), np.float32) for k in (3, 1, 1))
    tabu_parts.part(walk.H, walk.z, walk.cost, 1, chosen, H, z, cost)
    for bits in range(1, 8):
        flipped = [a for a in range(3) if bits >> a & 1]
        # The change of a set of flips: single costs and pairs.
        change = cost[0, flipped].sum() + sum(
            2 * z[0, a] * z[0, b] * H[a, b] for a in flipped for b in flipped if a < b
        )
        other = start.copy()
        other[1, chosen[flipped]] ^= 1
        real = reference_energies(qubo, other)[1] - reference_energies(qubo, start)[1]
        assert change * walk.unit[1] == pytest.approx(real, rel=1e-4)
    assert (cost[0, 3:] >= 1e29).all()


def test_redraws_change_the_chosen_alone():
    order = np.arange(20)
    x = np.zeros((1, 20), np.uint8)
    tabu_rounds.redraw(0, order, 15, 6, x, np.array([3], np.uint64))
    assert sorted(order) == list(range(20))
    assert set(np.flatnonzero(x[0])) <= set(order[:6]) <= set(range(15))
    assert x.any()


def test_ends_after_idle_passes():
    """The shortest search is one of idle passes alone."""
    qubo = example_batch(3, 20)
    best = Qbsolv().solve(qubo)
    assert best.status == "done"
    again = Qbsolv(repeats=7).solve(qubo, initial=best.states)
    assert again.info["passes"] == 3 * 7
    np.testing.assert_array_equal(again.states, best.states)


def test_sweeps_are_passes():
    qubo = example_batch(3, 60)
    found = Qbsolv().solve(qubo, budget=Budget(sweeps=4))
    assert found.info["passes"] == 12


def test_start_is_used():
    qubo = example_batch(4, 100, seed=1)
    good = Qbsolv(repeats=20).solve(qubo)
    warm = Qbsolv().solve(qubo, initial=good.states, budget=Budget(sweeps=1))
    cold = Qbsolv().solve(qubo, budget=Budget(sweeps=1))
    assert (warm.energies <= good.energies).all()
    assert warm.energies.sum() < cold.energies.sum()


class TestRandom:
    solver = Qbsolv(initial="random")

    def test_does_not_know_the_start(self):
        """The start is not kept as an answer either, so that the handicap shows."""
        qubo = example_batch(6, 120, seed=2)
        good = Qbsolv().solve(qubo)
        short = Budget(sweeps=1)
        cold = self.solver.solve(qubo, budget=short)
        warm = self.solver.solve(qubo, initial=good.states, budget=short)
        np.testing.assert_array_equal(cold.states, warm.states)
        assert (warm.energies > good.energies).all()
        assert not self.solver.keeps_start
        assert Qbsolv().keeps_start

    def test_streams_are_the_rows_own(self):
        qubo = example_batch(4, 40, seed=3)
        short = Budget(sweeps=1)
        every = self.solver.solve(qubo, budget=short)
        some = self.solver.solve(qubo.take(slice(0, 2)), budget=short)
        np.testing.assert_array_equal(every.states[:2], some.states)
        other = self.solver.solve(qubo, seed=1, budget=short)
        assert (other.states != every.states).any()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads(threads):
    qubo = make(5, 60, seed=6)
    one = Qbsolv(repeats=5).solve(qubo)
    many = Qbsolv(repeats=5).solve(qubo, budget=Budget(threads=threads))
    np.testing.assert_array_equal(one.states, many.states)


def test_where_a_search_is_cut_changes_nothing(monkeypatch):
    qubo = make(4, 50, seed=8)
    one = Qbsolv(repeats=10).solve(qubo)
    monkeypatch.setattr("solvers.flips.qbsolv.CHUNK", 1)
    many = Qbsolv(repeats=10).solve(qubo)
    assert len(many.trace[0]) > len(one.trace[0]) + 5
    np.testing.assert_array_equal(one.states, many.states)


@pytest.mark.parametrize(("rows", "n", "each"), [(1, 60, 1e-2), (64, 147, 1.0)])
def test_seconds(rows, n, each, monkeypatch):
    qubo = example_batch(rows, n)
    clock = Clock(last=55)
    passes = clock.paces(monkeypatch, each=each)
    found = Qbsolv(repeats=10**7).solve(
        qubo, budget=Budget(seconds=50), monitor=Monitor(clock=clock)
    )
    assert found.status == "time"
    assert sum(passes) * each == pytest.approx(50, rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subsize": 0}, "subsize must be at least 1"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"patience": 0}, "patience must be positive and finite"),
        ({"patience": math.nan}, "patience must be positive and finite"),
        ({"patience": math.inf}, "patience must be positive and finite"),
        ({"initial": "nearest"}, "initial must be one of start, random"),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver qbsolv: {message}"):
        Qbsolv(**options)
