"""Performance and data profiles: by hand, and what holds of all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from benchmarks.stats.profiles import data_profile, performance_profile
from solvers.errors import InputError

# Four problems, two solvers; the first misses one target, both miss the last.
COSTS = [[1.0, 2.0], [6.0, 3.0], [math.inf, 5.0], [math.inf, math.inf]]

tables = arrays(
    float,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(0, 1e3) | st.just(math.inf),
)
PROFILES = {
    "performance": lambda costs, at: performance_profile(costs, at + 1),
    "data": lambda costs, at: data_profile(costs, np.arange(1.0, len(costs) + 1), at),
}


def test_a_performance_profile_by_hand():
    found = performance_profile(COSTS, [1.0, 1.9, 2.0, 1e9])
    assert found.tolist() == [[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.75, 0.75]]


def test_a_data_profile_by_hand():
    found = data_profile(COSTS, [1.0, 3.0, 5.0, 1.0], [0.0, 1.0, 2.0])
    assert found.tolist() == [[0, 0.25, 0.5], [0, 0.5, 0.75]]


def test_what_costs_nothing_is_infinitely_better():
    assert performance_profile([[0.0, 1.0, 0.0]], [1.0, 1e9]).tolist() == [
        [1, 1],
        [0, 0],
        [1, 1],
    ]


@pytest.mark.parametrize("kind", PROFILES)
@settings(deadline=None)
@given(tables, st.randoms())
def test_profiles_are_shares_that_never_fall(kind, costs, random):
    at = np.array([0.0, 0.5, 1.0, 10.0, 1e300])
    profile = PROFILES[kind](costs, at)
    assert profile.shape == (costs.shape[1], len(at))
    assert (profile >= 0).all()
    assert (profile <= np.isfinite(costs).mean(axis=0)[:, None] + 1e-12).all()
    assert (np.diff(profile, axis=1) >= 0).all()
    order = random.sample(range(costs.shape[1]), costs.shape[1])
    np.testing.assert_array_equal(PROFILES[kind](costs[:, order], at), profile[order])


@settings(deadline=None)
@given(tables, st.integers(-8, 8))
def test_a_performance_profile_has_no_unit_and_someone_is_the_best(costs, exponent):
    profile = performance_profile(costs, [1.0, 2.0])
    # Whole powers of two scale without rounding, but for the smallest of numbers.
    costs = np.where(costs < 1e-290, 0.0, costs)
    scaled = costs * 2.0**exponent
    np.testing.assert_array_equal(
        performance_profile(scaled, [1.0, 2.0]),
        performance_profile(costs, [1.0, 2.0]),
    )
    solved = np.isfinite(costs).any(axis=1).mean()
    assert profile[:, 0].sum() >= solved - 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: performance_profile([1.0], [1.0]), "costs must have 2 axes, not 1"),
        (lambda: performance_profile([[]], [1.0]), "costs is empty"),
        (lambda: performance_profile([[math.nan]], [1.0]), r"costs\[0, 0\] is nan"),
        (lambda: performance_profile([[-1.0]], [1.0]), "at least 0"),
        (lambda: performance_profile([[1.0]], [0.5]), r"factors\[0\] is 0.5; .* 1"),
        (lambda: data_profile([[1.0]], [0.0], [1.0]), "units hold a 0"),
        (lambda: data_profile([[1.0]], [1.0, 2.0], [1.0]), "2 entries for 1 problems"),
    ],
)
def test_bad_tables_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
