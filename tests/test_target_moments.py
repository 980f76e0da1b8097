"""Moments of inputs and errors against the definitions, position by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubo_rounding.problem.target_moments import TargetMoments, TargetSums
from solvers.errors import InputError

ROWS, N, GROUPS = 6, 4, 2


def _data(seed: int, positions: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((GROUPS, N, positions)) + 1.0
    e = rng.standard_normal((ROWS, positions)) + 0.5
    weights = rng.integers(0, 3, positions).astype(float)
    weights[0] = 1.0
    return x, e, weights


def _moments(seed: int, weighted: bool = False) -> TargetMoments:
    x, e, weights = _data(seed)
    sums = TargetSums(N, ROWS, GROUPS)
    for part in (slice(0, 17), slice(17, 50)):
        own = weights[part] if weighted else None
        sums.update(x[:, :, part], e[:, part], own)
    return sums.moments()


def _output(change: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (change.reshape(GROUPS, -1, N) @ x).reshape(ROWS, -1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.booleans())
def test_the_error_is_that_of_the_outputs(seed, weighted) -> None:
    x, e, weights = _data(seed)
    weights = weights if weighted else np.ones(len(weights))
    change = np.random.default_rng(seed + 1).standard_normal((ROWS, N))
    moments = _moments(seed, weighted)
    left = e - _output(change, x)
    expected = (weights * left**2).sum(axis=1) / weights.sum()
    np.testing.assert_allclose(moments.error(change), expected)
    # The best bias takes the mean away.
    mean = (weights * left).sum(axis=1) / weights.sum()
    np.testing.assert_allclose(moments.bias_shift(change), mean)
    spread = (weights * (left - mean[:, None]) ** 2).sum(axis=1) / weights.sum()
    np.testing.assert_allclose(moments.centred().error(change), spread)


def test_masked_positions_count_as_if_they_were_not_there() -> None:
    x, e, _ = _data(3)
    mask = np.arange(50) % 3 != 0
    sums, kept = TargetSums(N, ROWS, GROUPS), TargetSums(N, ROWS, GROUPS)
    sums.update(x, e, mask.astype(float))
    kept.update(x[:, :, mask], e[:, mask])
    a, b = sums.moments(), kept.moments()
    assert a.count == b.count == mask.sum()
    for name in ("second_moment", "pull", "square", "input_mean", "error_mean"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name))


def test_the_shift_minimises_the_error() -> None:
    moments = _moments(5)
    shift = moments.shift(1e-12)
    least = moments.error(shift)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = shift + 0.01 * rng.standard_normal(shift.shape)
        assert (moments.error(other) >= least).all()


def test_errors_may_be_left_out_and_groups_must_fit() -> None:
    x, _, _ = _data(0)
    sums = TargetSums(N, ROWS, GROUPS)
    sums.update(x)
    assert not sums.moments().pull.any()
    with pytest.raises(InputError, match="3 groups do not divide 4 rows"):
        TargetSums(2, 4, 3)
    with pytest.raises(InputError, match="zero positions"):
        TargetSums(2, 4).moments()


def test_sums_of_parts_are_the_sums_of_all() -> None:
    x, e, weights = _data(7)
    parts = [TargetSums(N, ROWS, GROUPS) for _ in range(2)]
    for k, part in enumerate((slice(0, 17), slice(17, 50))):
        parts[k].update(x[:, :, part], e[:, part], weights[part])
    parts[0].merge(parts[1])
    merged, whole = parts[0].moments(), _moments(7, weighted=True)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.second_moment, whole.second_moment)
    np.testing.assert_allclose(merged.pull, whole.pull)
