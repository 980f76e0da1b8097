"""What tabu runs begin with and end in: pools, paths, parts."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from solvers.flips.tabu import Tabu
from solvers.kernels import tabu, tabu_parts, tabu_rounds
from solvers.kernels.streams import GOLDEN
from solvers.testing import (
    reference_energies,
)
from tests.cases import flip_costs, make, some_states
from tests.test_tabu_kernels import stand, states_of

F = np.float32
# As Python can call it; not cached, where it would pass for the kernel.
SWEEP_PARTS = numba.njit(error_model="numpy")(tabu_parts.sweep_parts.py_func)


class TestPool:
    def left(self, relink: float, seed: int, weak: int = 3, strong: int = 7):
        """A walk that has left the first of two states of a full pool."""
        qubo = make(1, 60, seed=2)
        pool = np.stack([some_states(qubo, seed=k)[0] for k in (1, 2)])[None]
        walk = stand(qubo, pool[:, 0])
        before = reference_energies(qubo, pool[:, 0])
        options = Tabu().rules(60)
        rules = options._replace(relink=relink, weakest=weak, strongest=strong)
        held, rng = np.array([2]), np.array([seed], np.uint64)
        steps, change = tabu_rounds.leave(
            walk.matrix, walk.position()[1], 0, 0, rules, pool, held, rng
        )
        x = states_of(walk)
        after = reference_energies(qubo, x)
        assert change * walk.unit[0] == pytest.approx((after - before)[0], rel=1e-4)
        np.testing.assert_array_equal(qubo.pin(x), x)
        costs = flip_costs(qubo, x)[0]
        free = np.isfinite(costs)
        # Runs begin with the costs of where they stand.
        held = walk.cost[0, :60][free] * walk.unit[0]
        np.testing.assert_allclose(held, costs[free], atol=1e-5 * max(abs(costs[free])))
        return pool[0], x[0], steps

    @pytest.mark.parametrize("seed", range(8))
    def test_relinking_ends_between(self, seed):
        (a, b), x, steps = self.left(1.0, seed)
        distance = (a != b).sum()
        assert (a != x).sum() == steps
        assert (a != x).sum() + (x != b).sum() == distance
        assert distance / 3 <= steps <= 2 * distance / 3 + 1

    @pytest.mark.parametrize("seed", range(8))
    def test_perturbation(self, seed):
        (a, _), x, steps = self.left(0.0, seed)
        assert 3 <= steps <= 7
        assert (a != x).sum() == steps

    def test_a_perturbation_is_of_what_is_drawn(self):
        walks = [self.left(0.0, seed, 60, 60)[:2] for seed in range(20)]
        flipped = [(pool[0] != x).sum() for pool, x in walks]
        # Half of the free variables, of which there are about 48.
        assert 18 < np.mean(flipped) < 30
        assert len(set(flipped)) > 3

    def test_offers(self):
        states, energies = np.zeros((1, 3, 4), np.uint8), np.full((1, 3), np.inf)
        held = np.zeros(1, np.int64)
        rng = np.random.default_rng(0)
        offered = {}
        for _ in range(200):
            x = rng.integers(0, 2, 4, np.uint8)
            energy = float(x @ [8, 4, 2, 1])
            known = sorted(offered)[:3]
            taken = tabu_rounds.offer(states, energies, held, 0, x, energy, 1e-9)
            new = energy not in offered
            offered[energy] = x
            assert taken == (new and (len(known) < 3 or energy < known[-1]))
            best = sorted(offered)[:3]
            assert sorted(energies[0, : held[0]]) == best
            for k in range(held[0]):
                np.testing.assert_array_equal(states[0, k], offered[energies[0, k]])
        assert len(offered) == 16

    def test_states_of_equal_energy_are_kept_apart(self):
        states, energies = np.zeros((1, 3, 2), np.uint8), np.full((1, 3), np.inf)
        held = np.zeros(1, np.int64)
        for x in ([0, 1], [1, 0], [0, 1], [1, 0]):
            tabu_rounds.offer(states, energies, held, 0, np.array(x, np.uint8), 1.0, 0)
        assert held[0] == 2

    def test_a_pool_begins_anew_from_its_best(self):
        states = np.arange(6, dtype=np.uint8).reshape(1, 3, 2)
        energies, held = np.array([[2.0, 1.0, 3.0]]), np.array([3])
        tabu_rounds.empty(states, energies, held, 0)
        np.testing.assert_array_equal(states[0, 0], [2, 3])
        np.testing.assert_array_equal(energies, [[1.0, np.inf, np.inf]])
        assert held[0] == 1

    @pytest.mark.parametrize("subsize", [1, 5, 16, 47])
    def test_parts(self, subsize):
        """Each part improves with the rest clamped: never worse, bookkeeping right."""
        qubo = make(2, 47, seed=4)
        start = some_states(qubo)
        walk = stand(qubo, start)
        order = np.empty(47, np.int64)
        rng = np.zeros(2, np.uint64)
        for r in range(2):
            limits = subsize, subsize, 3, walk.noise[r]
            free, _ = SWEEP_PARTS(
                walk.matrix, walk.position()[1], r, *limits, order, rng
            )
            assert free == qubo.free(r).sum()
            assert set(order[:free]) == set(np.flatnonzero(qubo.free(r)))
        x = states_of(walk)
        np.testing.assert_array_equal(qubo.pin(x), x)
        gain = reference_energies(qubo, start) - reference_energies(qubo, x)
        assert (gain > 0).all()
        real = flip_costs(qubo, x)
        free = np.isfinite(real)
        held = walk.cost[:, :47] * walk.unit[:, None]
        np.testing.assert_allclose(held[free], real[free], atol=1e-5 * real[free].max())

    @pytest.mark.parametrize("subsize", [1, 2, 3, 8])
    def test_in_parts_something_may_always_flip(self, subsize):
        """At most half of a part is tabu: every iteration draws for a flip."""
        qubo = make(1, 24, seed=4)
        walk = stand(qubo, some_states(qubo))
        order, rng = np.empty(24, np.int64), np.zeros(1, np.uint64)
        limits = subsize, 5 * subsize, 5, walk.noise[0]
        _, made = SWEEP_PARTS(walk.matrix, walk.position()[1], 0, *limits, order, rng)
        assert made > 24
        np.testing.assert_array_equal(rng, np.array([made], np.uint64) * GOLDEN)

    def test_parts_are_ordered_by_cost(self):
        cost = np.array([[3, -1, tabu.NEVER, 2]], F)
        order = np.empty(4, np.int64)
        assert tabu_parts.by_cost(cost, 0, 4, order) == 3
        np.testing.assert_array_equal(order[:3], [1, 3, 0])
