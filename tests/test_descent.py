"""Descents against plain numpy: every kind ends at an optimum of its moves."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from solvers.budget import Budget
from solvers.errors import InputError
from solvers.flips.descent import Descent
from solvers.kernels.descent import DESCENTS
from solvers.polish import MOVES, descend
from solvers.qubo import QuboBatch
from solvers.testing import reference_energies
from solvers.threads import over_rows
from solvers.walk import Walk
from tests.cases import SIZES, flip_costs, make, rounding, some_states

pytestmark = pytest.mark.arithmetic

KINDS = list(MOVES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": np.zeros((1, 8), np.uint8)}, r"must have shape \(1, 4\), not"),
        ({"states": [0, 1, 0, 1]}, r"must have shape \(1, 4\), not \(4,\)"),
        ({"states": np.full((1, 4), 0.5)}, "states may hold only 0 and 1"),
        ({"moves": "pairflip"}, "unknown moves 'pairflip'; did you mean pair-flip"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"passes": 0}, "passes must be at least 1, not 0"),
    ],
)
def test_bad_input(change, message):
    given = {"states": np.zeros((1, 4), np.uint8)} | change
    with pytest.raises(InputError, match=message):
        descend(QuboBatch.from_matrix(np.eye(4)), **given)


@pytest.mark.parametrize("moves", KINDS)
@pytest.mark.parametrize("n", SIZES)
def test_one_flip_optimum(n, moves):
    qubo = make(3, n, seed=n)
    start = some_states(qubo)
    found = descend(qubo, start, moves)
    energies = reference_energies(qubo, found)
    assert (energies <= reference_energies(qubo, start) + rounding(qubo)).all()
    assert (flip_costs(qubo, found) >= -1e-9 * np.abs(energies).max()).all()
    np.testing.assert_array_equal(qubo.pin(found), found)


@pytest.mark.parametrize("seed", range(4))
def test_pair_optimum(seed):
    """No pair of free variables gains, and single flips alone do not get there."""
    qubo = make(3, 12, seed=seed)
    found = descend(qubo, some_states(qubo), "pair-flip")
    lowest = reference_energies(qubo, found)
    for i, j in combinations(range(qubo.n), 2):
        other = found.copy()
        other[:, [i, j]] ^= 1
        allowed = (qubo.fixed[:, [i, j]] < 0).all(axis=1)
        energies = reference_energies(qubo, other)
        assert (energies >= lowest - 1e-9)[allowed].all()


def test_pairs_leave_a_trap_of_single_flips():
    """(0, 1) and (1, 0) are one pair apart, with a barrier between."""
    qubo = QuboBatch.from_matrix([[0.0, 10.0], [10.0, 0.0]], [[-2.0, -3.0]])
    assert descend(qubo, np.array([[1, 0]], np.uint8)).tolist() == [[1, 0]]
    assert descend(qubo, np.array([[1, 0]], np.uint8), "pair-flip").tolist() == [[0, 1]]


def test_takes_the_steepest_flips():
    qubo = make(4, 33, seed=1)
    states = some_states(qubo)
    twin = states.copy()
    for r in range(4):
        while (costs := flip_costs(qubo, twin)[r]).min() < -1e-9:
            twin[r, costs.argmin()] ^= 1
    np.testing.assert_array_equal(descend(qubo, states), twin)


def test_cyclic_takes_flips_in_order():
    qubo = make(4, 33, seed=1)
    states = some_states(qubo)
    twin = states.copy()
    for r in range(4):
        moved = True
        while moved:
            moved = False
            for i in range(33):
                if flip_costs(qubo, twin)[r, i] < -1e-9:
                    twin[r, i] ^= 1
                    moved = True
    np.testing.assert_array_equal(descend(qubo, states, "cyclic"), twin)


@pytest.mark.parametrize("moves", KINDS)
def test_books_its_energy(moves):
    qubo = make(3, 33)
    walk = Walk.at(qubo, some_states(qubo))
    before, done = walk.states(), np.zeros(3, bool)
    state = (walk.z, walk.u, walk.q, walk.energy, walk.flips, done)
    over_rows(DESCENTS[moves], (walk.H, 10**6), state)
    exact = reference_energies(qubo, walk.states())
    np.testing.assert_allclose(walk.energy, exact, rtol=1e-9, atol=1e-9)
    assert (walk.flips >= (before != walk.states()).sum(axis=1)).all()
    assert done.all()


@pytest.mark.parametrize("moves", KINDS)
def test_ends_on_a_plateau_of_rounding_noise(moves):
    """Large terms that cancel: flips gain or lose nothing but noise."""
    n = 40
    v = np.random.default_rng(0).normal(size=n) * 1e8
    qubo = QuboBatch.from_matrix(np.outer(v, v), -2 * v * v.sum() / 2, v.sum() ** 2)
    assert descend(qubo, some_states(qubo), moves).shape == (1, n)


@pytest.mark.parametrize("moves", KINDS)
def test_passes_and_budgets(moves):
    """Passes of a budget are those of the descent, however they are cut in chunks."""
    qubo = make(3, 64, seed=2)
    states = some_states(qubo)
    solver = Descent(moves=moves)
    for passes in (1, 2, 5):
        found = solver.solve(qubo, initial=states, budget=Budget(sweeps=passes))
        expected = descend(qubo, states, moves, passes=passes)
        np.testing.assert_array_equal(found.states, expected)
    free = solver.solve(qubo, initial=states)
    np.testing.assert_array_equal(free.states, descend(qubo, states, moves))
    one = solver.solve(qubo, initial=states, budget=Budget(sweeps=1))
    assert (one.states != states).any()
    assert (one.states != free.states).any()


def test_options():
    with pytest.raises(ValueError, match="moves must be one of one-flip, cyclic, pair"):
        Descent(moves="two-flip")
