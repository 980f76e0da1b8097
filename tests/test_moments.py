"""Moments: equal to the direct formula, whatever the batches."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qubo_rounding.problem.moments import Moments
from solvers.errors import InputError

pytestmark = pytest.mark.arithmetic

Array = NDArray[np.float64]


def data(g: int, n: int, p: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0.5, 2, (g, n, p))


def direct(x: Array, y: Array) -> Array:
    """E[x yᵀ] one position and one group at a time."""
    out = np.zeros((x.shape[0], x.shape[1], x.shape[1]))
    for g in range(x.shape[0]):
        for p in range(x.shape[2]):
            out[g] += np.outer(x[g, :, p], y[g, :, p])
    out /= x.shape[2]
    return out


@pytest.mark.parametrize("groups", [1, 3])
def test_moments_are_means_of_outer_products(groups: int) -> None:
    x = data(groups, 4, 17)
    moments = Moments(4, groups)
    moments.update(x)
    np.testing.assert_allclose(moments.second_moment, direct(x, x), rtol=1e-13)
    np.testing.assert_allclose(moments.mean, x.mean(axis=2), rtol=1e-13)
    assert moments.count == 17


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    merged=st.booleans(),
)
def test_the_split_into_batches_does_not_matter(
    seed: int, cuts: list[int], merged: bool
) -> None:
    # Inputs of very different size: errors count relative to each pair's own.
    sizes = np.logspace(-6, 6, 6)[:, None]
    x = data(2, 6, 300, seed) * sizes
    whole = Moments(6, 2)
    whole.update(x)
    split = Moments(6, 2)
    edges = [0, *sorted(cuts), 300]
    for start, stop in itertools.pairwise(edges):
        target = Moments(6, 2) if merged else split
        target.update(x[..., start:stop])
        if merged:
            split.merge(target)
    assert split.count == whole.count == 300
    difference = split.second_moment - whole.second_moment
    assert np.abs(difference / np.outer(sizes, sizes)).max() < 4e-12
    assert np.abs((split.mean - whole.mean) / sizes[:, 0]).max() < 1e-12


def test_sums_are_float64_whatever_the_input() -> None:
    x = np.full((1, 200_000), 0.1, dtype=np.float32)
    moments = Moments(1)
    for part in np.array_split(x, 7, axis=1):
        moments.update(part)
    # Summed in float32 this would be off by more than 1e-5.
    expected = float(np.float32(0.1)) ** 2
    assert abs(moments.second_moment.item() / expected - 1) < 1e-12
    integers = Moments(1)
    integers.update(np.array([[100, 100]], dtype=np.int8))
    assert integers.second_moment.item() == 10_000


def test_the_second_moment_is_exactly_symmetric() -> None:
    moments = Moments(70)
    moments.update(data(1, 70, 333, seed=3)[0])
    second = moments.second_moment
    np.testing.assert_array_equal(second, second.transpose(0, 2, 1))


def test_what_a_product_leaves_of_asymmetry_is_evened_out() -> None:
    """numpy's own products of a matrix with its transpose leave none."""
    moments = Moments(3)
    moments.update(data(1, 3, 9))
    moments._second[0, 0, 2] *= 1 + 1e-12
    matrix = moments.second_moment[0]
    assert matrix[0, 2] == matrix[2, 0]


def test_memory_does_not_grow_with_the_positions() -> None:
    moments = Moments(8)
    batch = data(1, 8, 20_000)
    moments.update(batch)
    tracemalloc.start()
    for _ in range(10):
        moments.update(batch)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000


def test_one_batch_may_be_empty_but_not_all() -> None:
    moments = Moments(3)
    moments.update(np.empty((3, 0)))
    with pytest.raises(InputError, match="moments of zero positions"):
        _ = moments.second_moment
    with pytest.raises(InputError, match="moments of zero positions"):
        _ = moments.mean
    moments.update(np.ones((3, 2)))
    assert moments.count == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_inputs_must_be_finite(bad: float) -> None:
    x = data(2, 3, 5)
    x[1, 2, 4] = bad
    moments = Moments(3, 2)
    with pytest.raises(InputError, match=rf"x\[1, 2, 4\] .* is {bad}"):
        moments.update(x)
    assert moments.count == 0


@pytest.mark.parametrize("shape", [(2, 4, 5), (1, 3, 5), (3, 5), (2, 3), (5,)])
def test_shapes_must_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(2, 3, positions\)"):
        Moments(3, 2).update(np.ones(shape))


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="n must be at least 1, not 0"):
        Moments(0)
    with pytest.raises(InputError, match="groups must be at least 1"):
        Moments(1, groups=0)
    with pytest.raises(InputError, match="must be real numbers"):
        Moments(1).update(np.ones((1, 2), dtype=complex))
    with pytest.raises(InputError, match=r"cannot merge .* \(1, 2\) into \(1, 1\)"):
        Moments(1).merge(Moments(1, 2))


def test_squares_must_not_overflow() -> None:
    moments = Moments(1)
    with (
        np.errstate(over="ignore"),
        pytest.raises(InputError, match="x holds values whose squares overflow"),
    ):
        moments.update(np.full((1, 2), 1e200))
    assert moments.count == 0
