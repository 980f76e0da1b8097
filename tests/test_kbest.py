"""K-best decoding, against brute force and a plain beam search."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.budget import Budget
from solvers.decoders.babai import Babai
from solvers.decoders.factor import ORDERS, binary_targets, factorise
from solvers.decoders.kbest import KBest
from solvers.errors import InputError
from solvers.qubo import QuboBatch
from solvers.testing import (
    brute_force,
    check_solver,
    example_batch,
    example_batches,
    reference_energies,
)

pytestmark = pytest.mark.arithmetic


def beam(qubo: QuboBatch, paths: int, order: str) -> np.ndarray:
    """The same search in plain numpy, all costs from the definition."""
    factor = factorise(qubo.H, order, 0.02)
    targets = binary_targets(qubo, factor)
    L = factor.lower
    best = []
    for v, s, low, high in zip(
        targets.v, targets.scale, targets.low, targets.high, strict=True
    ):
        kept = np.zeros((1, 0))
        for j in range(qubo.n):
            tails = np.unique([low[j], high[j]])
            kept = np.concatenate([np.insert(kept, j, tail, axis=1) for tail in tails])
            y = kept * s[: j + 1]
            cost = ((y @ L[: j + 1, : j + 1].T - v[: j + 1]) ** 2).sum(axis=1)
            kept = kept[np.argsort(cost, kind="stable")[:paths]]
        best.append(kept[0])
    return factor.restore(np.array(best)).astype(np.uint8)


def test_conformance():
    assert check_solver(KBest(paths=6)) == []


@pytest.mark.parametrize("name", sorted(example_batches()))
@pytest.mark.parametrize("order", ORDERS)
def test_all_paths_are_exact(name, order):
    qubo = example_batches()[name]
    _, energies = brute_force(qubo)
    found = KBest(paths=2**qubo.n, order=order, polish="none").solve(qubo)
    np.testing.assert_allclose(found.energies, energies, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    paths=st.sampled_from([1, 2, 3, 7, 100, 513]),
    damping=st.sampled_from([0.0, 0.02, 3.0]),
)
def test_between_babai_and_the_optimum(seed, n, paths, damping):
    rng = np.random.default_rng(seed)
    # Whole numbers have many ties.
    Q = rng.integers(-2, 3, (n, n))
    qubo = QuboBatch.from_matrix(Q, rng.integers(-3, 4, (3, n)))
    _, optimum = brute_force(qubo)
    solver = KBest(paths=paths, damping=damping, polish="none")
    found = solver.solve(qubo)
    np.testing.assert_allclose(
        found.energies, reference_energies(qubo, found.states), atol=1e-9
    )
    assert (found.energies >= optimum - 1e-9).all()
    if paths >= 2**n:
        np.testing.assert_allclose(found.energies, optimum, atol=1e-9)


@pytest.mark.parametrize("paths", [2, 5, 16, 64])
@pytest.mark.parametrize("order", ["natural", "min-pivot"])
def test_is_a_beam_search(paths, order):
    """Over three blocks, with pins and a scale per weight."""
    rng = np.random.default_rng(4)
    qubo = example_batch(3, 140, scale=rng.uniform(0.5, 2, (3, 140)))
    fixed = np.where(rng.random((3, 140)) < 0.1, rng.integers(0, 2, (3, 140)), -1)
    qubo = QuboBatch(qubo.H, qubo.linear, qubo.offset, qubo.scale, qubo.prior, fixed)
    found = KBest(paths=paths, order=order, polish="none").solve(qubo)
    np.testing.assert_array_equal(found.states, beam(qubo, paths, order))


@pytest.mark.parametrize("order", ORDERS)
def test_one_path_is_babai(order):
    qubo = example_batch(5, 150)
    one = KBest(paths=1, order=order, polish="none").solve(qubo)
    np.testing.assert_array_equal(one.states, Babai(order=order).solve(qubo).states)


def test_paths_pay():
    qubo = example_batch(12, 100)
    energies = [
        KBest(paths=k, polish="none").solve(qubo).energies.sum() for k in (1, 8, 64)
    ]
    assert energies[2] < 0.95 * energies[1] < 0.9 * energies[0]


def test_sweeps_cap_the_paths():
    qubo = example_batch(4, 50)
    capped = KBest().solve(qubo, budget=Budget(sweeps=3))
    np.testing.assert_array_equal(capped.states, KBest(paths=3).solve(qubo).states)


def test_dead_inputs():
    """Zero rows of H neither fail nor change what the others get."""
    live = example_batch(3, 20)
    H = np.zeros((28, 28))
    H[4:24, 4:24] = live.H
    linear = np.zeros((3, 28))
    linear[:, 4:24] = live.linear
    qubo = QuboBatch(H, linear, live.offset, np.ones((3, 1)), np.full((3, 28), 0.4))
    # The same damping, though the mean of the diagonal is lower.
    found = KBest(paths=9, damping=0.02 * 28 / 20).solve(qubo)
    wanted = KBest(paths=9).solve(live)
    np.testing.assert_allclose(found.energies, wanted.energies)


def test_real_layer():
    """Far below the figures of docs/design.md, which took ten times as long."""
    folder = os.environ.get("QUBO_ROUNDING_REAL_DATA")
    if folder is None:
        pytest.skip("QUBO_ROUNDING_REAL_DATA is not set")
    from qubo_rounding.problem import RoundingProblem

    path = Path(folder) / "problems" / "resnet18.conv1.npz"
    (qubo,) = RoundingProblem.load(path, "fixed").to_qubos()
    nearest = qubo.energies(qubo.nearest()).sum()
    assert KBest(paths=16).solve(qubo).energies.sum() < 0.0148 * nearest
    assert KBest(polish="none").solve(qubo).energies.sum() < 0.0175 * nearest
    assert Babai().solve(qubo).energies.sum() < 0.03 * nearest


def test_options():
    with pytest.raises(InputError, match="solver kbest: paths must be 1 to"):
        KBest(paths=0)
