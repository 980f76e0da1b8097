"""Batches and states that the tests of kernels and walks share."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from solvers.qubo import QuboBatch
from solvers.testing import example_batch, reference_energies

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


def rounding(qubo: QuboBatch) -> np.ndarray:
    """By how much two sums of an energy may differ [R]: 1e-9 of the terms that cancel.

    For comparisons of energies that two routines have summed, each in its own order.
    """
    sizes = {name: abs(getattr(qubo, name)) for name in ("H", "linear", "offset")}
    ones = np.ones((qubo.rows, qubo.n), np.uint8)
    return 1e-9 * reference_energies(replace(qubo, **sizes), ones)


def exact_energies(qubo: QuboBatch, states: np.ndarray) -> list[Fraction]:
    """Energies [R] without any rounding, of states [R, n]; for small n."""
    scale, found = qubo.full_scale(), []
    for r, x in enumerate(states):
        ones = np.flatnonzero(x)
        s = {i: Fraction(scale[r, i]) for i in ones}
        total = Fraction(qubo.offset[r]) + sum(
            Fraction(qubo.linear[r, i]) for i in ones
        )
        total += sum(
            s[i] * s[j] * Fraction(float(qubo.H[i, j])) for i in ones for j in ones
        )
        found.append(total)
    return found


def flip_costs(qubo: QuboBatch, states: np.ndarray) -> np.ndarray:
    """Energy differences [R, n], each from two whole energies."""
    each = states[:, None] ^ np.eye(qubo.n, dtype=np.uint8)
    costs = reference_energies(qubo, each) - reference_energies(qubo, states)[:, None]
    if qubo.fixed is not None:
        costs[qubo.fixed >= 0] = np.inf
    return costs
