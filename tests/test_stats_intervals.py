"""Weighted figures by hand, and how often bootstrap intervals hold."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.stats.intervals import bootstrap, bootstrap_band, quartile_band
from benchmarks.stats.weighted import (
    mean,
    median,
    rank_biserial,
    ratio,
    shifted_geometric_mean,
)
from solvers.errors import InputError

VALUES = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
COUNTS = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 0], [0, 3, 0, 0, 1], [0, 0, 0, 1, 1]])

numbers = st.floats(0, 1e3).map(lambda x: round(x, 3))


@pytest.mark.parametrize(
    ("statistic", "plain"),
    [
        (mean, np.mean),
        (median, np.median),
        (
            lambda v, w=None: shifted_geometric_mean(v, 10.0, w),
            lambda v: scipy.stats.gmean(v + 10) - 10,
        ),
    ],
    ids=["mean", "median", "shifted_geometric_mean"],
)
def test_weights_are_how_often_values_count(statistic, plain):
    repeated = [np.repeat(VALUES, counts) for counts in COUNTS]
    found = statistic(VALUES, COUNTS.astype(float))
    np.testing.assert_allclose(found, [plain(values) for values in repeated])
    np.testing.assert_allclose(statistic(VALUES), plain(VALUES))
    both = statistic(np.stack([VALUES, 2 * VALUES], axis=1), COUNTS.astype(float))
    np.testing.assert_allclose(both[:, 0], found)
    assert both.shape == (4, 2)


def test_shifted_geometric_means_by_hand():
    # (0 + 1)(3 + 1)(15 + 1) = 4³
    assert shifted_geometric_mean([0.0, 3.0, 15.0], 1.0) == pytest.approx(3)
    assert shifted_geometric_mean([2.0, 8.0], 0.0) == pytest.approx(4)


def test_infinite_values_come_last_in_medians():
    missed = math.inf
    assert median([1.0, missed, 2.0]) == 2
    assert median([1.0, missed, missed]) == missed
    assert median([1.0, 2.0, missed, missed]) == missed


def test_ratios_of_equal_figures_are_one():
    a, b = np.array([2.0, 0.0, math.inf, 1.0, 0.0]), np.array([4.0, 0, math.inf, 0, 1])
    assert ratio(a, b).tolist() == [0.5, 1, 1, math.inf, 0]


def test_rank_biserial_correlations_by_hand():
    # Ranks 1, 2.5, 2.5, 4; the zero has none: (4 + 2.5 - 2.5 - 1) / 10.
    assert rank_biserial([0.0, -1.0, 2.0, -2.0, 3.0]) == pytest.approx(0.3)
    assert rank_biserial([0.0, 0.0]) == 0
    assert rank_biserial([-1.0, -3.0]) == -1
    assert rank_biserial([[-1.0, 2.0], [-3.0, 2.0]]).tolist() == [-1, 1]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 3)), min_size=1))
def test_rank_biserial_correlations_are_those_of_ranks(pairs):
    differences, counts = np.array(pairs).T
    repeated = np.repeat(differences, counts)
    repeated = repeated[repeated != 0]
    ranks = scipy.stats.rankdata(np.abs(repeated))
    expected = (ranks * np.sign(repeated)).sum() / ranks.sum() if ranks.size else 0
    assert rank_biserial(differences, counts.astype(float)) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8), st.randoms())
def test_figures_do_not_depend_on_the_order(values, random):
    other = random.sample(values, len(values))
    assert median(other) == median(values)
    assert mean(other) == pytest.approx(float(mean(values)))
    found = shifted_geometric_mean(values, 1.0)
    assert shifted_geometric_mean(other, 1.0) == pytest.approx(float(found))
    assert min(values) - 1e-9 <= found <= mean(values) + 1e-9


def test_quartiles_of_runs():
    band = quartile_band(np.arange(5.0)[:, None] * [1, 2])
    assert band.value.tolist() == [2, 4]
    assert band.low.tolist() == [1, 2]
    assert band.high.tolist() == [3, 6]


def test_without_clusters_the_interval_is_scipys():
    values = np.random.default_rng(0).exponential(size=200)
    ours = bootstrap(lambda w: mean(values, w), 200)
    other = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    # Percentiles of a few thousand resamples vary by some hundredths of their distance.
    width = other.high - other.low
    assert ours.low == pytest.approx(other.low, abs=0.08 * width)
    assert ours.high == pytest.approx(other.high, abs=0.08 * width)


def _covers(generator: np.random.Generator, clustered: bool) -> bool:
    """Whether the interval of a simulated benchmark holds the true mean, 0."""
    layers, seeds = 25, 4
    effects = generator.normal(size=(layers, 1))
    values = (effects + 0.5 * generator.normal(size=(layers, seeds))).ravel()
    labels = np.repeat(np.arange(layers), seeds) if clustered else None
    seed = int(generator.integers(1 << 30))
    found = bootstrap(
        lambda w: mean(values, w), len(values), labels, resamples=300, seed=seed
    )
    return found.low <= 0 <= found.high


def test_only_clustered_intervals_hold_as_often_as_they_say():
    generator = np.random.default_rng(0)
    clustered = np.mean([_covers(generator, True) for _ in range(300)])
    plain = np.mean([_covers(generator, False) for _ in range(300)])
    # 95 %, less 2 % of the percentile method with 25 layers; ± 4 % of 300 repetitions.
    assert 0.89 < clustered < 0.985
    assert plain < 0.8


def test_clusters_of_any_size_are_drawn_whole():
    # One cluster of three 0s, one of a single 8: means of two draws of clusters.
    values, labels = np.array([0.0, 8, 0, 0]), ["a", "b", "a", "a"]
    seen = []

    def statistic(weights):
        seen.append(weights)
        return mean(values, weights)

    found = bootstrap(statistic, 4, labels)
    assert (found.value, found.low, found.high) == (2, 0, 8)
    drawn = seen[0]
    total = drawn.sum(axis=1)
    assert set(total) == {2, 4, 6}
    # Either cluster twice in a quarter of the resamples.
    assert (total == 2).mean() == pytest.approx(0.25, abs=0.05)
    assert drawn[total == 4, 1].tolist() == [1.0] * int((total == 4).sum())


def test_pairs_stay_together():
    a = np.random.default_rng(0).exponential(size=50)
    found = bootstrap(lambda w: ratio(mean(2 * a, w), mean(a, w)), 50)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))
    halves = bootstrap(lambda w: ratio(median(a, w), median(2 * a, w)), 50)
    assert (halves.low, halves.high) == pytest.approx((0.5, 0.5))


def test_intervals_of_medians():
    def ends(values):
        found = bootstrap(partial(median, values), len(values))
        return found.low, found.high

    low, high = ends(np.arange(1.0, 11))
    # Of the binomial: about the second and the ninth of ten.
    assert 1.5 <= low <= 3.5
    assert 7.5 <= high <= 9.5
    assert ends([2.0] * 4) == (2, 2)
    assert ends([math.inf] * 3) == (math.inf, math.inf)
    assert ends([1.0, 1, 1, math.inf, math.inf]) == (1, math.inf)


def test_bands_are_intervals_point_by_point():
    values = np.random.default_rng(0).random((30, 4))
    labels = np.arange(30) // 5
    band = bootstrap_band(lambda w: median(values, w), 30, labels, seed=3)
    for at in range(4):
        column = values[:, at]
        alone = bootstrap(
            lambda w, column=column: median(column, w),
            30,
            labels,
            seed=3,
        )
        assert (band.value[at], band.low[at], band.high[at]) == (
            alone.value,
            alone.low,
            alone.high,
        )


def test_the_seed_decides():
    values = np.random.default_rng(0).random(30)
    one, again, other = (
        bootstrap(lambda w: mean(values, w), 30, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again != other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "values is empty"),
        (lambda: mean([1.0, math.nan]), r"values\[1\] is nan; it must be finite"),
        (lambda: mean([math.inf]), r"values\[0\] is inf"),
        (lambda: mean(1.0), "values must have 1 or 2 axes, not 0"),
        (lambda: mean([1.0], np.ones(2)), "2 weights for 1 values"),
        (lambda: median([-math.inf]), r"values\[0\] is -inf; it must be a number"),
        (lambda: shifted_geometric_mean([1.0], -1.0), "shift must be at least 0"),
        (lambda: shifted_geometric_mean([-1.0], 2.0), "at least 0"),
        (lambda: shifted_geometric_mean([0.0], 0.0), "needs a shift above 0"),
        (lambda: rank_biserial([]), "values is empty"),
        (lambda: quartile_band([1.0]), "gaps must have 2 axes, not 1"),
        (lambda: bootstrap(lambda w: w[:, 0], 0), "size must be at least 1"),
        (lambda: bootstrap(lambda w: w[:, 0], 2, [1]), "1 entries for 2 values"),
        (lambda: bootstrap(lambda w: w[:, 0], 2, [[1, 2]]), "must have 1 axis"),
        (lambda: bootstrap(lambda w: w[:, 0], 2, level=95), "between 0 and 1, not 95"),
        (lambda: bootstrap(lambda w: w, 2), "use bootstrap_band"),
        (lambda: bootstrap_band(lambda w: w[:, 0], 2), "use bootstrap$"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
