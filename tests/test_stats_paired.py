"""Paired comparisons: textbook tests, Holm's correction, wins within a tolerance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.stats.paired import Tally, compare, compare_all, holm, tally
from solvers.errors import InputError

# Darwin's maize, crossed less self-fertilized, in eighths of an inch (Fisher, The
# Design of Experiments, 1935, section 21).
MAIZE = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])


def test_holms_example():
    # Four hypotheses at 0.01, 0.04, 0.03, 0.005: times 3, 1, 2, 4, and never falling.
    found = holm([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holms_correction_is_that_of_statsmodels():
    # multipletests(method="holm") of statsmodels 0.15.0.
    found = holm([0.01, 0.04, 0.03, 0.005, 0.2, 0.03, 0.9])
    assert found == pytest.approx([0.06, 0.15, 0.15, 0.035, 0.4, 0.15, 0.9])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_adjusted_p_values_keep_their_order_and_are_at_most_bonferronis(values, random):
    p = np.array(values)
    adjusted = holm(p)
    assert (p <= adjusted).all()
    assert (adjusted <= np.minimum(p * len(p), 1)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    order = random.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(holm(p[order]), adjusted[order])


def test_darwins_maize():
    # Wilcoxon's exact p-value, and Fisher's 1726 of 32768 permutations.
    found = compare(MAIZE, np.zeros(15))
    assert found.wilcoxon == pytest.approx(0.041259765625)
    assert found.permutation == pytest.approx(1726 / 32768, abs=0.006)
    assert found.difference.value == pytest.approx(314 / 15)
    # The two negative differences have the ranks 14 and 10, all together 120.
    assert found.effect.value == pytest.approx((120 - 2 * 24) / 120)
    assert found.effect.low < found.effect.value < found.effect.high <= 1
    assert found.tally == Tally(2, 0, 13)


def test_few_pairs_are_permuted_in_all_ways():
    found = compare(MAIZE[2:10], np.zeros(8))
    assert found.permutation == pytest.approx(2 / 2**8)
    assert found.wilcoxon == pytest.approx(2 / 2**8)


def test_solvers_that_do_not_differ():
    found = compare([1.0, 2.0], [1.0 + 1e-12, 2.0])
    assert (found.wilcoxon, found.permutation) == (1, 1)
    assert (found.difference.value, found.effect.value) == (0, 0)
    assert found.tally == Tally(0, 2, 0)
    share = found.tally.share()
    assert math.isnan(share.value)
    assert (share.low, share.high) == (0, 1)


def test_a_layer_is_one_pair_however_many_seeds_it_has():
    # Five layers, always better: 2 / 2⁵ at the least, with one seed or with ten.
    once = np.arange(1.0, 6.0)
    often = np.repeat(once, 10)
    alone = compare(np.zeros(5), once)
    layers = compare(np.zeros(50), often, often.astype(int))
    assert layers.wilcoxon == alone.wilcoxon == pytest.approx(2 / 2**5)
    assert layers.permutation == alone.permutation == pytest.approx(2 / 2**5)
    assert compare(np.zeros(50), often).wilcoxon < 1e-6
    assert layers.tally == Tally(50, 0, 0)
    assert layers.effect.value == -1


def test_all_pairs_are_corrected_together():
    generator = np.random.default_rng(0)
    costs = generator.normal(size=(12, 3)) + [0.0, 0.5, 2.0]
    found = compare_all(costs)
    assert list(found) == [(0, 1), (0, 2), (1, 2)]
    alone = [compare(costs[:, i], costs[:, j]) for i, j in found]
    for test in ("wilcoxon", "permutation"):
        adjusted = holm([getattr(pair, test) for pair in alone])
        assert [getattr(pair, test) for pair in found.values()] == adjusted.tolist()
    assert [pair.effect for pair in found.values()] == [pair.effect for pair in alone]


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8)
)
def test_to_exchange_two_solvers_changes_signs_alone(pairs):
    a, b = np.array(pairs, float).T
    one, other = compare(a, b), compare(b, a)
    assert one.wilcoxon == pytest.approx(other.wilcoxon)
    assert one.permutation == pytest.approx(other.permutation)
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert one.effect.value == pytest.approx(-other.effect.value)
    assert one.difference.low == pytest.approx(-other.difference.high)
    assert one.tally == Tally(other.tally.losses, other.tally.ties, other.tally.wins)


@pytest.mark.parametrize(
    ("tolerance", "counts"),
    [
        ({"relative": 0.0}, (2, 1, 2)),
        ({"relative": 1e-3}, (1, 2, 2)),
        ({"relative": 0.0, "absolute": 1.0}, (1, 3, 1)),
    ],
)
def test_wins_within_a_tolerance(tolerance, counts):
    a = [1000.0, 2.0, math.inf, 3.0, math.inf]
    b = [1000.5, 1.0, 4.0, math.inf, math.inf]
    assert tally(a, b, **tolerance) == Tally(*counts)


def test_the_share_of_wins_has_wilsons_interval():
    # statsmodels 0.15.0, proportion_confint(17, 20, method="wilson").
    share = Tally(17, 5, 3).share()
    assert share.value == 0.85
    assert share.low == pytest.approx(0.639581135259243)
    assert share.high == pytest.approx(0.9476312541037833)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holm([]), "p_values is empty"),
        (lambda: holm([0.5, 1.5]), "p_values hold 1.5; they must be from 0 to 1"),
        (lambda: holm([math.nan]), r"p_values\[0\] is nan"),
        (lambda: tally([1.0], [1.0, 2.0]), "b has 2 entries for 1 values of a"),
        (lambda: tally([1.0], [math.nan]), r"b\[0\] is nan; it must be a number"),
        (lambda: tally([1.0], [1.0], relative=1.0), "a tolerance must be relative"),
        (lambda: compare([math.inf], [1.0]), r"a\[0\] is inf; it must be finite"),
        (lambda: compare([1.0], [1.0], ["a", "b"]), "clusters has 2 entries"),
        (lambda: compare_all([[1.0], [2.0]]), "at least two"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
