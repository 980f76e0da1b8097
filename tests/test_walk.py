"""The state of a single-flip search, and rows shared out among threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers import kernels
from solvers.qubo import QuboBatch
from solvers.rows import over_rows
from solvers.testing import example_batch, reference_energies
from solvers.walk import Walk

# Around multiples of the kernels' tiles of 4 and blocks of variables.
SIZES = (1, 2, 3, 4, 5, 31, 33, 64, 147, 300)
DTYPES = (np.float32, np.float64)


def make(rows: int, n: int, seed: int = 0, dtype: type = np.float64) -> QuboBatch:
    """Rows with a scale per weight and a fifth of the variables pinned."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 2, (rows, n))
    qubo = example_batch(rows, n, seed, definite=seed % 2 == 0, scale=scale)
    pins = np.where(rng.random((rows, n)) < 0.2, rng.integers(0, 2, (rows, n)), -1)
    return replace(qubo, H=qubo.H.astype(dtype), fixed=pins.astype(np.int8))


def some_states(qubo: QuboBatch, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return qubo.pin(rng.integers(0, 2, (qubo.rows, qubo.n), np.uint8))


def flip_costs(qubo: QuboBatch, states: np.ndarray) -> np.ndarray:
    """Energy differences [R, n], each from two whole energies."""
    each = states[:, None] ^ np.eye(qubo.n, dtype=np.uint8)
    costs = reference_energies(qubo, each) - reference_energies(qubo, states)[:, None]
    if qubo.fixed is not None:
        costs[qubo.fixed >= 0] = np.inf
    return costs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_walk_starts_right(n, dtype):
    qubo = make(4, n, seed=n, dtype=dtype)
    states = some_states(qubo)
    walk = Walk.at(qubo, states, dtype=np.float64)
    s = qubo.scale
    u = (s * states) @ qubo.H.astype(float) + qubo.linear / (2 * s)
    np.testing.assert_allclose(walk.u[:, :n], u, rtol=1e-10, atol=1e-10)
    exact = reference_energies(qubo, states)
    np.testing.assert_allclose(walk.energy, exact, rtol=1e-10, atol=1e-9)
    np.testing.assert_array_equal(walk.states(), states)
    expected = flip_costs(qubo, states)
    np.testing.assert_allclose(walk.flip_costs(), expected, rtol=1e-7, atol=1e-7)


def test_padding():
    qubo = make(2, 5)
    walk = Walk.at(qubo, some_states(qubo))
    assert walk.z.shape == walk.u.shape == walk.q.shape
    assert walk.z.shape[1] % kernels.LANES == 0
    assert walk.H.shape == (5, walk.z.shape[1])
    assert np.isinf(walk.q[:, 5:]).all()
    assert (walk.H[:, 5:] == 0).all()
    np.testing.assert_array_equal(np.isinf(walk.q[:, :5]), qubo.fixed >= 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_walk_dtype(dtype):
    qubo = make(2, 5, dtype=dtype)
    walk = Walk.at(qubo, some_states(qubo))
    assert {walk.H.dtype, walk.z.dtype, walk.u.dtype, walk.q.dtype} == {np.dtype(dtype)}
    assert walk.energy.dtype == np.float64


def test_move_to():
    qubo = make(3, 33)
    walk = Walk.at(qubo, some_states(qubo, 1))
    target = some_states(qubo, 2)
    walk.move_to(qubo, target)
    fresh = Walk.at(qubo, target)
    for name in ("z", "u", "energy"):
        np.testing.assert_array_equal(getattr(walk, name), getattr(fresh, name))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_row_once(threads):
    seen = np.zeros(5, int)

    def kernel(amount, rows):
        rows += amount

    over_rows(kernel, (2,), (seen,), threads)
    np.testing.assert_array_equal(seen, 2)


def test_an_error_in_a_thread_surfaces():
    def kernel(rows):
        raise RuntimeError("from a thread")

    with pytest.raises(RuntimeError, match="from a thread"):
        over_rows(kernel, (), (np.zeros(4),), 2)
