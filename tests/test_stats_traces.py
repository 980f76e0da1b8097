"""Gaps over time: targets, primal gaps and integrals of step functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.stats.traces import TARGETS, GapTraces, gaps, log_grid
from solvers.errors import InputError

# Best 2, nearest 12: gaps 1.5, 0.8, 0.1, 0 at 1, 2, 4 and 8 s.
FALLS = [[1.0, 17.0], [2.0, 10.0], [4.0, 3.0], [8.0, 2.0]]


def one(falls=FALLS, end=10.0, best=2.0, nearest=12.0):
    return GapTraces.of([falls], [end], best, nearest)


def test_gaps_by_hand():
    found = gaps([2.0, 3.0, 12.0, 17.0, math.inf], 2.0, 12.0)
    assert found.tolist() == [0.0, 0.1, 1.0, 1.5, math.inf]
    assert gaps([[-5.0, 0.0]], [[-5.0]], 0.0).tolist() == [[0.0, 1.0]]


def test_where_nearest_is_the_best_all_else_is_infinitely_far():
    assert gaps([3.0, 3.0 + 1e-12, 4.0], 3.0, 3.0).tolist() == [0.0, 0.0, math.inf]


def test_what_rounding_may_do_is_no_gap_and_no_new_record():
    assert gaps([0.1 + 0.2, 0.3 - 1e-13], 0.3, 1.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("target", "seconds"), [(0.9, 2.0), (0.8, 2.0), (0.1, 4.0), (0.05, 8.0), (0.0, 8.0)]
)
def test_times_to_targets_by_hand(target, seconds):
    times = one().times_to(target)
    assert times.seconds.tolist() == [seconds]
    assert times.reached.tolist() == [True]


def test_missed_targets_are_censored_at_the_end():
    traces = GapTraces.of([FALLS, None, FALLS, []], [3.0, 5.0, 9.0, 7.0], 2.0, 12.0)
    times = traces.times_to(0.0)
    assert times.seconds.tolist() == [3.0, 5.0, 8.0, 7.0]
    assert times.reached.tolist() == [False, False, True, False]


def test_runs_that_found_nothing():
    traces = GapTraces.of([None, []], 2.0, 0.0, 1.0)
    assert not traces.times_to(0.1).reached.any()
    assert (traces.at([1.0, 2.0]) == 1).all()
    assert traces.integral(2.0).tolist() == [2.0, 2.0]


def test_each_run_has_its_own_reference():
    traces = GapTraces.of([[[1, 5.0]], [[1, 5.0]]], [2, 2], [0.0, 5.0], [10.0, 10.0])
    assert traces.at([1.0]).tolist() == [[0.5], [0.0]]


def test_primal_gaps_by_hand():
    found = one().at([0.5, 1.0, 2.0, 3.0, 4.0, 100.0])
    np.testing.assert_allclose(found, [[1, 1, 0.8, 0.8, 0.1, 0]])


def test_primal_integral_by_hand():
    # 2 s at 1, 2 s at 0.8, 4 s at 0.1, then nothing.
    traces = one()
    np.testing.assert_allclose(traces.integral(100.0), [2 + 1.6 + 0.4])
    np.testing.assert_allclose(traces.integral(5.0, since=3.0), [0.8 + 0.1])


def test_the_first_of_falls_at_one_time_lasts_no_time():
    traces = one([[1.0, 12.0], [1.0, 7.0], [2.0, 2.0]])
    np.testing.assert_allclose(traces.integral(2.0), [1 + 0.5])
    np.testing.assert_allclose(traces.at([1.0]), [[0.5]])


@st.composite
def many(draw):
    seconds = st.floats(0, 10)
    energies = st.floats(0, 2)
    falls = []
    for length in draw(st.lists(st.integers(0, 5), min_size=1, max_size=6)):
        at = draw(st.lists(seconds, min_size=length, max_size=length))
        values = draw(st.lists(energies, min_size=length, max_size=length))
        falls.append(np.column_stack([sorted(at), sorted(values, reverse=True)]))
    return falls


@settings(deadline=None)
@given(many(), st.floats(0, 12), st.floats(0, 12))
def test_integrals_add_up_and_are_those_of_the_gaps(falls, a, b):
    traces = GapTraces.of(falls, 9.0, 0.0, 1.0)
    low, high = sorted((a, b))
    whole = traces.integral(high)
    parts = traces.integral(low) + traces.integral(high, since=low)
    np.testing.assert_allclose(parts, whole, atol=1e-12)
    assert (whole >= -1e-12).all()
    assert (whole <= high + 1e-12).all()
    # Between all times at which anything falls, the gap is constant.
    edges = np.unique(np.concatenate([[0, high], *(f[:, 0] for f in falls)]))
    edges = edges[edges <= high]
    if len(edges) > 1:
        steps = traces.at(edges)[:, :-1] * np.diff(edges)
        np.testing.assert_allclose(steps.sum(axis=1), whole, atol=1e-12)


@settings(deadline=None)
@given(many(), st.permutations(range(6)))
def test_the_order_of_runs_does_not_matter(falls, order):
    order = [i for i in order if i < len(falls)]
    ends = np.linspace(1, 9, len(falls))
    ahead = GapTraces.of(falls, ends, 0.0, 1.0)
    mixed = GapTraces.of([falls[i] for i in order], ends[order], 0.0, 1.0)
    grid = [0.5, 3.0, 8.0]
    np.testing.assert_array_equal(mixed.at(grid), ahead.at(grid)[order])
    np.testing.assert_array_equal(mixed.integral(9.0), ahead.integral(9.0)[order])
    for target in TARGETS:
        there, here = mixed.times_to(target), ahead.times_to(target)
        np.testing.assert_array_equal(there.seconds, here.seconds[order])
        np.testing.assert_array_equal(there.reached, here.reached[order])


@settings(deadline=None)
@given(many(), st.sampled_from(TARGETS))
def test_times_to_targets_are_those_of_one_run_at_a_time(falls, target):
    ends = np.linspace(1, 9, len(falls))
    times = GapTraces.of(falls, ends, 0.0, 1.0).times_to(target)
    for trace, end, seconds, reached in zip(
        falls, ends, times.seconds, times.reached, strict=True
    ):
        hits = [s for s, e in trace if e <= target + 1e-9 and s <= end]
        assert reached == bool(hits)
        assert seconds == (hits[0] if hits else end)


def test_integrals_of_many_random_runs():
    generator = np.random.default_rng(0)
    runs, steps = 20_000, 10
    seconds = np.sort(generator.random((runs, steps)))
    energies = -np.sort(-generator.random((runs, steps)))
    falls = list(np.stack([seconds, energies], axis=2))
    traces = GapTraces.of(falls, 1.0, 0.0, 1.0)
    assert traces.at(log_grid(0.01, 1.0)).shape == (runs, 21)
    # Ten uniform points leave 11 gaps of 1/11 on average, at heights 1, 10/11, …, 1/11.
    np.testing.assert_allclose(traces.integral(1.0).mean(), 6 / 11, atol=0.005)


def test_grids_are_even_in_logarithms_and_end_where_they_should():
    grid = log_grid(0.01, 10.0, 5)
    assert len(grid) == 16
    assert (grid[0], grid[-1]) == (0.01, 10.0)
    np.testing.assert_allclose(np.diff(np.log10(grid)), 0.2)


@pytest.mark.parametrize(
    ("falls", "message"),
    [
        ([[1, 3], [2, 4]], r"falls\[1\] rises at entry 0"),
        ([[2, 4], [1, 3]], r"falls\[1\] goes back in time at entry 0"),
        ([[-1, 3]], r"falls\[1\] holds a negative time"),
        ([[1, 3], [2, math.nan]], r"falls\[1\] holds an energy .* at entry 1"),
        ([[math.inf, 3]], r"falls\[1\] holds a time that is not finite"),
        ([1, 3], r"falls\[1\] must be seconds and energies \[T, 2\]"),
        ([["a", "b"]], r"falls\[1\] must be real numbers"),
        ([[1, 0.5]], r"the energy 0.5 is below the best known energy 2; correct"),
    ],
)
def test_bad_traces_are_refused(falls, message):
    with pytest.raises(InputError, match=message):
        GapTraces.of([FALLS, falls], 10.0, 2.0, 12.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"falls": []}, "falls is empty"),
        ({"ends": -1.0}, r"ends\[0\] is -1.0; it must be finite and at least 0"),
        ({"ends": [1.0, 2.0]}, "ends has 2 entries for 1 runs"),
        ({"best": math.nan}, "best is nan; it must be finite"),
        ({"nearest": 1.0}, "the nearest 1 is below the best known energy 2"),
    ],
)
def test_bad_runs_are_refused(change, message):
    given = {"falls": [FALLS], "ends": 10.0, "best": 2.0, "nearest": 12.0}
    with pytest.raises(InputError, match=message):
        GapTraces.of(**(given | change))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.times_to(1.0), "from 0 to below 1, not 1"),
        (lambda t: t.times_to(math.nan), "from 0 to below 1, not nan"),
        (lambda t: t.at([]), "times is empty"),
        (lambda t: t.at([1.0, 1.0]), "times must increase"),
        (lambda t: t.at([-1.0]), r"times\[0\] is -1.0"),
        (lambda t: t.integral(1.0, since=2.0), "until is 1.0; .* at least 2"),
        (lambda t: t.integral(1.0, since=-1.0), "since must be at least 0"),
        (lambda t: gaps([1.0, 2.0], [1.0, 1.0, 1.0], 1.0), "do not go together"),
        (lambda t: log_grid(1.0, 1.0), r"not \[1.0, 1.0\]"),
        (lambda t: log_grid(1.0, 2.0, 0), "per_decade must be at least 1"),
    ],
)
def test_bad_questions_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(one())
