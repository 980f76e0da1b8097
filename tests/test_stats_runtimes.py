"""Times to a target: textbook examples, closed forms of exponential run times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.stats.runtimes import (
    Times,
    expected_running_time,
    kaplan_meier,
    time_to_solution,
)
from solvers.errors import InputError

# Remissions in weeks of Freireich et al. (1963), as in Klein and Moeschberger,
# Survival Analysis, example 4.1: with 6-MP, censored where negative, and with placebo.
SIX_MP = [6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23]
SIX_MP += [-25, -32, -32, -34, -35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def times(weeks) -> Times:
    weeks = np.array(weeks, float)
    return Times(np.abs(weeks), weeks > 0)


def exponential(runs: int, end: float, tau: float = 2.0) -> Times:
    """Times at the quantiles of an exponential distribution, cut off at the end."""
    drawn = -tau * np.log1p(-(np.arange(runs) + 0.5) / runs)
    return Times(np.minimum(drawn, end), drawn <= end)


def test_kaplan_meier_by_hand():
    curve = kaplan_meier(times(SIX_MP))
    left, expected = 1.0, {}
    # Arrivals of those that were still on their way.
    for week, arrived, of in [
        (6, 3, 21), (7, 1, 17), (10, 1, 15), (13, 1, 12), (16, 1, 11), (22, 1, 7),
        (23, 1, 6),
    ]:  # fmt: skip
        left *= 1 - arrived / of
        expected[week] = 1 - left
    found = dict(zip(curve.seconds, curve.reached, strict=True))
    assert {week: found[week] for week in expected} == pytest.approx(expected)
    assert found[9.0] == found[7.0]


def test_kaplan_meiers_interval_is_that_of_lifelines():
    # KaplanMeierFitter of lifelines 0.30.3: 1 minus the ends of its interval.
    curve = kaplan_meier(times(SIX_MP))
    for week, low, high in [
        (6, 1 - 0.951552, 1 - 0.619718),
        (13, 1 - 0.849066, 1 - 0.431610),
        (23, 1 - 0.680143, 1 - 0.188052),
        (35, 1 - 0.680143, 1 - 0.188052),
    ]:
        at = curve.seconds.tolist().index(week)
        assert curve.low[at] == pytest.approx(low, abs=1e-6)
        assert curve.high[at] == pytest.approx(high, abs=1e-6)


@pytest.mark.parametrize(
    ("weeks", "median", "low", "high"),
    # median_survival_times of lifelines 0.30.3.
    [(SIX_MP, 23, 13, math.inf), (PLACEBO, 8, 4, 11)],
)
def test_medians_and_their_intervals_are_those_of_lifelines(weeks, median, low, high):
    found = kaplan_meier(times(weeks)).median()
    assert (found.value, found.low, found.high) == (median, low, high)


def test_the_curve_has_an_interval_where_none_and_where_all_have_arrived():
    curve = kaplan_meier(times([-1, 2, 3]))
    assert curve.reached.tolist() == pytest.approx([0, 0.5, 1])
    assert (curve.low[0], curve.high[0]) == (0, 0)
    assert 0 < curve.low[1] == curve.low[2]
    assert curve.high[2] == 1
    single = kaplan_meier(times([2]))
    assert (single.low[0], single.reached[0], single.high[0]) == (0, 1, 1)


def test_a_median_that_is_exactly_one_half_is_seen():
    # 1 - Π (1 - 1/n) is a rounding error below 1/2 for some n.
    for runs in range(2, 60, 2):
        assert kaplan_meier(times(np.arange(1, runs + 1))).median().value == runs / 2


def test_nobody_arrives():
    missed = times([-1, -2, -2])
    median = kaplan_meier(missed).median()
    assert (median.value, median.high) == (math.inf, math.inf)
    ert = expected_running_time(missed)
    assert (ert.value, ert.low, ert.high) == (math.inf, math.inf, math.inf)
    tts = time_to_solution(missed)
    assert (tts.seconds.value, tts.seconds.high) == (math.inf, math.inf)
    assert (tts.at, tts.successes, tts.runs) == (2, 0, 3)
    # Three misses leave a chance of success of at most 1 - 0.025^(1/3).
    repeats = math.log(0.01) / (math.log(0.025) / 3)
    assert tts.seconds.low == pytest.approx(2 * repeats)


@pytest.mark.parametrize("end", [0.5, 2.0, 5.0])
def test_restarts_of_exponential_times_take_their_mean(end):
    # Without memory it does not matter when a run is cut off.
    ert = expected_running_time(exponential(4000, end))
    assert ert.value == pytest.approx(2.0, rel=1e-3)
    assert ert.low < 2.0 < ert.high


@pytest.mark.parametrize("at", [0.5, 2.0, 5.0])
def test_exponential_times_to_solution_do_not_depend_on_when_runs_stop(at):
    tts = time_to_solution(exponential(4000, 6.0), at)
    assert tts.seconds.value == pytest.approx(-math.log(0.01) * 2.0, rel=2e-3)
    assert tts.seconds.low < tts.seconds.value < tts.seconds.high


def test_the_time_to_solution_is_the_least_of_all():
    # One in two runs takes 1 s, the others 100 s: it pays to stop after 1 s.
    tts = time_to_solution(times([1, 100, 1, 100]))
    assert (tts.at, tts.successes, tts.runs) == (1, 2, 4)
    assert tts.seconds.value == pytest.approx(math.log(0.01) / math.log(0.5))


def test_the_interval_of_the_time_to_solution_is_that_of_the_share():
    # statsmodels 0.15.0, proportion_confint(3, 10, method="beta").
    tts = time_to_solution(times([1, 1, 1] + 7 * [-4]), 1.0)
    for end, share in [("high", 0.06673951117773447), ("low", 0.6524528500599973)]:
        expected = math.log(0.01) / math.log1p(-share)
        assert getattr(tts.seconds, end) == pytest.approx(expected)


def test_one_run_is_enough_where_all_succeed():
    tts = time_to_solution(times([3, 1, 2]))
    assert (tts.seconds.value, tts.at) == (3, 3)
    assert tts.seconds.low == 3 < tts.seconds.high


def test_targets_that_are_reached_at_once():
    at_once = Times(np.zeros(3), np.ones(3, bool))
    assert expected_running_time(at_once).value == 0
    assert time_to_solution(at_once).seconds.value == 0
    assert kaplan_meier(at_once).median().value == 0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.booleans()), min_size=1, max_size=20
    ).flatmap(lambda runs: st.tuples(st.just(runs), st.permutations(runs)))
)
def test_curves_rise_within_their_intervals_whatever_the_order(orders):
    first, second = (Times(*map(np.array, zip(*runs, strict=True))) for runs in orders)
    curve = kaplan_meier(first)
    assert (np.diff(curve.reached) >= 0).all()
    assert (curve.low >= 0).all()
    assert (curve.low <= curve.reached + 1e-12).all()
    assert (curve.reached <= curve.high + 1e-12).all()
    assert (curve.high <= 1).all()
    median = curve.median()
    assert median.low <= median.value <= median.high
    np.testing.assert_array_equal(kaplan_meier(second).reached, curve.reached)
    assert time_to_solution(second) == time_to_solution(first)
    expected = first.seconds.sum() / max(first.reached.sum(), 1e-300)
    if first.reached.any():
        ert = expected_running_time(first)
        assert ert.value == pytest.approx(expected)
        assert ert.low <= ert.high


@pytest.mark.parametrize(
    ("seconds", "reached", "message"),
    [
        ([], [], "seconds is empty"),
        ([1.0, -2.0], [True, False], r"seconds\[1\] is -2.0"),
        ([math.nan], [True], r"seconds\[0\] is nan"),
        ([math.inf], [False], r"seconds\[0\] is inf; it must be finite"),
        ([1.0], [1], "reached must be booleans"),
        ([1.0], [True, False], "reached has 2 entries for 1 times"),
    ],
)
def test_bad_times_are_refused(seconds, reached, message):
    with pytest.raises(InputError, match=message):
        Times(np.array(seconds), np.array(reached, int if reached == [1] else bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": -1.0}, "at must be at least 0 and finite, not -1"),
        ({"at": math.nan}, "at must be at least 0 and finite, not nan"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, not 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        time_to_solution(times([1.0]), **options)
