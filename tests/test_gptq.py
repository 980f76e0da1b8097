"""GPTQ on the whole grid, against the textbook."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qubo_rounding.problem import RoundingProblem
from solvers.budget import Budget
from solvers.decoders.gptq import Gptq
from solvers.errors import InputError
from solvers.qubo import QuboBatch
from solvers.testing import example_batch

pytestmark = pytest.mark.arithmetic


def problem(
    rows: int, n: int, seed: int = 0, lo: int = -8, hi: int = 7, **options: object
) -> RoundingProblem:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3 * n, n)).cumsum(axis=1) + rng.normal(2, 1, (3 * n, 1))
    return RoundingProblem(
        weight=rng.uniform(lo + 0.1, hi - 0.1, (rows, n)) * 0.1,
        scale=np.full((rows, 1), 0.1),
        lo=np.int32(lo),
        hi=np.int32(hi),
        moment=x.T @ x / len(x),
        **options,
    )


def textbook(
    p: RoundingProblem, damping: float, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frantar et al. 2022, section 3, one weight at a time with explicit inverses.

    Grid indices [R, n] and ``sum_i ((w_i - q_i) / U_ii)^2`` [R].
    """
    H = p.moment + damping * p.moment.diagonal().mean() * np.eye(p.n)
    w = p.weight / p.scale
    q = np.zeros_like(w)
    loss = np.zeros(p.rows)
    left = list(order)
    for i in order:
        inverse = np.linalg.inv(H[np.ix_(left, left)])[0]
        q[:, i] = np.clip(np.ceil(w[:, i] - 0.5), p.lo, p.hi)
        error = (w[:, i] - q[:, i]) / inverse[0]
        loss += error**2 * inverse[0]
        w[:, left] -= error[:, None] * inverse
        left.remove(i)
    return q, loss


@pytest.mark.parametrize("order", ["natural", "activation"])
@pytest.mark.parametrize("bits", [2, 4])
def test_is_the_textbook(order, bits):
    p = problem(6, 70, lo=-(2 ** (bits - 1)), hi=2 ** (bits - 1) - 1)
    (qubo,) = p.to_qubos()
    found = Gptq(order=order, damping=1e-5).solve(qubo)
    wanted, _ = textbook(
        p,
        1e-5,
        np.arange(70)
        if order == "natural"
        else np.argsort(-p.moment.diagonal(), kind="stable"),
    )
    assert found.states.dtype == np.int16
    np.testing.assert_array_equal(p.base + found.states, wanted)
    np.testing.assert_allclose(found.energies, p.local_mse(found.states), rtol=1e-9)
    outside = (found.states < 0) | (found.states > 1)
    assert outside.any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), damping=st.floats(1e-4, 2))
def test_loss_of_the_steps_is_the_error(seed, n, damping):
    """``sum((w - q) / U_ii)^2 = (q - w)^T H' (q - w)`` for the answer."""
    p = problem(3, n, seed)
    _, loss = textbook(p, damping, np.arange(n))
    (qubo,) = p.to_qubos()
    states = Gptq(order="natural", damping=damping).solve(qubo).states
    error = p.base + states - p.weight / p.scale
    damped = p.moment + damping * p.moment.diagonal().mean() * np.eye(n)
    np.testing.assert_allclose(((error @ damped) * error).sum(axis=1), loss, rtol=1e-6)


@pytest.mark.parametrize("saturated", ["fixed", "free"])
def test_saturated_weights_keep_their_targets(saturated):
    """They end at the grid's end, and the others make up for it; pins do not count."""
    p = problem(4, 30, saturated=saturated)
    weight = p.weight.copy()
    weight[:, 3], weight[:, 20] = 1.5, -1.9
    p = replace(p, weight=weight)
    (qubo,) = p.to_qubos()
    found = Gptq(order="natural", damping=1e-9).solve(qubo)
    wanted, _ = textbook(p, 1e-9, np.arange(30))
    assert (p.base + found.states)[:, 3].max() == 7
    np.testing.assert_array_equal(p.base + found.states, wanted)


def test_stays_within_its_levels():
    (qubo,) = problem(5, 40, lo=0, hi=1).to_qubos()
    found = Gptq().solve(qubo)
    assert qubo.levels is not None
    assert (found.states >= qubo.levels[0]).all()
    assert (found.states <= qubo.levels[1]).all()


def test_same_answer_in_all_circumstances():
    """For any start, any number of threads and any other rows."""
    (qubo,) = problem(5, 40).to_qubos()
    states = Gptq().solve(qubo).states
    for other in (
        Gptq().solve(qubo, initial=np.ones((5, 40)), seed=3).states,
        Gptq().solve(qubo, budget=Budget(threads=2)).states,
        np.vstack([Gptq().solve(qubo.take([r])).states for r in range(5)]),
    ):
        np.testing.assert_array_equal(other, states)


def test_time_ends():
    (qubo,) = problem(2, 10).to_qubos()
    found = Gptq().solve(qubo, budget=Budget(seconds=1e-9))
    assert found.status == "time"
    assert found.states.dtype == np.int16
    np.testing.assert_array_equal(found.states, qubo.nearest())


class TestRefuses:
    def test_what_is_no_rounding_problem(self):
        with pytest.raises(InputError, match="solver gptq: the batch has no levels"):
            Gptq().solve(example_batch(1, 3))

    def test_levels_beyond_its_states(self):
        (qubo,) = problem(1, 3).to_qubos()
        wide = np.array([np.zeros((1, 3)), np.full((1, 3), 40_000)], np.int32)
        with pytest.raises(InputError, match="levels must fit in 16 bits"):
            Gptq().solve(replace(qubo, levels=wide))

    def test_a_polish(self):
        with pytest.raises(InputError, match="solver gptq: polish must be none"):
            Gptq(polish="one-flip")


def test_custom_batches_with_levels():
    """Nothing but levels is asked for: any linear part, indefinite H damped."""
    qubo = example_batch(2, 6, definite=False)
    wide = np.array([np.full((2, 6), -2), np.full((2, 6), 3)], np.int32)
    found = Gptq().solve(
        QuboBatch(qubo.H, qubo.linear, qubo.offset, qubo.scale, qubo.prior, None, wide)
    )
    assert found.states.min() >= -2
    assert found.states.max() <= 3
    assert found.info["damping"] > 0.01
