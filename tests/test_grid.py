"""Grids: every option valid, known values, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qubo_rounding.problem.grid import Encoding, Grid
from solvers.errors import InputError, UnknownNameError

Array = NDArray[np.float64]
RULES = ("minmax", "percentile", "weight-mse", "output-mse")


def spd(n: int, seed: int) -> Array:
    x = np.random.default_rng(seed).normal(0.3, 1, (n, 3 * n))
    return x @ x.T / (3 * n)


def heavy_tailed(rows: int, n: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_t(4, (rows, n))


@pytest.mark.parametrize("rule", ["minmax", "percentile", "weight-mse"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_group_is_fitted_like_a_channel_of_its_columns(
    rule: Any, symmetric: bool
) -> None:
    weight = heavy_tailed(5, 23, seed=10)
    weight[0, 0] = 64
    grid = Grid(
        symmetric=symmetric,
        granularity="group",
        group_size=10,
        scale=rule,
        percentile=90,
    )
    encoding = grid.fit(weight)
    assert encoding.scale.shape == (5, 23)
    channel = Grid(
        symmetric=symmetric, granularity="channel", scale=rule, percentile=90
    )
    for columns in (slice(0, 10), slice(10, 20), slice(20, 23)):
        own = channel.fit(weight[:, columns])
        np.testing.assert_allclose(
            np.broadcast_to(own.scale, weight[:, columns].shape),
            encoding.scale[:, columns],
            rtol=1e-12,
        )
        np.testing.assert_array_equal(
            np.broadcast_to(own.lo, weight[:, columns].shape),
            np.broadcast_to(encoding.lo, weight.shape)[:, columns],
        )


def test_a_group_wider_than_the_matrix_is_the_channel() -> None:
    weight = heavy_tailed(3, 7, seed=11)
    group = Grid(granularity="group", group_size=100).fit(weight)
    channel = Grid(granularity="channel").fit(weight)
    np.testing.assert_array_equal(group.scale, np.repeat(channel.scale, 7, axis=1))


@pytest.mark.parametrize(
    ("options", "scale", "lo", "hi"),
    [
        # max/7 = 1, −min/8 = 0.5: the scale is 1
        ({"symmetric": True}, 1.0, -8, 7),
        ({"symmetric": True, "restricted": True}, 1.0, -7, 7),
        # (7 + 4)/15 with zero point round(4/(11/15)) = 5
        ({"symmetric": False}, 11 / 15, -5, 10),
        ({"symmetric": False, "bits": 8}, 11 / 255, -93, 162),
    ],
)
def test_minmax_by_hand(
    options: dict[str, Any], scale: float, lo: int, hi: int
) -> None:
    weight = np.array([[7.0, -4.0, 1.0], [0.0, 2.0, -3.0]])
    encoding = Grid(scale="minmax", **options).fit(weight)
    np.testing.assert_allclose(encoding.scale, np.full((2, 1), scale), rtol=1e-12)
    assert encoding.lo.tolist() == [[lo]]
    assert encoding.hi.tolist() == [[hi]]


def test_percentile_by_hand_and_at_its_limit() -> None:
    weight = np.arange(-50.0, 51.0)[None]
    cut = Grid(scale="percentile", percentile=90).fit(weight)
    np.testing.assert_allclose(cut.scale, 40 / 7)
    full = Grid(scale="percentile", percentile=100).fit(weight)
    minmax = Grid(scale="minmax").fit(weight)
    np.testing.assert_array_equal(full.scale, minmax.scale)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_encoding_is_valid(rule: Any, data: st.DataObject) -> None:
    rows, n = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    magnitude = data.draw(st.sampled_from([0.0, 1e-320, 1e-200, 1.0, 1e200, 1.5e308]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    weight = rng.uniform(-1, 1, (rows, n)) * magnitude
    weight[rng.random(weight.shape) < 0.2] = 0
    weight[rng.integers(rows)] = 0
    weight = np.abs(weight) if data.draw(st.booleans()) else weight
    symmetric = data.draw(st.booleans())
    granularity: Any = data.draw(st.sampled_from(["tensor", "channel", "group"]))
    grid = Grid(
        bits=data.draw(st.integers(2, 8)),
        symmetric=symmetric,
        restricted=symmetric and data.draw(st.booleans()),
        granularity=granularity,
        group_size=3 if granularity == "group" else None,
        scale=rule,
    )
    refused = ""
    try:
        encoding = grid.fit(weight, spd(n, seed=0))
    except InputError as error:
        refused = str(error)
    if refused:
        # The lowest point of a grid of two bits is at twice the largest weight.
        assert magnitude == 1.5e308
        assert "ends of the grid leave the range" in refused
        return
    assert encoding.scale.shape == (rows, n if granularity == "group" else 1)
    assert (encoding.scale > 0).all()
    assert np.isfinite(encoding.scale).all()
    assert encoding.lo.dtype == encoding.hi.dtype == np.int32
    assert encoding.lo.shape == encoding.hi.shape
    assert (encoding.lo <= 0).all()
    assert (encoding.hi >= 0).all()
    assert (encoding.hi - encoding.lo == 2**grid.bits - 1 - grid.restricted).all()
    rounded = encoding.nearest(weight)
    assert np.isfinite(rounded).all()
    assert (rounded[weight == 0] == 0).all()


def test_a_scale_that_underflows_is_still_positive() -> None:
    weight = np.array([[1e-300], [5e-324]])
    encoding = Grid(granularity="channel", scale="minmax").fit(weight)
    np.testing.assert_allclose(encoding.scale, [[1e-300 / 7], [1.0]])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), exponent=st.sampled_from([-900, -30, 30, 900]))
def test_the_fit_scales_with_the_weights(seed: int, exponent: int) -> None:
    weight = heavy_tailed(3, 11, seed)
    for rule in ("minmax", "weight-mse"):
        grid = Grid(granularity="channel", scale=rule, symmetric=False)
        one, other = grid.fit(weight), grid.fit(np.ldexp(weight, exponent))
        np.testing.assert_array_equal(np.ldexp(one.scale, exponent), other.scale)
        np.testing.assert_array_equal(one.lo, other.lo)


def test_nearest_is_the_nearest_of_all_grid_values() -> None:
    weight = heavy_tailed(4, 9, seed=12) * 3
    encoding = Grid(3, symmetric=False, granularity="channel").fit(weight)
    values = encoding.scale[..., None] * np.arange(-7, 8)
    legal = (np.arange(-7, 8) >= encoding.lo[..., None]) & (
        np.arange(-7, 8) <= encoding.hi[..., None]
    )
    distance = np.where(legal, np.abs(values - weight[..., None]), np.inf).min(axis=2)
    np.testing.assert_allclose(
        np.abs(encoding.nearest(weight) - weight), distance, atol=1e-12
    )


def test_an_asymmetric_grid_serves_one_sided_weights() -> None:
    weight = np.abs(heavy_tailed(4, 50, seed=13))
    encoding = Grid(symmetric=False, granularity="channel").fit(weight)
    assert (encoding.lo == 0).all()
    symmetric = Grid(granularity="channel").fit(weight)
    errors = [((e.nearest(weight) - weight) ** 2).sum() for e in (encoding, symmetric)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits must be an integer from 2 to 8, got 1"),
        ({"bits": 9}, "bits must be an integer from 2 to 8, got 9"),
        ({"bits": 4.0}, r"bits must be an integer from 2 to 8, got 4\.0"),
        ({"bits": True}, "bits must be an integer"),
        ({"symmetric": False, "restricted": True}, "needs a symmetric grid"),
        (
            {"granularity": "chanel"},
            "unknown granularity 'chanel'; did you mean channel",
        ),
        ({"scale": "mse"}, "unknown scale rule 'mse'"),
        ({"saturated": "fix"}, "unknown saturated 'fix'; did you mean fixed"),
        ({"granularity": "group"}, "give group_size exactly with 'group'"),
        ({"group_size": 8}, "give group_size exactly with 'group'"),
        ({"granularity": "group", "group_size": 0}, "of at least 1, got 0"),
        ({"granularity": "group", "group_size": 2.0}, "of at least 1, got 2.0"),
        ({"turns": -1}, "turns must be an integer of at least 0, got -1"),
        ({"turns": 2.0}, r"turns must be an integer of at least 0, got 2\.0"),
        ({"turns": True}, "turns must be an integer of at least 0, got True"),
        ({"percentile": 50}, "over 50 and at most 100, got 50"),
        ({"percentile": 101}, "over 50 and at most 100, got 101"),
        ({"percentile": float("nan")}, "over 50 and at most 100, got nan"),
    ],
)
def test_options_are_validated(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Grid(**options)


def test_unknown_names_have_their_own_type() -> None:
    with pytest.raises(UnknownNameError):
        Grid(scale="minimax")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_must_be_finite(bad: float) -> None:
    weight = np.ones((3, 4))
    weight[1, 2] = bad
    with pytest.raises(InputError, match=rf"weight\[1, 2\] is {bad}"):
        Grid().fit(weight)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (1, 2, 3)])
def test_weights_must_be_a_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected a non-empty"):
        Grid().fit(np.ones(shape))


def test_output_mse_needs_a_fitting_moment() -> None:
    grid, weight = Grid(scale="output-mse"), np.ones((4, 3))
    with pytest.raises(InputError, match="needs the second moment"):
        grid.fit(weight)
    for shape in [(2, 2), (3, 3, 3), (3,), (0, 3, 3)]:
        with pytest.raises(InputError, match="groups dividing the 4 rows"):
            grid.fit(weight, np.ones(shape))
    moment = np.eye(3)
    moment[0, 1] = np.nan
    with pytest.raises(InputError, match=r"moment\[0, 1\] is nan"):
        grid.fit(weight, moment)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_an_encoding_needs_positive_scales(scale: float) -> None:
    lo = np.array([[-8]], dtype=np.int32)
    with pytest.raises(InputError, match="scale must be positive and finite"):
        Encoding(np.array([[scale]]), lo, lo + 15)
    with pytest.raises(InputError, match="lo < hi"):
        Encoding(np.array([[1.0]]), lo, lo)
