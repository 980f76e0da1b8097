"""Factors of H, orders and centres, against plain numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.decoders import factor as decoding
from solvers.decoders.babai import Babai
from solvers.decoders.factor import ORDERS, binary_targets, factorise, least_pivots
from solvers.errors import InputError
from solvers.qubo import QuboBatch
from solvers.testing import example_batch, example_batches, reference_energies

pytestmark = pytest.mark.arithmetic


def definite(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n + 3)) * rng.uniform(0.2, 3, (n, 1))
    return A @ A.T / n + 0.5


def greedy(A: np.ndarray) -> list[int]:
    """Least pivot next, by the definition of a Schur complement."""
    A, left, order = A.copy(), list(range(len(A))), []
    while left:
        k = min(left, key=lambda i: A[i, i])
        left.remove(k)
        order.append(k)
        A -= np.outer(A[:, k], A[k]) / A[k, k]
    return order


class TestFactor:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_reproduces_the_damped_matrix(self, order, dtype):
        H = definite(150).astype(dtype)
        factor = factorise(H, order, 0.1)
        assert factor.damping == pytest.approx(0.1 * H.diagonal().mean())
        damped = H.astype(np.float64) + factor.damping * np.eye(150)
        F = factor.upper
        assert F.dtype == np.float64
        np.testing.assert_array_equal(F, np.triu(F))
        np.testing.assert_array_equal(F.T, factor.lower)
        wanted = damped[np.ix_(factor.order, factor.order)]
        np.testing.assert_allclose(F @ F.T, wanted, atol=1e-10)
        np.testing.assert_allclose(factor.inverse_rows, np.linalg.inv(F).T, atol=1e-10)

    def test_restores(self):
        factor = factorise(definite(9), "min-pivot", 0.1)
        values = np.arange(18.0).reshape(2, 9)
        np.testing.assert_array_equal(factor.restore(factor.in_order(values)), values)

    def test_leaves_H_alone(self):
        H = definite(20)
        before = H.copy()
        for order in ORDERS:
            factorise(H, order, 0.1)
        np.testing.assert_array_equal(H, before)


class TestOrders:
    def test_natural_and_activation(self):
        H = np.diag([2.0, 3.0, 2.0, 5.0])
        assert factorise(H, "natural").order.tolist() == [0, 1, 2, 3]
        assert factorise(H, "activation").order.tolist() == [3, 1, 0, 2]

    @pytest.mark.parametrize("n", [5, 64, 65, 200])
    def test_least_pivots(self, n, monkeypatch):
        """Over several blocks and stripes."""
        monkeypatch.setattr(decoding, "STRIPE", 40)
        H = definite(n, seed=n)
        assert least_pivots(H.copy()).tolist() == greedy(H)

    def test_min_pivot_and_v_blast(self):
        H = definite(90)
        damped = H + 0.05 * H.diagonal().mean() * np.eye(90)
        assert factorise(H, "min-pivot", 0.05).order.tolist() == greedy(damped)[::-1]
        best_first = greedy(np.linalg.inv(damped))
        assert factorise(H, "v-blast", 0.05).order.tolist() == best_first

    def test_dead_inputs_come_last(self):
        H = definite(40)
        dead = [3, 17, 39]
        H[dead], H[:, dead] = 0, 0
        for order in ("activation", "min-pivot", "v-blast"):
            assert set(factorise(H, order, 0.02).order[-3:]) == set(dead)


class TestDamping:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("dense", [10, 1000])
    def test_of_an_indefinite_matrix(self, order, dense, monkeypatch):
        """Beyond the lowest eigenvalue, however it is found, but not far."""
        monkeypatch.setattr(decoding, "DENSE", dense)
        H = example_batch(1, 60, definite=False).H.copy()
        np.fill_diagonal(H, 0)
        lowest = -np.linalg.eigvalsh(H)[0]
        assert 1.2 * lowest < factorise(H, order, 0.02).damping < 1.4 * lowest

    @pytest.mark.parametrize("order", ORDERS)
    def test_of_a_singular_matrix(self, order):
        A = np.random.default_rng(0).normal(size=(20, 7))
        H = A @ A.T
        assert 0 < factorise(H, order, 0.0).damping < 1e-4 * H.diagonal().mean()

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("n", [1, 2])
    def test_of_zero(self, order, n):
        factor = factorise(np.zeros((n, n)), order, 0.02)
        np.testing.assert_array_equal(factor.upper, np.eye(n))

    def test_more_is_added_while_it_is_too_little(self, monkeypatch):
        monkeypatch.setattr(decoding, "BEYOND", 0.3)
        H = np.diag([1.0, -1.0])
        assert factorise(H, "natural", 0.0).damping == pytest.approx(1.2)

    def test_entries_too_large(self):
        with pytest.raises(InputError, match="H must lie within 1e\\+150 in size"):
            factorise(np.array([[0.0, 1e305], [1e305, 0.0]]), "natural")


def random_states(qubo: QuboBatch, count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 2, (qubo.rows, count, qubo.n), np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(example_batches())),
    order=st.sampled_from(ORDERS),
    damping=st.floats(0, 2),
)
def test_a_path_costs_its_energy(name, order, damping):
    """``|F^T y - v|^2`` is the energy but for a constant, whatever the damping.

    With pins: among the states that have them.
    """
    qubo = example_batches()[name]
    factor = factorise(qubo.H, order, damping)
    targets = binary_targets(qubo, factor)
    states = np.stack([qubo.pin(s) for s in random_states(qubo, 8).swapaxes(0, 1)], 1)
    y = (qubo.full_scale()[:, None] * states)[:, :, factor.order]
    cost = ((y @ factor.upper - targets.v[:, None]) ** 2).sum(axis=2)
    excess = cost - reference_energies(qubo, states)
    size = 1e-9 * (abs(cost).max() + 1)
    np.testing.assert_allclose(
        excess, np.broadcast_to(excess[:, :1], excess.shape), atol=size
    )


class TestCentres:
    def test_is_the_minimiser(self):
        """``s p - H'^-1 (gradient of E at s p) / 2`` with p = 1/2."""
        qubo = example_batches()["scale per weight"]
        factor = factorise(qubo.H, "natural", 0.1)
        targets = binary_targets(qubo, factor)
        y = 0.5 * qubo.scale
        gradient = 2 * y @ qubo.H + qubo.linear / qubo.scale
        damped = qubo.H + factor.damping * np.eye(qubo.n)
        wanted = y - np.linalg.solve(damped, gradient.T).T / 2
        found = np.linalg.solve(factor.lower, targets.v.T).T
        np.testing.assert_allclose(found, wanted, rtol=1e-8)

    @pytest.mark.parametrize("order", ORDERS)
    def test_pins_condition_the_others(self, order):
        """As a problem in the free variables alone, with a factor of its own."""
        qubo = example_batch(4, 9, scale=np.random.default_rng(0).uniform(1, 2, (4, 9)))
        fixed = np.random.default_rng(1).integers(-1, 2, (4, 9), np.int8)
        qubo = replace(qubo, fixed=fixed)
        factor = factorise(qubo.H, order, 0.1)
        targets = binary_targets(qubo, factor)
        damped = qubo.H + factor.damping * np.eye(9)
        b = (factor.damping * qubo.scale - qubo.linear / qubo.scale) / 2
        found = factor.restore(np.linalg.solve(factor.lower, targets.v.T).T)
        for r in range(4):
            free = fixed[r] < 0
            assert 0 < free.sum() < 9
            wanted = qubo.scale[r] * fixed[r]
            pull = b[r, free] - damped[np.ix_(free, ~free)] @ wanted[~free]
            wanted[free] = np.linalg.solve(damped[np.ix_(free, free)], pull)
            np.testing.assert_allclose(found[r], wanted, atol=1e-9)

    def test_rows_do_not_touch_each_other(self):
        """To the last bit, also over several blocks."""
        qubo = example_batch(13, 150)
        fixed = np.full((13, 150), -1, np.int8)
        fixed[::2, :20] = 1
        qubo = replace(qubo, fixed=fixed)
        factor = factorise(qubo.H, "min-pivot", 0.02)
        whole = binary_targets(qubo, factor, threads=2).v
        for rows in (slice(0, 1), slice(2, 7), slice(12, 13)):
            alone = binary_targets(qubo.take(rows), factor).v
            np.testing.assert_array_equal(alone, whole[rows])


def test_factors_are_shared_only_where_they_may_be(monkeypatch):
    made = []
    factorise_anew = decoding._factorise

    def counted(H, *arguments):
        made.append(H)
        return factorise_anew(H, *arguments)

    monkeypatch.setattr(decoding, "_factorise", counted)
    qubo, other = (example_batch(2, 9, seed=seed) for seed in (1, 2))
    alone = [Babai().solve(batch).states for batch in (qubo, qubo, other)]
    assert len(made) == 3
    with decoding.shared_factors():
        shared = [Babai().solve(batch).states for batch in (qubo, qubo, other)]
        Babai(damping=0.5).solve(qubo)
    assert len(made) == 6
    np.testing.assert_array_equal(alone, shared)
    Babai().solve(qubo)
    assert len(made) == 7
