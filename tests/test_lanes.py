"""Sixteen walks side by side, against plain numpy in float64."""

# ruff: noqa: F811  (the fixture is an argument)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.kernels.vectors import LANES
from solvers.lattice.lanes import thresholds
from tests.cases import some_states
from tests.lane_cases import (
    anneal,
    case,
    check,
    kind,  # noqa: F401  (a fixture)
    problem,
    some_pinned,
    streams,
)

pytestmark = pytest.mark.arithmetic


class TestFields:
    @pytest.mark.parametrize("heat", [0.0, 3.0, 1e3])
    @pytest.mark.parametrize("definite", [True, False])
    def test_and_energies_follow(self, kind, heat, definite):
        qubo = problem(kind, 20, 40, definite=definite)
        lanes, rows, start = case(qubo).lanes, np.arange(20), some_states(qubo)
        assert (lanes.blocks is not None) == kind.startswith("blocks")
        assert lanes.varies == kind.endswith("scaled")
        tiles = lanes.stand(rows, start)
        np.testing.assert_array_equal(tiles.last_states(), start)
        np.testing.assert_array_equal(tiles.states(), start)
        check(tiles, rows, start, 1e-6)
        anneal(tiles, heat)
        check(tiles, rows, start)
        assert tiles.counts[:, 0].sum() > 200
        assert (tiles.last_states() != start).any()
        anneal(tiles, heat, seed=1)
        check(tiles, rows, start)

    def test_several_walks_of_a_row(self, kind):
        qubo = problem(kind, 3, 30)
        rows = np.array([2, 0, 0, 1, 2, 2] * 6)
        start = some_states(qubo.take(rows))
        tiles = case(qubo).lanes.stand(rows, start)
        anneal(tiles, 5.0)
        check(tiles, rows, start)

    @pytest.mark.parametrize("walks", [1, 15, 16, 17, 33])
    def test_any_number_of_walks(self, kind, walks):
        """No walk depends on its neighbours."""
        qubo = problem(kind, 33, 24)
        lanes, rows, start = case(qubo).lanes, np.arange(walks), some_states(qubo)
        tiles, whole = (
            lanes.stand(rows, start[:walks]),
            lanes.stand(np.arange(33), start),
        )
        for each in (tiles, whole):
            anneal(each, 5.0)
        assert len(tiles.F) == -(-walks // LANES)
        check(tiles, rows, start[:walks])
        np.testing.assert_array_equal(tiles.last_states(), whole.last_states()[:walks])
        np.testing.assert_array_equal(
            tiles.energy.reshape(-1)[:walks], whole.energy.reshape(-1)[:walks]
        )

    def test_pinned_variables_stay(self, kind):
        qubo = some_pinned(problem(kind, 20, 40))
        rows, start = np.arange(20), some_states(qubo)
        tiles = case(qubo).lanes.stand(rows, start)
        anneal(tiles, 1e3)
        check(tiles, rows, start)
        fixed = qubo.fixed >= 0
        assert (tiles.last_states() != start)[~fixed].mean() > 0.2

    def test_all_pinned(self, kind):
        qubo = problem(kind, 2, 20)
        qubo = replace(qubo, fixed=np.ones((2, 20), np.int8))
        tiles = case(qubo).lanes.stand(np.arange(2), np.ones((2, 20), np.uint8))
        anneal(tiles, 1e3)
        assert not tiles.counts.any()
        check(tiles, np.arange(2), np.ones((2, 20), np.uint8))

    def test_same_on_two_threads(self, kind):
        qubo = problem(kind, 40, 30)
        lanes, start = case(qubo).lanes, some_states(qubo)
        one, two = (lanes.stand(np.arange(40), start, threads) for threads in (1, 2))
        anneal(one, 5.0)
        anneal(two, 5.0, threads=2)
        for name in ("F", "Z", "energy", "best", "best_Z", "counts"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def correlated(n: int) -> np.ndarray:
    """Condition 1e12."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    H = (Q * np.geomspace(1, 1e-12, n)) @ Q.T
    return (H + H.T) / 2


def rank_deficient(n: int) -> np.ndarray:
    X = np.random.default_rng(0).normal(size=(n // 4, n))
    return X.T @ X


def dead_channels(n: int) -> np.ndarray:
    X = np.random.default_rng(0).normal(size=(2 * n, n)) + 2
    X[:, ::7] *= 1e-6
    X[:, 3] = 0
    return X.T @ X


def unequal(n: int) -> np.ndarray:
    """Standard deviations over eight orders of magnitude."""
    X = np.random.default_rng(0).normal(size=(2 * n, n)) + 1
    X *= np.geomspace(1, 1e-8, n)
    return X.T @ X


@pytest.mark.parametrize("make", [correlated, rank_deficient, dead_channels, unequal])
@pytest.mark.parametrize("heat", [0.0, 0.1])
def test_ill_conditioned(kind, make, heat):
    n, rows = 48, np.arange(16)
    H, plain = make(n), problem(kind, 16, n)
    full, t = plain.full_scale(), plain.prior
    pull = (full * t) @ H
    qubo = replace(plain, H=H, linear=-2 * full * pull)
    start = some_states(qubo)
    tiles = case(qubo).lanes.stand(rows, start)
    check(tiles, rows, start, 1e-6)
    anneal(tiles, heat * H.diagonal().mean(), sweeps=20)
    assert tiles.counts[:, 0].sum() > 100
    check(tiles, rows, start, 3e-5)


class TestBest:
    def test_is_the_lowest_at_the_end_of_a_sweep(self, kind):
        qubo = problem(kind, 20, 30)
        rows, start = np.arange(20), some_states(qubo)
        tiles = case(qubo).lanes.stand(rows, start)
        rng, draws, heat = streams(tiles), thresholds(0), np.full(20, 20.0)
        lowest, best = np.zeros(20), start
        for _ in range(12):
            tiles.anneal(heat, np.ones(1), draws, rng)
            energy = tiles.energy.reshape(-1)[:20]
            lower = energy < lowest
            best = np.where(lower[:, None], tiles.last_states(), best)
            lowest = np.minimum(energy, lowest)
            np.testing.assert_array_equal(tiles.best.reshape(-1)[:20], lowest)
            np.testing.assert_array_equal(tiles.states(), best)
        assert (tiles.last_states() != best).any()
        once = tiles.lanes.stand(rows, start)
        once.anneal(heat, np.ones(12), draws, streams(once))
        np.testing.assert_array_equal(once.states(), best)

    def test_start_where_nothing_is_lower(self, kind):
        """Very hot walks leave a local optimum and do not find a better one."""
        qubo = problem(kind, 16, 40)
        tiles = case(qubo).lanes.stand(np.arange(16), some_states(qubo))
        anneal(tiles, 0.0, 30)
        optimum = tiles.last_states()
        tiles = tiles.lanes.stand(np.arange(16), optimum)
        anneal(tiles, 1e4, 1)
        np.testing.assert_array_equal(tiles.states(), optimum)
        assert (tiles.last_states() != optimum).any(axis=1).all()
