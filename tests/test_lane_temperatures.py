"""Walks at given temperatures; costs of moves; what lanes hold."""

# ruff: noqa: F811  (the fixture is an argument)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.kernels.lanes import LINES
from solvers.kernels.vectors import LANES
from solvers.lattice import lanes as module
from solvers.lattice.lanes import thresholds
from solvers.lattice.moves import Vectors
from solvers.qubo import QuboBatch
from solvers.testing import example_batch, reference_energies
from tests.cases import some_states
from tests.lane_cases import (
    anneal,
    brute_costs,
    by_walk,
    case,
    check,
    gains,
    kind,  # noqa: F401  (a fixture)
    mean_square,
    problem,
    some_pinned,
    streams,
)


class TestTemperatures:
    def test_zero_ends_where_no_move_is_better(self, kind):
        qubo = some_pinned(problem(kind, 20, 30))
        one = case(qubo)
        tiles = one.lanes.stand(np.arange(20), some_states(qubo))
        anneal(tiles, 0.0, 60)
        before = tiles.counts.copy()
        anneal(tiles, 0.0, 2, seed=1)
        np.testing.assert_array_equal(tiles.counts, before)
        np.testing.assert_array_equal(tiles.states(), tiles.last_states())
        together = Vectors.join(*one.library)
        costs = brute_costs(qubo, qubo.pin(tiles.last_states()), together)
        costs /= mean_square(one.lanes, np.arange(20))[:, None]
        half = 0.5 * tiles.M.reshape(-1)[:20, None]
        assert (costs >= -1e-5 * half * tiles.lanes.unit.max()).all()
        # It says something: most moves are possible, and at the start many are better.
        assert (brute_costs(qubo, some_states(qubo), together) < 0).mean() > 0.05

    def test_zero_never_climbs(self, kind):
        qubo = problem(kind, 20, 30)
        rows, start = np.arange(20), some_states(qubo)
        tiles = case(qubo).lanes.stand(rows, start)
        before = np.zeros(20)
        for seed in range(4):
            anneal(tiles, 0.0, 1, seed)
            after = gains(tiles, rows, start, tiles.last_states())
            assert (after <= before + 1e-4).all()
            before = after

    def test_each_walk_has_its_own(self, kind):
        qubo = problem(kind, 1, 30)
        rows = np.zeros(32, int)
        tiles = case(qubo).lanes.stand(rows, np.repeat(qubo.nearest(), 32, axis=0))
        anneal(tiles, 0.0, 30)
        stand = tiles.lanes.stand(rows, tiles.states())
        heat = np.where(np.arange(32) % 2, 1e3, 0.0)
        stand.anneal(heat, np.ones(1), thresholds(0), streams(stand))
        moved = (stand.last_states() != tiles.states()).any(axis=1)
        np.testing.assert_array_equal(moved, heat > 0)

    def test_factors(self, kind):
        qubo = problem(kind, 20, 30)
        lanes, start = case(qubo).lanes, some_states(qubo)
        one, two = (lanes.stand(np.arange(20), start) for _ in range(2))
        anneal(one, 4.0, 3)
        two.anneal(np.full(20, 8.0), np.full(3, 0.5), thresholds(0), streams(two))
        np.testing.assert_array_equal(one.F, two.F)

    @pytest.mark.parametrize("kinds", ["singles", "quads"])
    def test_samples_boltzmann(self, kind, kinds, monkeypatch):
        """A move and its reverse are as likely, so Metropolis' rule gives exp(-E / T).

        Thresholds are quantiles, so the frequencies are near, not random about, that.
        """
        monkeypatch.setattr(module, "BLOCK", 4)
        n, walks, calls = 5, 800, 40
        one = some_pinned(problem(kind, 2, n, seed=3))
        one = replace(one, fixed=None, H=one.H / 4, linear=one.linear / 4)
        lanes = case(one, kinds, 40).lanes
        if kind.startswith("blocks"):
            assert len(lanes.blocks.near) > 1
        rows = np.arange(walks) % 2
        tiles = lanes.stand(rows, some_states(one.take(rows)))
        counts = np.zeros((2, 2**n))
        powers = 2 ** np.arange(n)
        for seed in range(calls + 3):
            anneal(tiles, 0.7, 4, seed)
            if seed >= 3:
                place = tiles.last_states() @ powers
                np.add.at(counts, (rows, place), 1 / (calls * walks / 2))
        every = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.uint8)
        energies = reference_energies(one, np.stack([every, every]))
        energies /= mean_square(lanes, np.arange(2))[:, None]
        p = np.exp(-(energies - energies.min(axis=1, keepdims=True)) / 0.7)
        p /= p.sum(axis=1, keepdims=True)
        # Several states matter, and all are found as often as they should be.
        assert ((p > 0.02).sum(axis=1) >= 5).all()
        assert np.abs(counts - p).max() < 0.015
        assert np.abs(counts - p).sum(axis=1).max() < 0.06


class TestCosts:
    def test_equal_brute_force(self, kind):
        qubo = some_pinned(problem(kind.removesuffix(", scaled"), 20, 24))
        one, rows = case(qubo), np.arange(20)
        tiles = one.lanes.stand(rows, some_states(qubo))
        anneal(tiles, 10.0)
        here = qubo.pin(tiles.last_states())
        for vectors in (Vectors.join(*one.library), *one.library):
            exact = brute_costs(qubo, here, vectors)
            exact /= mean_square(one.lanes, rows)[:, None]
            found = tiles.costs(vectors)
            np.testing.assert_array_equal(np.isinf(found), np.isinf(exact))
            possible = np.isfinite(exact)
            assert 0 < possible.mean() < 1
            np.testing.assert_allclose(found[possible], exact[possible], atol=2e-3)

    def test_of_a_scale_that_varies(self, kind):
        """Costs are only rough then; which moves are feasible is still exact."""
        qubo = problem(kind, 20, 24)
        one = case(qubo)
        tiles = one.lanes.stand(np.arange(20), some_states(qubo))
        together = Vectors.join(*one.library)
        exact = brute_costs(qubo, some_states(qubo), together)
        found = tiles.costs(together)
        np.testing.assert_array_equal(np.isinf(found), np.isinf(exact))


class TestLanes:
    def test_blocks_hold_the_whole_library(self, monkeypatch):
        qubo = problem("", 2, 60)
        whole = case(qubo).lanes
        monkeypatch.setattr(module, "WHOLE", 16)
        monkeypatch.setattr(module, "BLOCK", 16)
        cut = case(qubo).lanes
        assert cut.count == whole.count
        blocks, bounds, near = cut.blocks
        for c in range(3):
            found, expected = [], []
            for g in range(len(near)):
                inside = blocks[bounds[g] : bounds[g + 1]]
                part = slice(cut.ends[g, c], cut.ends[g + 1, c])
                moves = cut.moves[c]
                used = moves.coef[part] != 0
                found += [
                    sorted(zip(inside[w[u]], v[u], strict=True))
                    for w, v, u in zip(
                        moves.which[part], moves.coef[part], used, strict=True
                    )
                ]
                np.testing.assert_array_equal(
                    near[g, : len(inside), : len(inside)],
                    cut.H[np.ix_(inside, inside)],
                )
            for w, v in zip(whole.moves[c].which, whole.moves[c].coef, strict=True):
                expected.append(sorted(zip(w[v != 0], v[v != 0], strict=True)))
            assert sorted(found) == sorted(expected)

    @pytest.mark.parametrize("whole", [0, 256])
    def test_no_moves(self, whole, monkeypatch):
        monkeypatch.setattr(module, "WHOLE", whole)
        qubo = QuboBatch.from_matrix(np.zeros((3, 3)), np.ones((2, 3)))
        assert case(qubo).lanes.count == 0

    @pytest.mark.parametrize("factor", [2.0**-50, 2.0**50])
    def test_extreme_energies(self, kind, factor):
        qubo = replace(problem(kind, 16, 30), offset=np.zeros(16))
        other = replace(qubo, H=factor * qubo.H, linear=factor * qubo.linear)
        rows, start, seen = np.arange(16), some_states(qubo), []
        for each, heat in ((qubo, 5.0), (other, 5.0 * factor)):
            tiles = case(each).lanes.stand(rows, start)
            anneal(tiles, heat)
            check(tiles, rows, start)
            seen.append(tiles.states())
        np.testing.assert_array_equal(*seen)

    def test_a_large_field_of_an_uncoupled_variable_blinds_nobody(self, kind):
        """The variable is in no move, so it should not cost the others their digits."""
        qubo = problem(kind, 16, 31)
        H, linear = qubo.H.copy(), qubo.linear.copy()
        H[30], H[:, 30], linear[:, 30] = 0, 0, 1e9
        qubo = replace(qubo, H=H, linear=linear)
        one, rows, start = case(qubo), np.arange(16), some_states(qubo)
        tiles = one.lanes.stand(rows, start)
        anneal(tiles, 0.0, 60)
        together = Vectors.join(*one.library)
        costs = brute_costs(qubo, tiles.last_states(), together)
        assert (costs >= -1e-2).all()

    def test_a_row_does_not_depend_on_the_others(self):
        """This holds even if the scale varies in the other row alone."""
        scale = np.random.default_rng(0).uniform(0.5, 2, (2, 40))
        scale[0] = 0.7
        qubo = example_batch(2, 40, scale=scale)
        start, fields = some_states(qubo), []
        for rows in (slice(0, 1), slice(0, 2)):
            tiles = case(qubo.take(rows)).lanes.stand(
                np.arange(qubo.rows)[rows], start[rows]
            )
            anneal(tiles, 10.0, 20)
            fields.append(by_walk(tiles.F, 1))
        np.testing.assert_array_equal(*fields)


def test_thresholds():
    """Every lane has each quantile of an exponential distribution once."""
    draws = thresholds(3)
    assert draws.shape == (LINES, LANES)
    assert draws.dtype == np.float32
    uniform = np.sort(-np.expm1(-draws.astype(np.float64)), axis=0)
    strata = np.arange(LINES)[:, None] / LINES
    assert (uniform >= strata - 1e-6).all()
    assert (uniform <= strata + 1 / LINES + 1e-6).all()
    assert (draws >= 0).all()
    assert np.isfinite(draws).all()
    np.testing.assert_array_equal(draws, thresholds(3))
    assert (draws != thresholds(4)).any()
    # Lanes are shuffled each on its own.
    order = draws.argsort(axis=0)
    assert len(np.unique(order.T, axis=0)) == LANES
