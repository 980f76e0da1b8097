"""Exact search: proofs against brute force, and what is left where limits end it."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.kernels import enumeration
from solvers.proofs.exact import MILLION, Exact
from solvers.proofs.proof import Proof, settle
from solvers.proofs.semidefinite import Model
from solvers.qubo import QuboBatch
from solvers.testing import (
    brute_force,
    check_solver,
    example_batch,
    example_batches,
    reference_energies,
)
from tests.clocks import Clock

pytestmark = pytest.mark.arithmetic

# No enumeration: every row is searched.
SEARCH = Exact(enumerate=0)


def ill_conditioned(rows: int, n: int, seed: int = 0, power: float = 3) -> QuboBatch:
    """Rounding problems whose matrix has eigenvalues from 1 to ``n**-power``."""
    rng = np.random.default_rng(seed)
    V = np.linalg.qr(rng.normal(size=(n, n)))[0]
    H = V * np.arange(1, n + 1.0) ** -power @ V.T
    t = rng.random((rows, n))
    pull = t @ H
    return QuboBatch(H, -2 * pull, (t * pull).sum(axis=1), np.ones((rows, 1)), t)


def correlated(rows: int, n: int, seed: int = 0) -> QuboBatch:
    """Correlated inputs with a large common mean, as a first layer has them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * n, n)).cumsum(axis=1) * 0.05 + rng.normal(3, 1, (4 * n, 1))
    H = x.T @ x / len(x)
    t = rng.random((rows, n))
    pull = t @ H
    return QuboBatch(H, -2 * pull, (t * pull).sum(axis=1), np.ones((rows, 1)), t)


def require_optimal(qubo: QuboBatch, solver: Exact) -> None:
    _, least = brute_force(qubo)
    found = solver.solve(qubo)
    info = found.info
    assert all(info["proved"])
    assert info["gap"] == [0.0] * qubo.rows
    for r in range(qubo.rows):
        assert abs(found.energies[r] - least[r]) <= info["tolerance"][r]
        assert info["lower_bound"][r] <= least[r] + info["tolerance"][r]
        assert info["lower_bound"][r] >= least[r] - 3 * info["tolerance"][r]


def test_conforms():
    assert check_solver(Exact) == []


@pytest.mark.parametrize("name", example_batches())
@pytest.mark.parametrize("solver", [Exact(), SEARCH], ids=["enumerated", "searched"])
def test_examples(name, solver):
    require_optimal(example_batches()[name], solver)


@pytest.mark.parametrize("n", [1, 2, 10, 11, 12, 15])
def test_enumeration_around_its_block(n):
    require_optimal(example_batch(3, n, seed=n, definite=n % 2 == 0), Exact())


def test_enumeration_in_pieces():
    """Blocks of states, one after the other, give what all of them give."""
    model = Model.of_row(example_batch(1, 14), 0)
    whole, parts = (np.array([math.inf]) for _ in range(2))
    best, last = (np.zeros(14, np.uint8) for _ in range(2))
    enumeration.enumerate_states(model.Q, model.c, 0, 8, whole, best)
    for first in range(8):
        enumeration.enumerate_states(model.Q, model.c, first, first + 1, parts, last)
    assert enumeration.blocks(14) == 8
    assert whole == parts
    np.testing.assert_array_equal(best, last)
    np.testing.assert_allclose(model.energies(best), whole[0] + model.k)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 12),
    kind=st.sampled_from(["definite", "indefinite", "ill", "sparse", "whole"]),
    unit=st.sampled_from([1e-9, 1.0, 1e9]),
    pins=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_optimal(seed, n, kind, unit, pins):
    rng = np.random.default_rng(seed)
    if kind == "ill":
        qubo = ill_conditioned(2, n, seed, power=9)
    elif kind in ("definite", "indefinite"):
        scale = rng.uniform(0.1, 3, (2, n))
        qubo = example_batch(2, n, seed, definite=kind == "definite", scale=scale)
    elif kind == "sparse":
        Q = np.where(rng.random((n, n)) < 0.2, rng.normal(size=(n, n)), 0.0)
        qubo = QuboBatch.from_matrix(Q, rng.normal(size=(2, n)), 3.5)
    else:
        # Many ties.
        Q = rng.integers(-2, 3, (n, n)).astype(float)
        qubo = QuboBatch.from_matrix(Q, rng.integers(-2, 3, (2, n)))
    qubo = replace(
        qubo, H=unit * qubo.H, linear=unit * qubo.linear, offset=unit * qubo.offset
    )
    if pins:
        qubo = replace(qubo, fixed=rng.integers(-1, 2, (2, n), np.int8))
    require_optimal(qubo, SEARCH)


@pytest.mark.parametrize("seed", range(3))
def test_search_agrees_with_enumeration(seed):
    """At sizes at which brute force is slow, and trees have more than a few nodes."""
    qubo = ill_conditioned(2, 23, seed)
    one, other = SEARCH.solve(qubo), Exact(enumerate=23).solve(qubo)
    assert all(one.info["proved"] + other.info["proved"])
    np.testing.assert_array_equal(one.states, other.states)
    assert min(one.info["nodes"]) > 50
    assert other.info["nodes"] == [1 << 23] * 2


def test_proves_where_enumeration_cannot():
    """2^50 states, and whether the first states are good or not."""
    qubo = correlated(2, 50, seed=1)
    found = Exact().solve(qubo)
    assert all(found.info["proved"])
    again = Exact(sweeps=1).solve(qubo, initial=np.ones((2, 50), np.uint8), seed=3)
    np.testing.assert_array_equal(found.states, again.states)
    flips = found.states[:, None] ^ np.eye(50, dtype=np.uint8)
    least = found.energies - found.info["tolerance"]
    assert (qubo.energies(flips) >= least[:, None]).all()


def test_start_does_not_matter_to_a_proof():
    qubo = example_batch(3, 26, seed=2)
    worst = (1 - qubo.nearest()).astype(np.uint8)
    one, other = Exact().solve(qubo), Exact().solve(qubo, initial=worst, seed=9)
    np.testing.assert_array_equal(one.states, other.states)


def test_levels_do_not_matter():
    """Only 0 and 1 are searched, whatever grid steps there are."""
    qubo = example_batch(2, 14)
    levels = np.broadcast_to([[[-3]], [[4]]], (2, 2, 14))
    wide = replace(qubo, levels=levels)
    np.testing.assert_array_equal(SEARCH.solve(wide).states, SEARCH.solve(qubo).states)


class TestLimits:
    # Some 1.5 million nodes, and far too many.
    qubo, large = ill_conditioned(2, 35, seed=1), ill_conditioned(3, 90, power=2)

    def test_nodes_end_the_proof(self):
        short = Budget(sweeps=1)
        found, more = Exact().solve(self.qubo, budget=short), Exact().solve(self.qubo)
        assert not any(found.info["proved"])
        assert all(more.info["proved"])
        assert min(found.info["nodes"]) >= MILLION
        assert max(found.info["nodes"]) < 1.3 * MILLION < max(more.info["nodes"])
        lower = np.array(found.info["lower_bound"])
        assert (lower <= more.energies).all()
        assert (more.energies <= found.energies + more.info["tolerance"]).all()
        gap = (found.energies - lower) / abs(found.energies)
        np.testing.assert_allclose(found.info["gap"], gap)
        again = Exact().solve(self.qubo, budget=short)
        np.testing.assert_array_equal(found.states, again.states)
        assert found.info == again.info

    def test_enumeration_is_limited_too(self):
        solver = Exact(enumerate=26, sweeps=1)
        qubo = example_batch(1, 26)
        found = solver.solve(qubo, budget=Budget(sweeps=1))
        assert found.info["proved"] == [False]
        assert found.info["lower_bound"] == [-math.inf]
        assert found.info["gap"] == [math.inf]

    def test_seconds(self):
        clock = Clock(tick=1e-3, last=1.0)
        found = Exact().solve(
            self.large, budget=Budget(seconds=0.5), monitor=Monitor(clock=clock)
        )
        assert found.status == "time"
        assert not any(found.info["proved"])
        assert (np.array(found.info["lower_bound"]) <= found.energies).all()
        # Rows get about equal shares.
        assert max(found.info["nodes"]) <= 2 * min(found.info["nodes"]) + 300_000

    def test_no_time_at_all(self):
        found = Exact().solve(self.qubo, budget=Budget(seconds=1e-9))
        assert found.info["proved"] == [False, False]
        assert found.info["lower_bound"] == [-math.inf] * 2

    def test_target(self):
        found = Exact().solve(self.large, budget=Budget(target=math.inf))
        assert found.status == "target"
        assert not any(found.info["proved"])

    def test_rows_beyond_the_largest(self):
        found = Exact(largest=40).solve(example_batch(2, 41))
        assert found.info["proved"] == [False, False]
        bounds = np.array(found.info["lower_bound"])
        assert (bounds <= found.energies).all()
        assert np.isfinite(bounds).all()

    @pytest.mark.parametrize("seconds", [None, 0.6])
    def test_rows_in_groups(self, monkeypatch, seconds):
        """If memory does not hold all rows, groups of rows share the time."""
        qubo = ill_conditioned(3, 70, power=1.5) if seconds else correlated(3, 30)

        def solve():
            clock = Clock(tick=5e-4, last=2 * (seconds or math.inf))
            return Exact().solve(
                qubo, budget=Budget(seconds=seconds), monitor=Monitor(clock=clock)
            )

        whole = solve()
        monkeypatch.setattr("solvers.proofs.exact.MEMORY", 1.0)
        found = solve()
        if seconds:
            assert found.status == "time"
            assert min(found.info["nodes"]) > 0.2 * max(whole.info["nodes"])
        else:
            assert found.info == whole.info
            np.testing.assert_array_equal(found.states, whole.states)

    def test_threads(self):
        one, two = (
            Exact(million_nodes=1).solve(self.large, budget=Budget(threads=t))
            for t in (1, 2)
        )
        np.testing.assert_array_equal(one.states, two.states)
        assert one.info == two.info


class TestProof:
    def test_improves_the_bound_threshold_by_threshold(self):
        qubo = correlated(1, 60, seed=3)
        proof = Proof(
            Model.of_row(qubo, 0), qubo.nearest()[0], 20, 200, 10**9, Clock(tick=1)
        )
        bounds = [proof.lower]
        while not proof.done:
            proof.advance()
            bounds.append(proof.lower)
        assert bounds == sorted(bounds)
        assert len(set(bounds)) > 5
        assert proof.proved
        states = np.zeros((1, 60), np.uint8)
        states[0] = proof.x
        energy = reference_energies(qubo, states)[0]
        assert energy == pytest.approx(proof.energy[0], abs=proof.tolerance)
        assert max(bounds) <= energy

    def test_settled_variables(self):
        """Strong linear terms; a variable of no effect; a chain that follows."""
        Q = np.diag([0.0, 0.0, 0.0, 1.0, 1.0])
        Q[0, 1] = Q[1, 0] = 1.0
        Q[3, 4] = Q[4, 3] = -3.0
        model = Model(Q, np.array([-5.0, 1.0, 0.0, 0.0, 0.0]), 0.0, 1e-14)
        np.testing.assert_array_equal(settle(model), [1, 0, 0, -1, -1])

    def test_one_settled_variable_settles_the_next(self):
        """A ferromagnetic chain, pulled at one end."""
        Q = np.zeros((300, 300))
        i = np.arange(299)
        Q[i, i + 1] = Q[i + 1, i] = -1 - np.random.default_rng(0).random(299)
        linear = -2 * np.minimum(np.triu(Q), 0).sum(axis=1) - 0.5
        model = Model(Q, linear, 0.0, 1e-10)
        np.testing.assert_array_equal(settle(model), 1)

    def test_without_a_bound_the_gap_is_infinite(self):
        qubo = correlated(1, 30, seed=3)
        proof = Proof(Model.of_row(qubo, 0), qubo.nearest()[0], 20, 200, 10**9, Clock())
        assert (proof.lower, proof.gap) == (-math.inf, math.inf)

    def test_settled_rows_need_no_search(self):
        qubo = QuboBatch.from_matrix(np.diag(np.linspace(-1, 1, 300)))
        found = Exact().solve(qubo)
        assert found.info["proved"] == [True]
        np.testing.assert_array_equal(found.states[0], np.linspace(-1, 1, 300) < 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enumerate": -1}, "enumerate must be a number from 0 to 30"),
        ({"enumerate": 31}, "enumerate must be a number from 0 to 30"),
        ({"largest": -1}, "largest must be at least 0"),
        ({"million_nodes": 0}, "million_nodes must be at least 1"),
        ({"sweeps": 0}, "sweeps must be at least 1"),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver exact: {message}"):
        Exact(**options)


@pytest.mark.slow
@pytest.mark.skipif(
    "QUBO_ROUNDING_REAL_DATA" not in os.environ,
    reason="QUBO_ROUNDING_REAL_DATA does not name the folder of real data",
)
def test_proves_rows_of_a_first_layer():
    """The rows are those of the first 60 inputs of ResNet18's first layer."""
    folder = Path(os.environ["QUBO_ROUNDING_REAL_DATA"])
    problem = np.load(folder / "problems" / "resnet18.conv1.npz")
    H, w = problem["second_moment"][:60, :60], problem["weight"][:6, :60]
    s = float(problem["scale"])
    t = w / s - np.clip(np.floor(w / s), problem["lo"], problem["hi"] - 1)
    pull = s * t @ H
    qubo = QuboBatch(
        H,
        -2 * s * pull,
        (s * t * pull).sum(axis=1),
        np.full((6, 1), s),
        np.clip(t, 0, 1),
    )
    found = Exact().solve(qubo)
    assert all(found.info["proved"])
