"""The straight-through estimator on the quadratic form and on eq. (25)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.qubo import QuboBatch
from solvers.relaxations.hopfield import Hopfield
from solvers.relaxations.on_layer import EQ_25, QUADRATIC, LayerLoss
from solvers.relaxations.ste import Ste
from solvers.testing import check_solver, example_batch, reference_energies
from tests.clocks import Clock
from tests.test_adaround import linear_layer, one_thread  # noqa: F401
from tests.test_annealing import ill_conditioned


def on_a_grid(qubo, low=-3, high=4):
    shape = (qubo.rows, qubo.n)
    return replace(qubo, levels=np.stack([np.full(shape, low), np.full(shape, high)]))


def test_conforms():
    skipped = check_solver(Ste(steps=60))
    assert {line.split(": ")[1].split(":")[0] for line in skipped} == {
        "the batch has no levels"
    }
    assert not any(line.startswith("with levels") for line in skipped)


def test_states():
    qubo = on_a_grid(example_batch(3, 20))
    found = Ste(steps=200).solve(qubo)
    assert found.states.dtype == np.int16
    np.testing.assert_allclose(
        found.energies, reference_energies(qubo, found.states), rtol=1e-9
    )
    assert found.info["objective"] == QUADRATIC


def test_leaves_the_two_nearest_points_where_that_pays():
    """Targets beyond them, as other weights' errors make them."""
    target = np.array([[2.3, -1.8, 0.6], [0.2, 3.9, -9.0]])
    near = np.clip(target, 0, 1)
    offset, scale = (target**2).sum(axis=1), np.ones((2, 1))
    qubo = on_a_grid(QuboBatch(np.eye(3), -2 * target, offset, scale, near))
    found = Ste(steps=1000).solve(qubo)
    np.testing.assert_array_equal(found.states, [[2, -2, 1], [0, 4, -3]])
    assert Hopfield().solve(qubo).energies.sum() > found.energies.sum()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 9)])
def test_stays_on_the_grid(low, high):
    found = Ste(steps=500, rate=1.0).solve(
        on_a_grid(example_batch(4, 20, definite=False), low, high)
    )
    assert found.states.min() >= low
    assert found.states.max() <= high


def test_matches_plain_numpy():
    """One row of small numbers, step by step."""
    qubo = on_a_grid(example_batch(1, 6, seed=5))
    steps, rate = 40, 0.1
    z, m, v = qubo.prior[0].copy(), np.zeros(6), np.zeros(6)
    best = reference_energies(qubo, qubo.nearest())[0]
    for k in range(steps):
        x = np.floor(z + 0.5)
        best = min(best, reference_energies(qubo, x[None])[0])
        g = 2 * qubo.H @ x + qubo.linear[0]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** (k + 1)), v / (1 - 0.999 ** (k + 1))
        z = np.clip(z - rate * (1 - k / steps) * m_hat / (np.sqrt(v_hat) + 1e-9), -3, 4)
    found = Ste(steps=steps, rate=rate).solve(qubo)
    assert found.energies[0] == pytest.approx(best)


def test_saturated_weights_may_leave_the_end_of_the_grid():
    qubo = on_a_grid(example_batch(2, 6), -1, 1)
    pinned = replace(qubo, fixed=np.ones((2, 6), np.int8))
    found = Ste(steps=300, rate=0.1).solve(pinned)
    assert (found.states != 1).any()


def test_rows_and_threads():
    qubo = on_a_grid(example_batch(19, 30))
    solver = Ste(steps=300)
    states = solver.solve(qubo).states
    two = solver.solve(qubo, budget=Budget(threads=2)).states
    np.testing.assert_array_equal(states, two)
    alone = solver.solve(qubo.take([7, 18])).states
    np.testing.assert_array_equal(states[[7, 18]], alone)


def test_on_data():
    qubo, data = linear_layer(rows=8, n=20, images=48)
    solver = Ste(steps=300, rate=0.03)
    found = solver.solve(qubo, data=data)
    assert found.info["objective"] == EQ_25
    assert found.states.dtype == np.int16
    loss = LayerLoss(data, qubo, 0, 48, True)
    ours, nearest = (
        float(loss.judge(torch.tensor(s), 48).sum())
        for s in (found.states, qubo.nearest())
    )
    assert ours < 0.8 * nearest
    assert found.info["loss"][0][1] >= found.info["loss"][-1][1]
    again = solver.solve(qubo, data=data, budget=Budget(threads=2))
    np.testing.assert_array_equal(found.states, again.states)


@pytest.mark.parametrize("sweeps", [1, 120])
def test_sweeps_are_steps(sweeps):
    qubo, data = linear_layer()
    for given in (None, data):
        found = Ste().solve(qubo, data=given, budget=Budget(sweeps=sweeps))
        assert found.info["steps"] == sweeps


def test_ends_in_time(monkeypatch):
    qubo = on_a_grid(ill_conditioned(16, 120))
    clock = Clock(last=1100)
    clock.paces(monkeypatch, each=1.0)
    found = Ste(steps=10**8).solve(
        qubo, budget=Budget(seconds=1000), monitor=Monitor(clock=clock)
    )
    assert found.info["steps"] == pytest.approx(1000, rel=0.03)


def test_needs_a_grid():
    with pytest.raises(InputError, match="solver ste: the batch has no levels"):
        Ste().solve(example_batch(1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"rate": math.inf}, "rate must be positive"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"polish": "one-flip"}, "polish must be none"),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver ste: {message}"):
        Ste(**options)
