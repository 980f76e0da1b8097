"""Pools of states, and children of two of them, against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.lattice import pool as module
from solvers.lattice.pool import Pool
from solvers.qubo import QuboBatch
from solvers.testing import brute_force, example_batch, reference_energies
from tests.cases import some_states

pytestmark = pytest.mark.arithmetic

PATHS = 128
ALL = np.ones(6, bool)


def streams(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, rows, np.uint64)


def pool_of(qubo: QuboBatch, size: int, seed: int = 0, threads: int = 1) -> Pool:
    """A pool of random states."""
    pool = Pool.of(qubo, threads)
    for k in range(size):
        pool.add(some_states(qubo, 100 * seed + k))
    return pool


def couple(pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """The first two states of each row, the better one first."""
    better = pool.energies[:2].argmin(axis=0)
    return better, 1 - better


def child(pool: Pool, paths: int = PATHS, seed: int = 0) -> np.ndarray:
    return pool.children(*couple(pool), paths, streams(pool.qubo.rows, seed))


def near_states(qubo: QuboBatch, apart: int, seed: int = 0) -> Pool:
    """Two states of each row that differ in the given number of places."""
    rng = np.random.default_rng(seed)
    pool = Pool.of(qubo, 1)
    one = some_states(qubo, seed)
    other = one.copy()
    for x in other:
        x[rng.choice(qubo.n, apart, replace=False)] ^= 1
    pool.add(one)
    pool.add(other)
    return pool


def best_mixtures(pool: Pool) -> np.ndarray:
    """The lowest energies [R] of states that agree where the first two do."""
    one, other = pool.states[:2]
    agreed = np.where(one == other, one, -1).astype(np.int8)
    return brute_force(replace(pool.qubo, fixed=agreed))[1]


def ill_conditioned(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n // 2, n)) + 3
    return X.T @ X


def batches(rows: int, n: int) -> dict[str, QuboBatch]:
    rng = np.random.default_rng(1)
    weights = example_batch(rows, n, scale=rng.uniform(0.3, 3, (rows, n)))
    wild = example_batch(rows, n, definite=False)
    return {
        "definite": example_batch(rows, n),
        "indefinite": wild,
        "scale per weight": weights,
        "scale per row": example_batch(rows, n, scale=rng.uniform(0.3, 3, (rows, 1))),
        "indefinite, scale per weight": replace(
            wild, scale=rng.uniform(0.3, 3, (rows, n))
        ),
        "rank-deficient": replace(weights, H=ill_conditioned(n)),
        "in float32": replace(weights, H=weights.H.astype(np.float32)),
        "some pinned": replace(
            weights, fixed=rng.integers(-1, 2, (rows, n)).astype(np.int8)
        ),
        "without a diagonal": replace(wild, H=wild.H - np.diag(wild.H.diagonal())),
    }


NAMES = tuple(batches(1, 4))


class TestChildren:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_best_mixture_with_paths_enough(self, name):
        """With as many paths as there are mixtures, no mixture is given up."""
        qubo = batches(12, 10)[name]
        pool = pool_of(qubo, 2)
        differ = (pool.states[0] != pool.states[1]).sum(axis=1)
        assert differ.max() > 2
        found = reference_energies(qubo, child(pool, 2**10))
        np.testing.assert_allclose(found, best_mixtures(pool), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("paths", [1, 8, PATHS])
    def test_keep_what_parents_agree_on_and_are_no_worse(self, name, paths):
        qubo = batches(20, 40)[name]
        pool = pool_of(qubo, 2)
        states = child(pool, paths)
        assert states.dtype == np.uint8
        assert (states <= 1).all()
        agreed = pool.states[0] == pool.states[1]
        np.testing.assert_array_equal(states[agreed], pool.states[0][agreed])
        np.testing.assert_array_equal(qubo.pin(states), states)
        lower = pool.energies.min(axis=0)
        found = reference_energies(qubo, states)
        assert (found <= lower + 1e-6 * np.abs(lower)).all()
        # Two random states are far from the best that can be made of them.
        assert (found < lower - 1e-6 * np.abs(lower)).mean() > 0.8

    @given(st.integers(2, 9), st.integers(0, 10**6), st.booleans())
    @settings(max_examples=30, deadline=None)
    def test_any_couple(self, n, seed, definite):
        scale = np.random.default_rng(seed).uniform(0.3, 3, (4, n))
        pool = pool_of(example_batch(4, n, seed, definite, scale=scale), 2, seed)
        found = reference_energies(pool.qubo, child(pool, 2**n))
        np.testing.assert_allclose(found, best_mixtures(pool), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("apart", [0, 1])
    def test_of_neighbours(self, apart):
        """There is nothing to mix: the child is the better parent."""
        pool = near_states(example_batch(6, 20), apart)
        better, _ = couple(pool)
        np.testing.assert_array_equal(child(pool), pool.states[better, np.arange(6)])

    def test_more_paths_are_no_worse_on_the_whole(self):
        pool = pool_of(example_batch(40, 60), 2)
        energies = [
            reference_energies(pool.qubo, child(pool, paths)).sum()
            for paths in (1, 16, 256)
        ]
        assert energies == sorted(energies, reverse=True)
        assert energies[0] > energies[2]

    def test_few_variables_are_decided_anew(self, monkeypatch):
        """They are a random run of those that differ; each stream has its own run."""
        qubo = example_batch(30, 40)
        pool = pool_of(qubo, 2)
        monkeypatch.setattr(module, "MOST_MIXED", 6)
        better, _ = couple(pool)
        parent = pool.states[better, np.arange(30)]
        differ = pool.states[0] != pool.states[1]
        rank = np.where(differ, differ.cumsum(axis=1) - 1, -1)
        firsts, states = set(), []
        mixers = streams(30)
        before = mixers.copy()
        for _ in range(3):
            states.append(pool.children(*couple(pool), PATHS, mixers))
            for r, c in zip(rank, states[-1] != parent, strict=True):
                changed = r[c]
                if len(changed):
                    assert changed.max() - changed.min() < 6
                    firsts.add(int(changed.min()))
        assert (mixers != before).all()
        assert len(firsts) > 5
        assert (states[0] != states[1]).any()
        # All of them with room for all.
        monkeypatch.setattr(module, "MOST_MIXED", 40)
        assert ((child(pool) != parent).sum(axis=1) > 6).any()

    def test_the_run_is_mixed_as_well_as_it_can_be(self, monkeypatch):
        monkeypatch.setattr(module, "MOST_MIXED", 5)
        qubo = example_batch(20, 12, definite=False)
        pool = pool_of(qubo, 2)
        better, _ = couple(pool)
        parent = pool.states[better, np.arange(20)]
        found = child(pool, 2**5)
        for r in range(20):
            places = np.flatnonzero(pool.states[0][r] != pool.states[1][r])
            runs = [places[k : k + 5] for k in range(max(len(places) - 4, 1))]
            lowest = []
            for run in runs:
                agreed = parent[r].astype(np.int8)
                agreed[run] = -1
                row = replace(qubo.take([r]), fixed=agreed[None])
                lowest.append(brute_force(row)[1][0])
            energy = reference_energies(qubo.take([r]), found[r : r + 1])[0]
            assert np.isclose(lowest, energy, rtol=1e-9).any()

    def test_same_on_two_threads(self):
        qubo = batches(15, 30)["scale per weight"]
        one, two = (pool_of(qubo, 2, threads=threads) for threads in (1, 2))
        np.testing.assert_array_equal(one.energies, two.energies)
        np.testing.assert_array_equal(child(one), child(two))

    def test_of_a_row_do_not_depend_on_the_others(self):
        pool = pool_of(batches(9, 30)["indefinite"], 2)
        few = replace_rows(pool, slice(0, 4))
        mixers = streams(9)
        better, worse = couple(pool)
        whole = pool.children(better, worse, PATHS, mixers.copy())
        part = few.children(better[:4], worse[:4], PATHS, mixers[:4].copy())
        np.testing.assert_array_equal(whole[:4], part)

    def test_parents_are_left_alone(self):
        pool = pool_of(example_batch(5, 20), 3)
        before = pool.states.copy()
        child(pool)
        np.testing.assert_array_equal(pool.states, before)


def replace_rows(pool: Pool, rows: slice) -> Pool:
    return Pool(
        pool.qubo.take(rows), 1, pool.states[:, rows], pool.energies[:, rows].copy()
    )


class TestParents:
    @pytest.mark.parametrize("size", [2, 3, 8])
    def test_two_different_ones_the_better_first(self, size):
        pool = pool_of(example_batch(6, 12), size)
        choosers = [np.random.default_rng(r) for r in range(6)]
        better, worse = pool.parents(choosers, 200)
        assert better.shape == worse.shape == (200, 6)
        for places in (better, worse):
            assert places.min() >= 0
            assert places.max() < size
        assert (better != worse).all()
        rows = np.arange(6)
        assert (pool.energies[better, rows] <= pool.energies[worse, rows]).all()
        # All couples of every row.
        for r in rows:
            couples = {frozenset(c) for c in zip(better[:, r], worse[:, r])}  # noqa: B905
            assert len(couples) == size * (size - 1) // 2

    def test_rows_choose_for_themselves(self):
        pool = pool_of(example_batch(4, 12), 5)
        whole = pool.parents([np.random.default_rng(r) for r in range(4)], 9)
        few = replace_rows(pool, slice(0, 1)).parents([np.random.default_rng(0)], 9)
        for one, other in zip(whole, few, strict=True):
            np.testing.assert_array_equal(one[:, :1], other)
        assert (whole[0][:, 0] != whole[0][:, 1]).any()


class TestPool:
    def test_adds_and_finds_the_best(self):
        qubo = example_batch(5, 15)
        pool = Pool.of(qubo, 1)
        assert len(pool) == 0
        states = [some_states(qubo, seed) for seed in range(4)]
        for k, each in enumerate(states):
            pool.add(each)
            assert len(pool) == k + 1
            expected = reference_energies(qubo, each)
            np.testing.assert_allclose(pool.energies[k], expected, rtol=1e-9)
        np.testing.assert_array_equal(pool.states, states)
        lowest = reference_energies(qubo, np.stack(states, axis=1)).min(axis=1)
        found = reference_energies(qubo, pool.best())
        np.testing.assert_allclose(found, lowest)

    @given(st.integers(0, 10**6), st.integers(2, 5))
    @settings(max_examples=30, deadline=None)
    def test_replacement_never_makes_it_worse(self, seed, size):
        rng = np.random.default_rng(seed)
        qubo = example_batch(6, 5, seed, definite=bool(seed % 2))
        pool = pool_of(qubo, size, seed)
        for k in range(10):
            before, old = np.sort(pool.energies, axis=0), pool.energies.copy()
            worse = rng.integers(0, size, 6)
            states = some_states(qubo, seed + 1000 + k)
            known = (pool.states == states).all(axis=2).any(axis=0)
            taken = pool.replace(states, worse, ALL)
            after = np.sort(pool.energies, axis=0)
            assert (after <= before).all()
            exact = reference_energies(qubo, pool.states.transpose(1, 0, 2)).T
            np.testing.assert_allclose(pool.energies, exact, rtol=1e-9, atol=1e-9)
            changed = pool.energies != old
            np.testing.assert_array_equal(taken, changed.any(axis=0))
            assert (changed.sum(axis=0) <= 1).all()
            # In the pool already, or no better than its worst: not taken; else it is.
            better = reference_energies(qubo, states) < old.max(axis=0) - 1e-9
            np.testing.assert_array_equal(changed.any(axis=0), better & ~known)

    def test_takes_the_place_of_the_worse_parent_or_the_worst(self):
        qubo = QuboBatch.from_matrix(np.diag([1.0, 2.0, 4.0]), np.zeros((3, 3)))
        # Energies 1, 6 and 4.
        pool = Pool.of(qubo, 1)
        for x in ([1, 0, 0], [0, 1, 1], [0, 0, 1]):
            pool.add(np.tile(np.array(x, np.uint8), (3, 1)))
        new = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], np.uint8)
        assert pool.replace(new, np.array([2, 2, 2]), ALL[:3]).tolist() == [1, 1, 0]
        np.testing.assert_array_equal(
            pool.energies.T, [[1, 6, 3], [1, 5, 4], [1, 6, 4]]
        )

    def test_keeps_out_what_it_knows(self):
        pool = pool_of(example_batch(6, 15), 4)
        best, before = pool.best(), pool.states.copy()
        worst = pool.energies.argmax(axis=0)
        assert not pool.replace(best, worst, ALL).any()
        np.testing.assert_array_equal(pool.states, before)

    def test_states_added_are_copied(self):
        qubo = example_batch(2, 6)
        states = some_states(qubo)
        pool = Pool.of(qubo, 1)
        pool.add(states)
        states ^= 1
        assert (pool.states[0] != states).all()
