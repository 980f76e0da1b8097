"""Products with whole vectors of lanes, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.kernels.compile import jit
from solvers.kernels.vectors import LANES, STRIP, add_product

pytestmark = pytest.mark.arithmetic

# Small integers, so that every order of summation gives the same float32.
ENTRIES = 9


@jit
def plain(F, H, which, D, count):
    add_product(F, H, which, D, count, None)


@jit
def weighed(F, H, which, D, count, scale):
    add_product(F, H, which, D, count, scale)


def some(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-ENTRIES, ENTRIES, shape).astype(np.float32)


def compare(width: int, rows: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    F, H, scale = some(rng, width, LANES), some(rng, rows, width), None
    D = some(rng, count + 2, LANES)
    # What lies behind the count must not be read.
    D[count:] = np.nan
    which = np.full(count + 2, 10**9)
    which[:count] = rng.integers(0, rows, count)
    product = H[which[:count]].T @ D[:count]
    found = F.copy()
    plain(found, H, which, D, count)
    np.testing.assert_array_equal(found, F + product)
    scale = some(rng, width, LANES)
    found = F.copy()
    weighed(found, H, which, D, count, scale)
    np.testing.assert_array_equal(found, F + scale * product)


@given(
    st.integers(1, 20).map(lambda strips: strips * STRIP),
    st.integers(1, 30),
    st.integers(0, 12),
    st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None)
def test_equals_numpy(width, rows, count, seed):
    compare(width, rows, count, seed)


@pytest.mark.parametrize("count", [0, 1, 2, 8, 300])
@pytest.mark.parametrize("width", [16, 256, 1024])
def test_sizes_of_the_kernels(width, count):
    compare(width, width, count, 0)


def test_nothing_beside_the_fields_is_written():
    rng = np.random.default_rng(0)
    whole = np.full((48, LANES), 7, np.float32)
    H, D = some(rng, 16, 16), some(rng, 3, LANES)
    plain(whole[16:32], H, np.arange(3), D, 3)
    np.testing.assert_array_equal(whole[:16], 7)
    np.testing.assert_array_equal(whole[32:], 7)
    np.testing.assert_array_equal(whole[16:32], 7 + H[:3].T @ D)


def test_a_row_taken_twice_counts_twice():
    F = np.zeros((16, LANES), np.float32)
    H, D = np.ones((1, 16), np.float32), np.full((3, LANES), 2, np.float32)
    plain(F, H, np.zeros(3, np.int64), D, 3)
    np.testing.assert_array_equal(F, 6)


def test_precision_of_real_numbers():
    rng = np.random.default_rng(1)
    H = rng.normal(size=(64, 64)).astype(np.float32)
    D = rng.normal(size=(64, LANES)).astype(np.float32)
    F = np.zeros((64, LANES), np.float32)
    plain(F, H, np.arange(64), D, 64)
    exact = H.T.astype(np.float64) @ D.astype(np.float64)
    np.testing.assert_allclose(F, exact, atol=1e-5)
