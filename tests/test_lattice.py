"""Annealing along short vectors: answers, limits, numerics, and real layers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.budget import Budget, Monitor
from solvers.decoders.factor import factorise
from solvers.decoders.kbest import KBest
from solvers.errors import InputError
from solvers.lattice.solver import Lattice
from solvers.qubo import QuboBatch
from solvers.testing import (
    brute_force,
    check_solver,
    example_batch,
    example_batches,
    reference_energies,
)
from tests.clocks import Clock

QUICK = Lattice(elites=2, rounds=2, paths=8)


def patches(rows: int, n: int, seed: int = 0, noise: float = 1e-3) -> QuboBatch:
    """Rows over strongly correlated inputs with a common mean, as a first layer's."""
    rng = np.random.default_rng(seed)
    near = 0.95 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    H = near + 1.0 + noise * np.eye(n)
    t = rng.random((rows, n))
    return QuboBatch(
        H=H,
        linear=-2 * t @ H,
        offset=np.einsum("ri,ij,rj->r", t, H, t),
        scale=np.ones((rows, 1)),
        prior=t,
    )


def test_conformance():
    assert check_solver(QUICK) == []


@pytest.mark.parametrize("name", sorted(example_batches()))
def test_small_problems_are_solved(name):
    qubo = example_batches()[name]
    _, energies = brute_force(qubo)
    found = Lattice().solve(qubo)
    np.testing.assert_allclose(found.energies, energies, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 10), st.booleans())
@settings(deadline=None, max_examples=25)
def test_optimal_for_a_dozen_variables(seed, rows, n, definite):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.5, 2.0, (rows, n if seed % 2 else 1))
    qubo = example_batch(rows, n, seed, definite=definite, scale=scale)
    _, energies = brute_force(qubo)
    found = Lattice(elites=4).solve(qubo, seed=seed)
    np.testing.assert_allclose(found.energies, energies, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("moves", ["singles", "pairs", "quads", "longer"])
@pytest.mark.parametrize("start", ["nearest", "babai", "kbest"])
def test_options_reach_energies_that_recompute(moves, start):
    qubo = patches(3, 40)
    found = replace(QUICK, moves=moves, start=start).solve(qubo)
    np.testing.assert_allclose(
        found.energies, reference_energies(qubo, found.states), rtol=1e-9
    )


def test_pairs_and_quads_beat_single_flips():
    qubo = patches(16, 100)
    single = Lattice(moves="singles", start="nearest", elites=1, polish="none")
    energies = {
        moves: replace(single, moves=moves).solve(qubo).energies.sum()
        for moves in ("singles", "pairs", "quads")
    }
    assert max(energies["quads"], energies["pairs"]) < 0.8 * energies["singles"]


def test_better_than_the_decoding_it_begins_with():
    qubo = patches(16, 100)
    decoded = KBest(paths=8).solve(qubo).energies
    found = Lattice(elites=1, paths=8).solve(qubo).energies
    assert found.sum() < 0.99 * decoded.sum()
    pooled = Lattice(paths=8).solve(qubo).energies
    assert pooled.sum() <= found.sum()


def test_blocks_of_a_larger_problem(monkeypatch):
    """Beyond a size the moves are cut into blocks: as good an answer."""
    qubo = patches(8, 120)
    whole = Lattice(elites=1).solve(qubo).energies.sum()
    monkeypatch.setattr("solvers.lattice.lanes.WHOLE", 20)
    monkeypatch.setattr("solvers.lattice.lanes.BLOCK", 48)
    cut = Lattice(elites=1).solve(qubo)
    assert cut.energies.sum() == pytest.approx(whole, rel=0.03)
    two = Lattice(elites=1).solve(qubo, budget=Budget(threads=2))
    np.testing.assert_array_equal(cut.states, two.states)


def test_scale_per_weight_is_heeded():
    rng = np.random.default_rng(5)
    base = patches(4, 60)
    scale = np.repeat(rng.uniform(0.5, 2.0, (4, 6)), 10, axis=1)
    t = base.prior
    qubo = replace(
        base,
        scale=scale,
        linear=-2 * scale * ((scale * t) @ base.H),
        offset=np.einsum("ri,ij,rj->r", scale * t, base.H, scale * t),
    )
    decoded = KBest(paths=64).solve(qubo).energies
    found = Lattice(elites=2, rounds=4).solve(qubo)
    assert found.energies.sum() < decoded.sum()
    np.testing.assert_allclose(
        found.energies, reference_energies(qubo, found.states), rtol=1e-9
    )


@pytest.mark.parametrize("case", ["dead", "nearly dead", "rank 3", "condition 1e12"])
def test_ill_conditioned(case):
    n, rng = 48, np.random.default_rng(2)
    base = patches(4, n)
    x = rng.standard_normal((n, 200))
    if case in ("dead", "nearly dead"):
        x[::3] *= 0.0 if case == "dead" else 1e-6
    elif case == "rank 3":
        x = rng.standard_normal((n, 3)) @ x[:3]
    H = x @ x.T / 200
    if case == "condition 1e12":
        basis, _ = np.linalg.qr(x[:, :n])
        H = basis * np.logspace(0, -12, n) @ basis.T
    H, t = (H + H.T) / 2, base.prior
    qubo = replace(
        base, H=H, linear=-2 * t @ H, offset=np.einsum("ri,ij,rj->r", t, H, t)
    )
    found = QUICK.solve(qubo)
    terms = np.abs(qubo.offset).max()
    np.testing.assert_allclose(
        found.energies, reference_energies(qubo, found.states), atol=1e-9 * terms
    )
    assert (found.energies <= qubo.energies(qubo.nearest()) + 1e-12 * terms).all()
    assert found.energies.sum() < 0.95 * qubo.energies(qubo.nearest()).sum()


def test_float32_matrix():
    qubo = patches(4, 60)
    single = replace(qubo, H=qubo.H.astype(np.float32))
    found = QUICK.solve(single)
    np.testing.assert_allclose(
        found.energies, reference_energies(single, found.states), rtol=1e-9
    )


def test_decodings_are_drawn_from_the_seed(monkeypatch):
    """The first decoding is the same for all seeds; no two of the others are."""

    def units_of(seed):
        drawn = []

        def watched(H, order, damping, units):
            drawn.append(units)
            return factorise(H, order, damping, units)

        with monkeypatch.context() as patched:
            patched.setattr("solvers.lattice.search.factorise", watched)
            Lattice(elites=3, rounds=0, paths=2).solve(patches(1, 20), seed=seed)
        assert drawn[0] is None
        return np.stack(drawn[1:])

    once, again, other = units_of(1), units_of(1), units_of(2)
    np.testing.assert_array_equal(once, again)
    assert len(np.unique(np.concatenate([once, other]), axis=0)) == 4


def test_given_states_come_first():
    qubo = patches(4, 60)
    good = Lattice().solve(qubo)
    again = Lattice(elites=1, num_sweeps=1).solve(qubo, initial=good.states)
    assert (again.energies <= good.energies).all()


def test_a_budget_of_sweeps_caps_all_anneals():
    found = Lattice().solve(patches(2, 40), budget=Budget(sweeps=20))
    assert 0 < found.info["sweeps"] <= 20


def test_a_row_does_not_depend_on_how_long_others_improve():
    qubo = patches(6, 60)
    whole = Lattice(elites=4, rounds=12, paths=16).solve(qubo)
    alone = Lattice(elites=4, rounds=12, paths=16).solve(qubo.take(slice(0, 2)))
    np.testing.assert_array_equal(whole.states[:2], alone.states)


def test_seconds_are_kept(monkeypatch):
    # No row comes to rest before time is up.
    monkeypatch.setattr("solvers.lattice.search.PATIENCE", 10**9)
    qubo = patches(16, 100)
    monitor = Monitor(clock=Clock(tick=2e-3, last=2.0))
    found = Lattice(rounds=10**6).solve(
        qubo, budget=Budget(seconds=1.0), monitor=monitor
    )
    assert found.status == "time"


def test_target_stops_the_search():
    qubo = patches(8, 60)
    easy = qubo.energies(qubo.nearest())
    found = Lattice().solve(qubo, budget=Budget(target=easy))
    assert found.status == "target"
    assert found.info["sweeps"] <= 3


def test_max_moves_bounds_the_library():
    found = Lattice(max_moves=50, elites=1).solve(patches(2, 40))
    assert found.info["moves"] <= 40 + 50
    assert found.info["library_seconds"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moves": "quints"}, "moves must be one of auto, singles"),
        ({"start": "random"}, "start must be one of nearest, babai, kbest"),
        ({"num_sweeps": 0}, "num_sweeps must be at least 1"),
        ({"elites": 0}, "elites must be at least 1"),
        ({"paths": 0}, "paths must be at least 1"),
        ({"rounds": -1}, "rounds must be at least 0"),
        ({"max_moves": -1}, "max_moves must be at least 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        Lattice(**options)


@pytest.mark.skipif(
    not os.environ.get("QUBO_ROUNDING_REAL_DATA"),
    reason="QUBO_ROUNDING_REAL_DATA does not name the folder of real data",
)
def test_first_layer_of_resnet18():
    from qubo_rounding.problem import RoundingProblem

    path = Path(os.environ["QUBO_ROUNDING_REAL_DATA"], "problems/resnet18.conv1.npz")
    (qubo,) = RoundingProblem.load(path).to_qubos()
    nearest = qubo.energies(qubo.nearest()).sum()
    once = Lattice(elites=1).solve(qubo)
    assert once.energies.sum() < 0.0137 * nearest
    pooled = Lattice().solve(qubo, budget=Budget(threads=2))
    assert pooled.energies.sum() < 0.01341 * nearest


def test_too_many_blocks_stay_one(monkeypatch):
    qubo = patches(3, 120)
    monkeypatch.setattr("solvers.lattice.lanes.WHOLE", 20)
    monkeypatch.setattr("solvers.lattice.lanes.BLOCK", 16)
    whole = Lattice(elites=1)
    cut = whole.solve(qubo).states
    monkeypatch.setattr("solvers.lattice.lanes.MOST_NEAR", 0)
    one = whole.solve(qubo).states
    monkeypatch.setattr("solvers.lattice.lanes.WHOLE", 10**6)
    np.testing.assert_array_equal(one, whole.solve(qubo).states)
    assert cut.shape == one.shape
