"""Moments: equal to the direct formula, whatever the batches."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

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
    assert moments.cross is None
    assert moments.reference is None
    assert moments.reference_mean is None


def test_cross_moments() -> None:
    x, x_hat = data(2, 5, 40, seed=1), data(2, 5, 40, seed=2)
    moments = Moments(5, groups=2, cross=True)
    for part in (slice(0, 13), slice(13, 40)):
        moments.update(x[..., part], x_hat[..., part])
    assert moments.cross is not None
    assert moments.reference is not None
    assert moments.reference_mean is not None
    tight: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(moments.second_moment, direct(x_hat, x_hat), **tight)
    np.testing.assert_allclose(moments.cross, direct(x, x_hat), **tight)
    np.testing.assert_allclose(moments.reference, direct(x, x), **tight)
    np.testing.assert_allclose(moments.mean, x_hat.mean(axis=2), **tight)
    np.testing.assert_allclose(moments.reference_mean, x.mean(axis=2), **tight)
    assert moments.count == 40


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    merged=st.booleans(),
    cross=st.booleans(),
)
def test_the_split_into_batches_does_not_matter(
    seed: int, cuts: list[int], merged: bool, cross: bool
) -> None:
    x, x_hat = data(2, 6, 300, seed), data(2, 6, 300, seed + 1)
    # Inputs of very different size: errors count relative to each pair's own.
    sizes = np.logspace(-6, 6, 6)[:, None]
    x, x_hat = x * sizes, x_hat * sizes

    def take(moments: Moments, part: slice) -> None:
        moments.update(x[..., part], x_hat[..., part] if cross else None)

    whole = Moments(6, 2, cross)
    take(whole, slice(None))
    split = Moments(6, 2, cross)
    edges = [0, *sorted(cuts), 300]
    for start, stop in itertools.pairwise(edges):
        target = Moments(6, 2, cross) if merged else split
        take(target, slice(start, stop))
        if merged:
            split.merge(target)
    assert split.count == whole.count == 300
    scale = np.outer(sizes, sizes)
    pairs = [(split.second_moment, whole.second_moment)]
    if cross:
        assert split.cross is not None
        assert whole.cross is not None
        assert split.reference is not None
        assert whole.reference is not None
        pairs += [(split.cross, whole.cross), (split.reference, whole.reference)]
        assert split.reference_mean is not None
        assert whole.reference_mean is not None
        difference = split.reference_mean - whole.reference_mean
        assert np.abs(difference / sizes[:, 0]).max() < 1e-12
    for one, other in pairs:
        assert np.abs((one - other) / scale).max() < 4e-12
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
    moments = Moments(3, cross=True)
    moments.update(data(1, 3, 9), data(1, 3, 9, seed=1))
    for sums in (moments._second, moments._reference):
        assert sums is not None
        sums[0, 0, 2] *= 1 + 1e-12
    reference = moments.reference
    assert reference is not None
    for matrix in (moments.second_moment[0], reference[0]):
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
@pytest.mark.parametrize("which", ["x", "x_hat"])
def test_inputs_must_be_finite(bad: float, which: str) -> None:
    pair = {"x": data(2, 3, 5), "x_hat": data(2, 3, 5)}
    pair[which][1, 2, 4] = bad
    moments = Moments(3, 2, cross=True)
    with pytest.raises(InputError, match=rf"{which}\[1, 2, 4\] .* is {bad}"):
        moments.update(**pair)
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
    with pytest.raises(InputError, match="without cross=True"):
        Moments(1).update(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(InputError, match="need x_hat beside x"):
        Moments(1, cross=True).update(np.ones((1, 2)))
    with pytest.raises(InputError, match="must hold the same positions"):
        Moments(1, cross=True).update(np.ones((1, 2)), np.ones((1, 3)))
    with pytest.raises(InputError, match="must be real numbers"):
        Moments(1).update(np.ones((1, 2), dtype=complex))
    with pytest.raises(InputError, match=r"cannot merge .* \(1, 1, True\)"):
        Moments(1).merge(Moments(1, cross=True))


@pytest.mark.parametrize("which", ["x", "x_hat"])
def test_squares_must_not_overflow(which: str) -> None:
    pair = {"x": np.ones((1, 2)), "x_hat": np.ones((1, 2))}
    pair[which] = np.full((1, 2), 1e200)
    moments = Moments(1, cross=True)
    with (
        np.errstate(over="ignore"),
        pytest.raises(InputError, match=f"{which} holds values whose squares overflow"),
    ):
        moments.update(**pair)
    assert moments.count == 0
