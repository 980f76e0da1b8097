"""The kernels of tabu search against plain numpy: moves, runs, pools, parts."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.flips.tabu_walk import TabuWalk, run_length
from solvers.kernels import tabu
from solvers.qubo import QuboBatch
from solvers.testing import (
    example_batch,
    reference_energies,
)
from tests.cases import SIZES, flip_costs, make, some_states

pytestmark = pytest.mark.arithmetic

F = np.float32
# As Python can call them; not cached, where they would pass for the kernels.
STAND, TURN, UPDATE, RUN, FOLLOW, ENERGY = (
    numba.njit(error_model="numpy")(kernel.py_func)
    for kernel in (
        *(tabu.stand, tabu.turn, tabu.update, tabu.tabu),
        *(tabu.follow, tabu.exact_energy),
    )
)


def stand(qubo: QuboBatch, states: np.ndarray) -> TabuWalk:
    """A walk with signs, costs and energies set."""
    walk = TabuWalk.at(qubo, states)
    for r in range(qubo.rows):
        scale, linear, offset, barred, unit, root, _ = walk.model(qubo)
        STAND(
            walk.exact,
            scale,
            barred,
            unit,
            root,
            r,
            walk.noise,
            walk.here,
            walk.u,
            walk.z,
            walk.cost,
        )
        energy = ENERGY(scale, linear, offset, r, walk.here, walk.u)
        walk.value[r] = energy / unit[r]
        walk.lowest[r] = walk.value[r]
    return walk


def states_of(walk: TabuWalk) -> np.ndarray:
    return (walk.z[:, : len(walk.H)] < 0).astype(np.uint8)


def flip(walk: TabuWalk, r: int, i: int, until: float = 0, clock: float = 0) -> float:
    step = TURN(walk.H, walk.z, walk.cost, walk.expiry, r, i, F(until))
    return UPDATE(
        walk.H, walk.z, walk.cost, walk.expiry, r, i, step, F(clock), -tabu.NEVER,
        walk.index, walk.low,
    )  # fmt: skip


def index_of(walk: TabuWalk, least: float) -> int:
    return int(F(least).view(np.int32) & walk.low)


def run(walk: TabuWalk, r: int, iterations: int, tenure: int, spread: int = 0) -> int:
    rng = np.arange(len(walk.z), dtype=np.uint64)
    state = walk.position()[1]
    limits = iterations, 10**6, tenure, spread, walk.noise[r]
    return RUN(walk.matrix, state, r, *limits, rng)


class TestMoves:
    @pytest.mark.parametrize("n", SIZES)
    def test_costs_follow_the_flips(self, n):
        qubo = make(3, n, seed=n)
        walk = stand(qubo, some_states(qubo))
        rng = np.random.default_rng(n)
        for r in range(3):
            for i in rng.permutation(np.flatnonzero(qubo.free(r)))[:20]:
                least = flip(walk, r, i)
                k = index_of(walk, least)
                costs = walk.cost[r, :n]
                # The low bits of a float32 hold the index of the least.
                assert costs[k] <= costs.min() + 2e-5 * n * abs(costs.min())
        real = flip_costs(qubo, states_of(walk))
        free = np.isfinite(real)
        held = walk.cost[:, :n] * walk.unit[:, None]
        largest = np.abs(real[free]).max(initial=0)
        np.testing.assert_allclose(held[free], real[free], atol=3e-6 * largest)
        assert (walk.cost[:, :n][~free] >= tabu.NONE).all()
        assert (walk.cost[:, n:] >= tabu.NONE).all()

    def test_what_may_flip(self):
        """Variables may flip if expired or below the aspiration; pinned ones never."""
        qubo = replace(
            QuboBatch.from_matrix(np.diag([-4.0, -3.0, -2.0, -1.0])),
            fixed=np.array([[0, -1, -1, -1]], np.int8),
        )
        walk = stand(qubo, np.zeros((1, 4), np.uint8))
        walk.expiry[0, 1:3] = 5

        def chosen(clock: float, below: float) -> int:
            least = tabu.look(
                walk.H, walk.z, walk.cost, walk.expiry, 0, F(clock),
                F(below / walk.unit[0]), walk.index, walk.low,
            )  # fmt: skip
            return index_of(walk, least) if least < tabu.NONE else -1

        assert chosen(4, -9) == 3
        assert chosen(5, -9) == 1
        assert chosen(4, -2.5) == 1
        walk.expiry[0] = tabu.FOREVER
        assert chosen(100, -9) == -1
        assert chosen(100, -1.5) == 1

    @pytest.mark.parametrize("n", [9, 33, 147])
    def test_whole_numbers_stay_whole(self, n):
        """Units are powers of 2: integer models are exact, after any flips."""
        rng = np.random.default_rng(n)
        Q = rng.integers(-50, 51, (n, n))
        qubo = QuboBatch.from_matrix(Q + Q.T, 7 * rng.integers(-50, 51, (2, n)))
        walk = stand(qubo, some_states(qubo))
        for r in range(2):
            run(walk, r, 500, 3, 4)
        costs = walk.cost[:, :n] * walk.unit[:, None]
        np.testing.assert_array_equal(costs, flip_costs(qubo, states_of(walk)))

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 40), st.integers(0, 100), st.integers(1, 300))
    def test_energies_follow(self, n, seed, iterations):
        qubo = make(2, n, seed=seed)
        walk = stand(qubo, some_states(qubo))
        start = walk.lowest.copy()
        for r in range(2):
            free = int(qubo.free(r).sum())
            run(walk, r, iterations, free // 2)
        real = reference_energies(qubo, states_of(walk))
        best = reference_energies(qubo, walk.best)
        size = np.abs(walk.unit)
        np.testing.assert_allclose(
            walk.value * walk.unit / size, real / size, atol=1e-5
        )
        np.testing.assert_allclose(
            walk.lowest * walk.unit / size, best / size, atol=1e-5
        )
        assert (walk.lowest <= start).all()
        np.testing.assert_array_equal(qubo.pin(walk.best), walk.best)

    @pytest.mark.parametrize(("tenure", "spread"), [(1, 0), (4, 0), (12, 0), (3, 5)])
    def test_tenure_forbids(self, tenure, spread):
        """No variable flips again within its tenure, and some do soon after."""
        qubo = example_batch(1, 30, seed=1)
        walk = stand(qubo, qubo.nearest())
        walk.lowest[0] = -1e9  # out of reach: no aspiration
        last, waits = {}, []
        for k in range(400):
            before = states_of(walk)[0]
            assert run(walk, 0, 1, tenure, spread) == 1
            (i,) = np.flatnonzero(states_of(walk)[0] != before)
            waits.append(k - last.get(i, -(10**9)))
            last[i] = k
        assert tenure < min(waits) <= tenure + spread + 3
        assert walk.clock[0] == 400

    @pytest.mark.parametrize(("tenure", "spread"), [(3, 0), (3, 5)])
    def test_tenures_are_spread(self, tenure, spread):
        """Each flip draws how much longer than the tenure it is tabu."""
        qubo = example_batch(1, 30, seed=1)
        walk = stand(qubo, qubo.nearest())
        rng, state = np.zeros(1, np.uint64), walk.position()[1]
        drawn = []
        for _ in range(200):
            limits = 1, 10**6, tenure, spread, walk.noise[0]
            RUN(walk.matrix, state, 0, *limits, rng)
            drawn.append(int(walk.expiry[0].max() - walk.clock[0]))
        assert set(drawn) == set(range(tenure, tenure + spread + 1))

    def test_small_gains_count(self):
        """A thousandth of the usual cost is no rounding of float32."""
        qubo = QuboBatch.from_matrix(np.diag([-1.0, -1e-3, 1.0, 1.0, 1.0, 1.0]))
        walk = stand(qubo, np.zeros((1, 6), np.uint8))
        run(walk, 0, 2, 1)
        np.testing.assert_array_equal(walk.best, [[1, 1, 0, 0, 0, 0]])

    def test_aspiration(self):
        """A tabu flip that leads below the lowest energy is made."""
        qubo = QuboBatch.from_matrix(np.diag([-5.0, 1.0, 1.0]))
        for lowest, expected in ((0.0, [1, 0, 0]), (-100.0, [0, 1, 0])):
            walk = stand(qubo, np.zeros((1, 3), np.uint8))
            walk.expiry[0, 0] = 100
            walk.lowest[0] = lowest / walk.unit[0]
            run(walk, 0, 1, 5)
            np.testing.assert_array_equal(states_of(walk), [expected])

    def test_time_passes_where_all_is_tabu(self):
        qubo = example_batch(1, 5)
        walk = stand(qubo, qubo.nearest())
        walk.lowest[0] = -1e9
        walk.expiry[:] = 50
        run(walk, 0, 50, 2)
        np.testing.assert_array_equal(states_of(walk), qubo.nearest())
        run(walk, 0, 1, 2)
        assert (states_of(walk) != qubo.nearest()).sum() == 1

    def test_a_run_ends(self):
        """A run ends after its patience without progress, or by its length."""
        qubo = example_batch(1, 20)
        walk = stand(qubo, qubo.nearest())
        state, limits = walk.position()[1], (0, 10**6, 15, 3, 2)
        rng = np.zeros(1, np.uint64)
        RUN(walk.matrix, state, *limits, walk.noise[0], rng)
        assert walk.clock[0] == walk.found[0] + 15
        # Energies that sink for ever, as a drift of rounding would have them.
        state = state._replace(clock=walk.clock * 0, found=walk.found * 0)
        made = RUN(walk.matrix, state, *limits, walk.noise[0] - 1e9, rng)
        assert made == 15 * tabu.PATIENCES
        assert run_length(1e9, 10**6) * tabu.PATIENCES <= 2**24

    @pytest.mark.parametrize("steps", [0, 1, 5, 100])
    def test_forced_walk(self, steps):
        """The cheapest of the allowed variables at each step, none twice."""
        qubo = example_batch(2, 25, seed=3)
        walk = stand(qubo, some_states(qubo))
        allowed = np.random.default_rng(0).random(25) < 0.5
        walk.expiry[1, :25] = np.where(allowed, tabu.FREE, tabu.FOREVER)
        x = states_of(walk)
        before = reference_energies(qubo, x)[1]
        made, change = tabu.forced(
            walk.H, walk.z, walk.cost, walk.expiry, 1, steps, walk.index, walk.low
        )
        assert made == min(steps, allowed.sum())
        for _ in range(made):
            costs = np.where(allowed, flip_costs(qubo, x)[1], np.inf)
            i = costs.argmin()
            x[1, i] ^= 1
            allowed[i] = False
        np.testing.assert_array_equal(states_of(walk), x)
        after = reference_energies(qubo, x)[1]
        assert change * walk.unit[1] == pytest.approx(after - before, rel=1e-4)

    @pytest.mark.parametrize("n", SIZES)
    def test_fields_follow_states(self, n):
        qubo = make(2, n, seed=n)
        walk = TabuWalk.at(qubo, some_states(qubo))
        target = some_states(qubo, seed=5)
        which, step = np.empty(n, np.int64), np.empty(n)
        scale = qubo.full_scale()
        for r in range(2):
            FOLLOW(walk.exact, scale, r, target[r], walk.here, walk.u, which, step)
        np.testing.assert_array_equal(walk.here, target)
        np.testing.assert_allclose(
            walk.u, TabuWalk.at(qubo, target).u, atol=1e-9 * np.abs(walk.u).max()
        )
        for r in range(2):
            energy = ENERGY(scale, qubo.linear, qubo.offset, r, walk.here, walk.u)
            assert energy == pytest.approx(reference_energies(qubo, target)[r])

    def test_noise_of_a_run(self):
        """Noise is in proportion to the costs; a few large costs hardly matter."""
        qubo = example_batch(1, 60)
        walk = stand(qubo, qubo.nearest())
        sizes = np.abs(walk.cost[0, :60])
        mean = np.exp(np.log(sizes.astype(float)).mean())
        assert 0.8 * mean < walk.noise[0] / tabu.NOISE < 1.3 * mean
        walk.cost[0, :2] = 1e9 * sizes.max(), 0.0
        assert tabu.rounding(walk.cost, 0, 60) < 2 * walk.noise[0]
        walk.cost[0, 2:] = tabu.NEVER
        walk.cost[0, :2] = 0.0
        assert tabu.rounding(walk.cost, 0, 60) == 0.0
