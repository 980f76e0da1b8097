"""Scale and codes in turn: the closed scale, the rounds, what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubo_rounding.problem import RoundingProblem, fields
from qubo_rounding.problem.grid import Encoding, Grid
from qubo_rounding.problem.in_turn import best_encoding, solve_in_turn
from solvers import InputError, parse_solver
from solvers.testing import brute_force

GRIDS = {
    f"{granularity}{' asymmetric' * (not symmetric)}": {
        "granularity": granularity,
        "group_size": 3 if granularity == "group" else None,
        "symmetric": symmetric,
    }
    for granularity in ("tensor", "channel", "group")
    for symmetric in (True, False)
}
each_grid = pytest.mark.parametrize("kind", GRIDS)


def make(
    kind: str, rows: int = 4, n: int = 7, seed: int = 0, blocks: int = 0, bits: int = 2
) -> tuple[RoundingProblem, Grid]:
    """A problem with gradient and constant, as after other quantized layers."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((max(blocks, 1), n, 3 * n)) + 0.7
    moment = x @ x.transpose(0, 2, 1) / (3 * n)
    grid = Grid(bits=bits, **GRIDS[kind])
    problem = RoundingProblem.on_grid(
        rng.standard_t(4, (rows, n)),
        grid,
        moment if blocks else moment[0],
        gradient=0.3 * rng.standard_normal((rows, n)),
        constant=rng.uniform(3, 4, rows),
    )
    return problem, grid


def solving(text: str) -> Callable[[RoundingProblem], Any]:
    solver = parse_solver(text)
    return lambda p: p.join([solver.solve(q).states for q in p.to_qubos()])


def some_codes(problem: RoundingProblem, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = problem.weight.shape
    lo, hi = np.broadcast_to(problem.lo, shape), np.broadcast_to(problem.hi, shape)
    near = np.round(problem.weight / problem.scale) + rng.integers(-1, 2, shape)
    return np.clip(near, lo, hi).astype(np.int64)


def errors_at(problem: RoundingProblem, rounded: np.ndarray) -> np.ndarray:
    """The error of each row [R], by its definition."""
    errors = []
    count = problem.rows // len(problem.blocks)
    for r, error in enumerate(rounded - problem.weight):
        value = error @ problem.blocks[r // count] @ error
        value += 0 if problem.gradient is None else problem.gradient[r] @ error
        errors.append(value + (0 if problem.constant is None else problem.constant[r]))
    return np.array(errors)


class TestBestEncoding:
    @each_grid
    @pytest.mark.parametrize("blocks", [0, 2, 4])
    def test_no_other_scale_is_better(self, kind, blocks):
        """Around the closed scales and zero points, dense in every direction."""
        problem, grid = make(kind, blocks=blocks)
        codes = some_codes(problem)
        found = best_encoding(problem, codes, grid)
        moved = codes + (found.lo - problem.lo)
        best = errors_at(problem, found.scale * moved)
        before = errors_at(problem, problem.scale * codes)
        assert best.sum() < before.sum()
        if grid.granularity != "tensor":
            assert (best <= before * (1 + 1e-6)).all()
        shape = problem.weight.shape
        # Beside a scale that would not be positive, others are the best: see below.
        inner = (found.scale != np.float32(problem.scale)).all(axis=1)
        assert inner.any()
        best = best[inner]
        for c in grid.column_groups(problem.n):
            factor = np.ones(shape[1])
            for times in np.linspace(0.5, 1.5, 101):
                factor[c] = times
                other = errors_at(problem, found.scale * factor * moved)[inner]
                assert best.sum() <= other.sum() + 1e-6
                if grid.granularity != "tensor":
                    assert (best <= other + 1e-6).all()

    @each_grid
    def test_finds_the_grid_that_weights_lie_on(self, kind):
        problem, grid = make(kind, n=9)
        codes = some_codes(problem, seed=3)
        steps = np.ones(problem.weight.shape, np.int64) * (not grid.symmetric)
        room = problem.lo + steps <= 0
        steps = np.where(np.broadcast_to(room, steps.shape), steps, 0)
        weight = 1.25 * problem.scale * (codes + steps)
        exact = replace(problem, weight=weight, gradient=None, constant=None)
        found = best_encoding(exact, codes, grid)
        np.testing.assert_allclose(
            found.scale * (codes + found.lo - problem.lo), weight, rtol=1e-6, atol=1e-6
        )

    def test_one_row_is_one_tensor(self):
        for end in ("", " asymmetric"):
            problem, by_tensor = make("tensor" + end, rows=1)
            codes = some_codes(problem)
            by_channel = replace(by_tensor, granularity="channel")
            one = best_encoding(problem, codes, by_tensor)
            other = best_encoding(problem, codes, by_channel)
            np.testing.assert_array_equal(one.scale, other.scale)
            np.testing.assert_array_equal(one.lo, other.lo)

    def test_a_group_as_wide_as_the_row_is_the_channel(self):
        problem, channel = make("channel")
        group = replace(channel, granularity="group", group_size=7)
        codes = some_codes(problem)
        wide = best_encoding(problem, codes, group).scale
        assert wide.shape == (4, 7)
        one = best_encoding(problem, codes, channel).scale
        np.testing.assert_array_equal(wide, np.repeat(one, 7, axis=1))

    def test_zero_stays_on_the_grid(self):
        """Weights far from zero pull the grid along, but not past its ends."""
        problem, grid = make("channel asymmetric")
        for offset in (-50.0, 50.0):
            far = replace(problem, weight=problem.weight + offset)
            found = best_encoding(far, some_codes(problem), grid)
            assert (found.lo <= 0).all()
            assert (found.hi >= 0).all()
            assert (found.hi - found.lo == 3).all()

    @each_grid
    def test_what_says_nothing_keeps_its_scale(self, kind):
        """Codes of zero, and dead inputs."""
        problem, grid = make(kind, n=6)
        codes = some_codes(problem)
        codes[1], codes[2, :3] = 0, 0
        found = best_encoding(problem, codes, grid).scale
        assert np.isfinite(found).all()
        assert (found > 0).all()
        if grid.symmetric and grid.granularity != "tensor":
            kept = np.float32(problem.scale)
            np.testing.assert_array_equal(found[1], kept[1])
        if grid.symmetric and grid.granularity == "group":
            np.testing.assert_array_equal(found[2, :3], kept[2, :3])
            assert (found[2, 3:] != kept[2, 3:]).all()
        dead = replace(problem, moment=np.zeros((6, 6)), gradient=None)
        np.testing.assert_allclose(
            np.broadcast_to(best_encoding(dead, codes, grid).scale, (4, 6)),
            np.broadcast_to(problem.scale, (4, 6)),
            rtol=1e-6,
        )

    def test_groups_that_cannot_be_told_apart_share_the_change(self):
        """Two groups with the same inputs and codes: a singular system."""
        problem, _ = make("channel", rows=1, n=2)
        grid = Grid(2, granularity="group", group_size=1)
        twins = replace(
            problem,
            weight=[[1.0, 3.0]],
            scale=[[1.0, 1.0]],
            moment=np.ones((2, 2)),
            gradient=None,
        )
        found = best_encoding(twins, np.ones((1, 2), int), grid)
        np.testing.assert_allclose(found.scale, [[2.0, 2.0]])

    def test_beside_a_scale_that_is_left_alone_the_others_are_the_best(self):
        """A group's best scale is negative, the other's is then found without it."""
        problem, _ = make("channel", rows=1, n=2)
        grid = Grid(2, granularity="group", group_size=1)
        odd = replace(
            problem,
            weight=[[-1.0, 3.0]],
            scale=[[0.5, 1.0]],
            moment=[[1.0, 0.5], [0.5, 1.0]],
            gradient=None,
        )
        found = best_encoding(odd, np.ones((1, 2), int), grid)
        # (s - w) M = 0 in the second column, with the first error 1.5.
        np.testing.assert_allclose(found.scale, [[0.5, 3.0 - 0.75]])

    def test_a_scale_that_would_be_negative_is_left_alone(self):
        problem, grid = make("channel", rows=2)
        codes = -some_codes(problem)
        assert (codes != 0).any(axis=1).all()
        plain = replace(problem, gradient=None, weight=problem.scale * -codes)
        found = best_encoding(plain, codes, grid)
        np.testing.assert_array_equal(found.scale, np.float32(problem.scale))

    @pytest.mark.parametrize("magnitude", [1e-80, 1e-42, 1e60])
    def test_scales_that_float32_cannot_hold(self, magnitude):
        problem, grid = make("channel")
        codes = some_codes(problem)
        one = best_encoding(replace(problem, gradient=None), codes, grid)
        other = replace(
            problem,
            weight=problem.weight * magnitude,
            scale=problem.scale * magnitude,
            gradient=None,
        )
        found = best_encoding(other, codes, grid)
        np.testing.assert_allclose(found.scale, one.scale * magnitude, rtol=1e-6)


@each_grid
@pytest.mark.parametrize("text", ["kbest", "floor", "window[solver=kbest]", "gptq"])
def test_the_error_never_rises(kind, text):
    problem, grid = make(kind, rows=6, n=12, seed=1)
    turns = solve_in_turn(problem, grid, solving(text), 6)
    assert (np.diff(turns.errors) <= 0).all()
    found = turns.problem
    assert found.meta == {**problem.meta, "turns": len(turns.errors) - 1}
    final = errors_at(found, found.decode(turns.states))
    assert final.sum() == pytest.approx(turns.errors[-1])
    np.testing.assert_array_equal(found.scale, np.float32(found.scale))
    lo, hi = np.broadcast_arrays(found.lo, found.hi)
    assert ((lo <= 0) & (hi >= 0) & (hi - lo == 3)).all()
    for name in ("weight", "moment", "gradient", "constant"):
        np.testing.assert_array_equal(getattr(found, name), getattr(problem, name))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(sorted(GRIDS)))
def test_no_worse_than_the_best_at_the_first_scale(seed, kind):
    """With exact answers, by brute force; rows that share no scale one by one."""
    problem, grid = make(kind, rows=3, n=5, seed=seed)
    # A weight on a grid point would stand between others if the scale were rounded.
    problem = replace(problem, scale=np.float32(problem.scale).astype(float))

    def exactly(p: RoundingProblem) -> Any:
        return p.join([brute_force(q)[0] for q in p.to_qubos()])

    turns = solve_in_turn(problem, grid, exactly, 4)
    every = np.array(list(itertools.product((0, 1), repeat=5)), np.uint8)
    free = problem.fixed if problem.fixed is not None else np.full((3, 5), -1)
    states = [np.where(free < 0, x, free) for x in every]
    fixed = np.min([errors_at(problem, problem.decode(x)) for x in states], axis=0)
    assert turns.errors[-1] <= fixed.sum() * (1 + 1e-9)
    if grid.granularity != "tensor":
        found = errors_at(turns.problem, turns.problem.decode(turns.states))
        assert (found <= fixed + 1e-9 * abs(fixed)).all()


@each_grid
def test_it_is_a_gain(kind):
    """From a scale that clips nothing, as many start with."""
    problem, grid = make(kind, rows=8, n=12)
    coarse = replace(grid, scale="minmax")
    start = RoundingProblem.on_grid(problem.weight, coarse, problem.moment)
    errors = solve_in_turn(start, coarse, solving("kbest"), 8).errors
    assert errors[-1] < 0.95 * errors[0]


@each_grid
def test_scales_with_the_weights(kind):
    problem, grid = make(kind, rows=5, n=8)
    plain = replace(problem, gradient=None, constant=None)
    large = replace(plain, weight=plain.weight * 2**9, scale=plain.scale * 2**9)
    one, other = (solve_in_turn(p, grid, solving("kbest"), 3) for p in (plain, large))
    np.testing.assert_array_equal(one.problem.scale * 2**9, other.problem.scale)
    np.testing.assert_array_equal(one.states, other.states)
    np.testing.assert_array_equal(one.problem.lo, other.problem.lo)


def test_rounds_are_those_of_the_grid():
    problem, grid = make("channel")
    calls: list[RoundingProblem] = []

    def solve(p: RoundingProblem) -> Any:
        calls.append(p)
        return solving("floor")(p)

    for rounds, expected in ((None, 2), (0, 1), (1, 2)):
        calls.clear()
        turns = solve_in_turn(problem, replace(grid, turns=1), solve, rounds)
        assert len(calls) == len(turns.errors) == expected
    assert calls[0].digest != calls[1].digest
    assert solve_in_turn(problem, grid, solve).errors.shape == (1,)


def test_ends_where_scales_stay():
    """Weights that lie on their grid already."""
    problem, grid = make("channel")
    single = np.float32(problem.scale).astype(float)
    codes = some_codes(problem)
    lying = replace(problem, weight=single * codes, scale=single, gradient=None)
    turns = solve_in_turn(lying, grid, lambda p: codes - p.base, 9)
    assert len(turns.errors) == 1
    np.testing.assert_array_equal(turns.problem.scale, single)


def test_rows_that_got_worse_keep_scale_and_codes():
    problem, grid = make("channel asymmetric", rows=4, n=9)
    good, answers = solving("kbest"), []

    def solve(p: RoundingProblem) -> Any:
        states = good(p)
        if answers:
            states = states.copy()
            # As wrong as can be in the first two rows.
            states[:2] = (p.lo + 3 - p.base)[:2]
        answers.append((p, states))
        return states

    turns = solve_in_turn(problem, grid, solve, 1)
    (first, before), (second, after) = answers
    worse = second.local_mse(after) >= first.local_mse(before)
    assert worse[:2].all()
    assert not worse.all()
    for row, kept in enumerate(worse):
        p, states = (first, before) if kept else (second, after)
        np.testing.assert_array_equal(turns.problem.scale[row], p.scale[row])
        np.testing.assert_array_equal(turns.states[row], states[row])
        np.testing.assert_array_equal(turns.problem.base[row], p.base[row])


def test_a_tensor_is_judged_as_a_whole():
    problem, grid = make("tensor", rows=4, n=9)
    good, answers = solving("kbest"), []

    def solve(p: RoundingProblem) -> Any:
        states = good(p) if not answers else np.zeros((4, 9), np.uint8)
        answers.append((p, states))
        return states

    turns = solve_in_turn(problem, grid, solve, 1)
    assert turns.errors[0] == turns.errors[1]
    np.testing.assert_array_equal(turns.states, answers[0][1])
    np.testing.assert_array_equal(turns.problem.scale, answers[0][0].scale)


def test_large_moments_are_checked_once(monkeypatch):
    problem, grid = make("channel")

    def refuse(*_: Any) -> None:
        raise AssertionError("the moment is looked through again")

    monkeypatch.setattr(fields, "require_semidefinite", refuse)
    turns = solve_in_turn(problem, grid, solving("kbest"), 2)
    assert turns.problem.moment is problem.moment


class TestOnEncoding:
    def test_is_the_problem_posed_there(self):
        problem, _ = make("group asymmetric")
        assert problem.digest
        assert problem.base.shape == (4, 7)
        encoding = Encoding(problem.scale * 1.5, problem.lo - 1, problem.hi - 1)
        found = problem.on_encoding(encoding)
        fresh = replace(problem, scale=encoding.scale, lo=encoding.lo, hi=encoding.hi)
        assert found.digest == fresh.digest != problem.digest
        np.testing.assert_array_equal(found.base, fresh.base)
        np.testing.assert_array_equal(found.fixed, fresh.fixed)
        assert found.meta == problem.meta
        assert not found.scale.flags.writeable

    @pytest.mark.parametrize(
        ("scale", "message"),
        [
            (np.ones((2, 1)), "scale must have shape"),
            (np.full((4, 1), 1e101), "within 1e"),
        ],
    )
    def test_refused(self, scale, message):
        problem, _ = make("channel")
        with pytest.raises(InputError, match=message):
            problem.on_encoding(Encoding(scale, problem.lo, problem.hi))


class TestRefuses:
    def test_the_whole_layer_as_one_row(self):
        problem, grid = make("tensor", rows=2, n=3)
        whole = replace(problem, moment=np.kron(np.eye(2), problem.moment))
        with pytest.raises(InputError, match=r"this problem's is that of the whole l"):
            solve_in_turn(whole, grid, solving("kbest"), 1)

    @pytest.mark.parametrize(
        ("kind", "other", "message"),
        [
            ("channel", "tensor", "scale is not the same for each tensor"),
            ("group", "channel", "scale is not the same for each channel"),
            ("channel asymmetric", "tensor", "scale is not the same for each tensor"),
        ],
    )
    def test_another_grid(self, kind, other, message):
        problem, _ = make(kind)
        with pytest.raises(InputError, match=message):
            solve_in_turn(problem, make(other)[1], solving("kbest"), 1)

    def test_zero_points_of_another_grid(self):
        problem, grid = make("tensor asymmetric")
        low = np.array([[-1], [-1], [-1], [-2]])
        mixed = replace(problem, lo=low, hi=low + 3)
        with pytest.raises(InputError, match="lo is not the same for each tensor"):
            solve_in_turn(mixed, grid, solving("kbest"), 1)

    def test_states_of_another_shape(self):
        problem, grid = make("tensor")
        with pytest.raises(InputError, match="states must have shape"):
            solve_in_turn(problem, grid, lambda p: np.zeros((1, 2), np.uint8), 1)
