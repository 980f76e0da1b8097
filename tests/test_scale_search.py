"""The search for scales, against exact and dense ones and on real layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qubo_rounding.problem.grid import Encoding, Grid

Array = NDArray[np.float64]


def exact_weight_mse(weight: Array, levels: int, zero: int) -> float:
    """Global minimum of ‖w − RTN(w)‖² over the scale.

    As the scale falls, each weight's integer grows by one at known scales. For the
    integers q of one interval the best scale leaves w·w − (w·q)²/(q·q), and rounding
    at that scale can only be better: the least such value is the minimum.
    """
    most = np.where(weight >= 0, levels - zero, zero)
    scales, products, squares = [], [], []
    for k in range(1, int(most.max()) + 1):
        size = np.abs(weight[(most >= k) & (weight != 0)])
        scales.append(size / (k - 0.5))
        products.append(size)
        squares.append(np.full(len(size), 2.0 * k - 1))
    if not scales:
        return float(weight @ weight)
    order = np.argsort(-np.concatenate(scales), kind="stable")
    wq = np.cumsum(np.concatenate(products)[order])
    qq = np.cumsum(np.concatenate(squares)[order])
    return float(weight @ weight - (wq * wq / qq).max(initial=0))


def least_mse(weight: Array, grid: Grid) -> float:
    levels = 2**grid.bits - 1 - grid.restricted
    middle = 2 ** (grid.bits - 1) - grid.restricted
    zeros = [middle] if grid.symmetric else range(levels + 1)
    return min(exact_weight_mse(weight, levels, zero) for zero in zeros)


def output_mse(weight: Array, encoding: Encoding, moment: Array) -> Array:
    error = encoding.nearest(weight) - weight
    found: Array = np.einsum("ri,ij,rj->r", error, moment, error)
    return found


def spd(n: int, seed: int) -> Array:
    x = np.random.default_rng(seed).normal(0.3, 1, (n, 3 * n))
    return x @ x.T / (3 * n)


def heavy_tailed(rows: int, n: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_t(4, (rows, n))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"restricted": True},
        {"bits": 2},
        {"bits": 3},
        {"symmetric": False},
        {"symmetric": False, "bits": 2},
        {"symmetric": False, "bits": 3},
        {"symmetric": False, "bits": 5},
        {"bits": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("one_sided", [False, True])
def test_weight_mse_is_the_global_minimum(
    options: dict[str, Any], one_sided: bool
) -> None:
    weight = heavy_tailed(8, 100, seed=1)
    weight = np.abs(weight) if one_sided else weight
    grid = Grid(granularity="channel", **options)
    found = ((grid.fit(weight).nearest(weight) - weight) ** 2).sum(axis=1)
    least = np.array([least_mse(row, grid) for row in weight])
    assert (found >= least * (1 - 1e-9)).all()
    assert found.sum() <= 1.001 * least.sum()
    assert (found <= 1.01 * least).all()
    grid = Grid(granularity="tensor", **options)
    found_tensor = ((grid.fit(weight).nearest(weight) - weight) ** 2).sum()
    assert found_tensor <= 1.001 * least_mse(weight.ravel(), grid)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_output_mse_is_near_the_best_of_a_dense_scan(
    symmetric: bool, granularity: Any
) -> None:
    weight, moment = heavy_tailed(3, 12, seed=2), spd(12, seed=3)
    grid = Grid(3, symmetric, granularity=granularity, scale="output-mse")
    found = output_mse(weight, grid.fit(weight, moment), moment)
    best = np.full(3 if granularity == "channel" else 1, np.inf)
    zeros = [4] if symmetric else range(8)
    for zero in zeros:
        for scale in np.linspace(0.02, 3, 2000):
            lo = np.array([[-zero]], dtype=np.int32)
            encoding = Encoding(np.full((3, 1), scale), lo, lo + 7)
            error = output_mse(weight, encoding, moment)
            error = error if granularity == "channel" else error.sum(keepdims=True)
            best = np.minimum(best, error)
    found = found if granularity == "channel" else found.sum(keepdims=True)
    assert found.sum() <= 1.1 * best.sum()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("granularity", "size"), [("tensor", None), ("channel", None), ("group", 5)]
)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_output_mse_never_loses_to_weight_mse(
    symmetric: bool, granularity: Any, size: int | None, seed: int
) -> None:
    weight, moment = heavy_tailed(4, 12, seed), spd(12, seed)
    options: dict[str, Any] = {"granularity": granularity, "group_size": size}
    by_weight = Grid(symmetric=symmetric, scale="weight-mse", **options).fit(weight)
    by_output = Grid(symmetric=symmetric, scale="output-mse", **options)
    gain = output_mse(weight, by_weight, moment) - output_mse(
        weight, by_output.fit(weight, moment), moment
    )
    gain = gain.sum(keepdims=True) if granularity == "tensor" else gain
    assert (gain >= -1e-9).all()


def test_output_mse_lowers_correlated_error_of_groups() -> None:
    weight, moment = heavy_tailed(6, 24, seed=4), spd(24, seed=5)
    options: dict[str, Any] = {"granularity": "group", "group_size": 8}
    before = output_mse(weight, Grid(**options).fit(weight), moment).sum()
    grid = Grid(scale="output-mse", **options)
    after = output_mse(weight, grid.fit(weight, moment), moment).sum()
    assert after < 0.8 * before


def test_each_block_of_rows_has_its_own_moment() -> None:
    weight = heavy_tailed(6, 10, seed=6)
    moments = np.stack([spd(10, seed) for seed in (7, 8, 9)])
    grid = Grid(granularity="channel", scale="output-mse")
    # The blocks are scaled by one factor, so a power of two keeps every bit.
    weight[np.abs(weight) == np.abs(weight).max()] = 8
    together = grid.fit(weight, moments).scale
    apart = [
        grid.fit(weight[2 * g : 2 * g + 2], moments[g]).scale
        for g in range(len(moments))
    ]
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-9)


@pytest.mark.parametrize("layer", ["conv1", "layer1.0.conv1", "layer2.1.conv1"])
def test_real_layers_match_their_stored_scale(real_data: Path, layer: str) -> None:
    problem = np.load(real_data / "problems" / f"resnet18.{layer}.npz")
    weight = problem["weight"].astype(np.float64)
    encoding = Grid().fit(weight)
    stored = Encoding(
        np.full((len(weight), 1), float(problem["scale"])), encoding.lo, encoding.hi
    )
    found, reference = (
        ((e.nearest(weight) - weight) ** 2).sum() for e in (encoding, stored)
    )
    assert (encoding.lo.item(), encoding.hi.item()) == (-8, 7)
    assert found <= reference
    assert found <= (1 + 1e-5) * exact_weight_mse(weight.ravel(), 15, 8)
