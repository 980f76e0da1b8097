"""SignRound on the quadratic form and on eq. (25)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from solvers.budget import Budget
from solvers.errors import InputError
from solvers.qubo import QuboBatch
from solvers.relaxations.on_layer import EQ_25, LayerLoss
from solvers.relaxations.signround import SignRound
from solvers.testing import (
    brute_force,
    check_solver,
    example_batch,
    reference_energies,
)
from tests.test_adaround import linear_layer, one_thread  # noqa: F401
from tests.test_annealing import ill_conditioned


def test_conforms():
    assert check_solver(SignRound) == []


def test_matches_plain_numpy():
    qubo = example_batch(1, 8, seed=2)
    steps = 60
    V, best = np.zeros(8), reference_energies(qubo, qubo.nearest())[0]
    for k in range(steps):
        x = np.clip(np.floor(qubo.prior[0] + V + 0.5), 0, 1)
        best = min(best, reference_energies(qubo, x[None])[0])
        g = 2 * qubo.H @ x + qubo.linear[0]
        V = np.clip(V - (1 - k / steps) / steps * np.sign(g), -0.5, 0.5)
    found = SignRound(steps=steps).solve(qubo)
    assert found.energies[0] == pytest.approx(best)


def test_better_than_nearest():
    qubo = ill_conditioned(8, 80)
    nearest = reference_energies(qubo, qubo.nearest()).sum()
    assert SignRound().solve(qubo).energies.sum() < 0.2 * nearest


def test_optimal_on_easy_problems():
    qubo = QuboBatch.from_matrix(
        np.diag([1.0, -2.0, 3.0]) + 0.1, [[1, 0.5, -4], [0] * 3]
    )
    found = SignRound(rate=0.05).solve(qubo)
    np.testing.assert_array_equal(found.states, brute_force(qubo)[0])


def test_two_values_even_at_the_ends():
    """t + V reaches 1.5 and -0.5, which rounding alone would send off the grid."""
    rng = np.random.default_rng(0)
    qubo = replace(
        example_batch(4, 10),
        prior=rng.integers(0, 2, (4, 10)).astype(float),
        linear=1e4 * rng.choice([-1, 1], (4, 10)),
    )
    found = SignRound(rate=1.0).solve(qubo)
    np.testing.assert_array_equal(found.states, qubo.linear < 0)


def test_pinned_stay_where_they_are():
    qubo = example_batch(3, 9)
    pins = np.full((3, 9), -1, np.int8)
    pins[:, :4] = 1 - qubo.nearest()[:, :4]
    held = replace(qubo, fixed=pins)
    found = SignRound(steps=500, rate=0.02).solve(held)
    np.testing.assert_array_equal(found.states[:, :4], pins[:, :4])
    best = brute_force(held)[1]
    assert found.energies.sum() < best.sum() + 0.3 * abs(best.sum())


def test_on_data():
    qubo, data = linear_layer(rows=8, n=20, images=48)
    found = SignRound(steps=200, rate=0.02).solve(qubo, data=data)
    assert found.info["objective"] == EQ_25
    assert found.info["steps"] == 200
    assert found.states.dtype == np.uint8
    loss = LayerLoss(data, qubo, 0, 48, True)
    ours, nearest = (
        float(loss.judge(torch.tensor(s), 48).sum())
        for s in (found.states, qubo.nearest())
    )
    assert ours < 0.9 * nearest


def test_sweeps_are_steps():
    qubo = example_batch(2, 20)
    found = SignRound().solve(qubo, budget=Budget(sweeps=30))
    assert found.info["steps"] == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"rate": -1.0}, "rate must be 0 or more"),
        ({"rate": math.inf}, "rate must be 0 or more"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver signround: {message}"):
        SignRound(**options)
