"""The cross-entropy method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.kernels import streams
from solvers.qubo import QuboBatch
from solvers.sampling.cem import CrossEntropy
from solvers.testing import example_batch, reference_energies
from tests.clocks import Clock

pytestmark = pytest.mark.arithmetic


def twin(solver: CrossEntropy, qubo: QuboBatch, p: np.ndarray, stream: np.uint64):
    """Best energy of one row after every iteration, by the algorithm's definition."""
    rng = np.array([stream])
    best, trace = np.inf, []
    keep = max(1, round(solver.elite * solver.samples))
    for _ in range(solver.iterations):
        draws = np.empty((1, solver.samples, qubo.n), np.uint8)
        streams.bernoulli(p[None], rng, draws)
        energies = reference_energies(qubo, draws)[0]
        order = np.argsort(energies)
        p = p + solver.smoothing * (draws[0, order[:keep]].mean(axis=0) - p)
        best = min(best, energies[order[0]])
        trace.append(best)
    return np.array(trace)


@pytest.mark.parametrize("warm", [False, True])
def test_is_the_algorithm(warm):
    qubo = example_batch(2, 12, seed=4)
    solver = CrossEntropy(samples=30, elite=0.2, iterations=12, tolerance=0)
    worst = (1 - qubo.nearest()).astype(np.uint8)
    found = solver.solve(qubo, seed=6, initial=worst if warm else None)
    start = worst if warm else qubo.nearest()
    for r in range(2):
        child = np.random.SeedSequence(6).spawn(2)[r]
        p = (qubo.prior[r] + start[r]) / 2 if warm else qubo.prior[r]
        row = qubo.take([r])
        trace = twin(solver, row, p, child.generate_state(1, np.uint64)[0])
        expected = np.minimum(trace, reference_energies(row, start[[r]])[0])
        np.testing.assert_allclose(found.trace[1][1:-1, r], expected, rtol=1e-9)


def test_stops_when_settled():
    qubo = QuboBatch.from_matrix(np.diag([-5.0, 5.0, -3.0]))
    found = CrossEntropy().solve(qubo)
    np.testing.assert_array_equal(found.states, [[1, 0, 1]])
    assert 5 < found.info["iterations"] < 60
    never = CrossEntropy(tolerance=0, iterations=70).solve(qubo)
    assert never.info["iterations"] == 70


def test_sweeps_are_iterations():
    qubo = example_batch(2, 20)
    found = CrossEntropy(iterations=10).solve(qubo, budget=Budget(sweeps=4))
    assert found.info["iterations"] == 4
    same = CrossEntropy(iterations=4).solve(qubo)
    np.testing.assert_array_equal(found.states, same.states)


def test_target_stops():
    qubo = example_batch(2, 20)
    best = CrossEntropy().solve(qubo).energies
    found = CrossEntropy().solve(qubo, budget=Budget(target=best))
    assert found.status == "target"
    np.testing.assert_array_equal(found.energies, best)


def test_seconds_stop():
    qubo = example_batch(8, 60)
    patient = CrossEntropy(iterations=10**7, tolerance=0)
    clock = Clock(tick=1, last=400)
    found = patient.solve(
        qubo, budget=Budget(seconds=200), monitor=Monitor(clock=clock)
    )
    assert found.status == "time"
    assert 10 < found.info["iterations"] < 200


def test_pinned_variables_stay_certain():
    """A prior of exactly 0 or 1 is never left: no sample is wasted on it."""
    qubo = replace(example_batch(2, 6), fixed=[[0, 1, 0, 1, 0, -1]] * 2)
    found = CrossEntropy(samples=2, iterations=3).solve(qubo)
    np.testing.assert_array_equal(found.states[:, :5], [[0, 1, 0, 1, 0]] * 2)
    energies = np.array(
        [
            reference_energies(qubo, qubo.pin(np.full((2, 6), b, np.uint8)))
            for b in (0, 1)
        ]
    )
    np.testing.assert_allclose(found.energies, energies.min(axis=0))


def test_better_than_nearest_and_than_stochastic():
    qubo = example_batch(6, 60, seed=8)
    nearest = reference_energies(qubo, qubo.nearest()).sum()
    few = CrossEntropy(iterations=1).solve(qubo).energies.sum()
    many = CrossEntropy().solve(qubo).energies.sum()
    assert many < 0.8 * few
    assert few < 0.9 * nearest


def test_settled_rows_wait():
    """A row that has settled may not profit from others that have not."""
    solver = CrossEntropy(tolerance=0.3, samples=10)
    for seed in range(10):
        qubo = example_batch(6, 30, seed=seed)
        alone = solver.solve(qubo.take([0])).states
        np.testing.assert_array_equal(solver.solve(qubo).states[:1], alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples must be at least 2"),
        ({"elite": 0}, "elite must lie between 0 and 1"),
        ({"elite": 1}, "elite must lie between 0 and 1"),
        ({"smoothing": 0}, r"smoothing must lie in \(0, 1\]"),
        ({"smoothing": 1.1}, r"smoothing must lie in \(0, 1\]"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"tolerance": -0.1}, r"tolerance must lie in \[0, 0.5\)"),
        ({"tolerance": 0.5}, r"tolerance must lie in \[0, 0.5\)"),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver cem: {message}"):
        CrossEntropy(**options)
