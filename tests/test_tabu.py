"""Tabu search: its answers by brute force, its limits, its options."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.flips.tabu import Tabu
from solvers.io.files import read_qubo
from solvers.kernels import tabu_rounds
from solvers.polish import descend
from solvers.qubo import QuboBatch
from solvers.testing import (
    brute_force,
    check_solver,
    example_batch,
    reference_energies,
)
from solvers.threads import over_rows
from tests.cases import flip_costs, make
from tests.clocks import Clock

pytestmark = pytest.mark.arithmetic


def with_large(large: float, n: int, of: tuple[int, int] = (0, 0)) -> QuboBatch:
    """The problem with one coefficient that dwarfs all others."""
    Q = np.random.default_rng(n).normal(size=(n, n))
    Q[of] += large
    return QuboBatch.from_matrix(Q)


class TestAnswers:
    @pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12])
    @pytest.mark.parametrize("definite", [True, False])
    def test_optimum_of_small_problems(self, n, definite):
        qubo = example_batch(4, n, seed=n, definite=definite)
        _, lowest = brute_force(qubo)
        found = Tabu().solve(qubo, budget=Budget(sweeps=1000))
        np.testing.assert_allclose(found.energies, lowest, rtol=1e-9, atol=1e-9)

    def test_optimum_of_sparse_and_pinned_problems(self):
        rng = np.random.default_rng(0)
        sparse = rng.normal(size=(12, 12)) * (rng.random((12, 12)) < 0.15)
        for qubo in (
            QuboBatch.from_matrix(sparse, rng.normal(size=(3, 12))),
            make(4, 12, seed=1),
            make(4, 12, seed=2, dtype=np.float32),
        ):
            _, lowest = brute_force(qubo)
            found = Tabu().solve(qubo, budget=Budget(sweeps=1000))
            np.testing.assert_allclose(found.energies, lowest, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize(
        "options",
        [
            {"pool": 1, "subsize": 0},
            {"relink": 1.0, "pool": 2, "tenure": 7},
            {"relink": 0.0, "weakest": 0.0, "strongest": 1.0, "share": 1.0},
            {"patience": 0.01, "subsize": 1},
        ],
    )
    def test_conformance_of_options(self, options):
        assert check_solver(Tabu(num_sweeps=30, **options)) == []

    @pytest.mark.filterwarnings("ignore:overflow encountered")
    @pytest.mark.parametrize("factor", [2.0**150, 2.0**-150])
    def test_any_unit(self, factor):
        qubo = example_batch(2, 30)
        other = replace(
            qubo,
            H=factor * qubo.H,
            linear=factor * qubo.linear,
            offset=factor * qubo.offset,
        )
        one = Tabu(num_sweeps=50).solve(qubo)
        found = Tabu(num_sweeps=50).solve(other)
        np.testing.assert_array_equal(one.states, found.states)

    def test_sums_that_overflow(self):
        size = np.ones((1, 30))
        qubo = QuboBatch(np.full((30, 30), 1e307), size, [0.0], size, size)
        with pytest.raises(InputError, match="too large: their sums overflow"):
            Tabu().solve(qubo)

    def test_warm_start(self):
        """A good start is kept, and improved where a short search can."""
        qubo = example_batch(4, 80, seed=3)
        good = Tabu(num_sweeps=300).solve(qubo)
        warm = Tabu().solve(qubo, initial=good.states, budget=Budget(sweeps=1))
        assert (warm.energies <= good.energies).all()
        cold = Tabu().solve(qubo, budget=Budget(sweeps=1))
        assert (warm.energies < cold.energies).all()

    def test_longer_is_better(self):
        qubo = example_batch(8, 120, seed=5)
        sums = [
            Tabu(subsize=0).solve(qubo, budget=Budget(sweeps=k)).energies.sum()
            for k in (1, 20, 400)
        ]
        assert sums[0] > sums[1] > sums[2]

    def test_sweeps_are_flips(self):
        qubo = example_batch(3, 50)
        info = Tabu().solve(qubo, budget=Budget(sweeps=20)).info
        # The last walk to the start of a run, or sweep of parts, is finished.
        assert 3 * 50 * 20 <= info["flips"] <= 3 * 50 * 20 + 3 * 50 * 60
        assert info["runs"] > 3

    @pytest.mark.parametrize("threads", [2, 3])
    def test_threads(self, threads):
        qubo = make(5, 60, seed=6)
        one = Tabu(num_sweeps=100).solve(qubo)
        many = Tabu(num_sweeps=100).solve(qubo, budget=Budget(threads=threads))
        np.testing.assert_array_equal(one.states, many.states)

    def test_where_a_search_is_cut_changes_nothing(self, monkeypatch):
        """Runs go on over the reports, whenever these are."""
        qubo = make(4, 50, seed=8)
        one = Tabu(num_sweeps=60).solve(qubo)
        monkeypatch.setattr("solvers.flips.tabu.CHUNK", 4 * 50 * 17)
        many = Tabu(num_sweeps=60).solve(qubo)
        assert len(many.trace[0]) > len(one.trace[0]) + 20
        np.testing.assert_array_equal(one.states, many.states)
        assert one.info == many.info

    def test_rows_are_independent(self):
        qubo = make(5, 40, seed=9)
        every = Tabu(num_sweeps=50).solve(qubo)
        some = Tabu(num_sweeps=50).solve(qubo.take(slice(0, 2)))
        np.testing.assert_array_equal(every.states[:2], some.states)

    @pytest.mark.parametrize(("rows", "n"), [(1, 60), (64, 147)])
    def test_seconds(self, rows, n, monkeypatch):
        qubo = example_batch(rows, n)
        clock = Clock(last=4.4)
        flips = clock.paces(monkeypatch, each=1e-4)
        found = Tabu(num_sweeps=10**7).solve(
            qubo, budget=Budget(seconds=4.0), monitor=Monitor(clock=clock)
        )
        assert found.status == "time"
        assert sum(flips) == pytest.approx(40_000, rel=0.03)

    def test_rows_share_the_time(self, monkeypatch):
        """However soon the search ends, no row has waited for another."""
        qubo = example_batch(64, 147)
        clock = Clock(last=2.2)
        clock.paces(monkeypatch, each=1e-3)
        found = Tabu(num_sweeps=10**7).solve(
            qubo, budget=Budget(seconds=2.0), monitor=Monitor(clock=clock)
        )
        start = reference_energies(qubo, qubo.nearest())
        assert (found.energies < start).all()

    def test_a_run_that_has_not_ended_counts(self):
        """No run has ended, so that no state is in the pool."""
        qubo = make(4, 80, seed=3)
        solver = Tabu(patience=1000.0)
        found = solver.solve(qubo, budget=Budget(sweeps=20))
        assert found.info["runs"] == 0
        descended = qubo.energies(descend(qubo, qubo.pin(qubo.nearest())))
        assert (found.energies < descended).all()

    @pytest.mark.parametrize("tenure", [1, 2, 1000])
    def test_tenures(self, tenure, monkeypatch):
        """Up to 5 more iterations than asked for; at most half of the free ones."""
        waits = set()

        def watched(kernel, shared, per_row, threads):
            over_rows(kernel, shared, per_row, threads)
            run = per_row[2]
            flipped = run.expiry.max(axis=1) - run.clock
            waits.update(flipped[flipped > 0].astype(int))

        monkeypatch.setattr("solvers.flips.tabu.over_rows", watched)
        monkeypatch.setattr("solvers.flips.tabu.CHUNK", 1)
        qubo = replace(
            example_batch(1, 24), fixed=np.array([[0] * 4 + [-1] * 20], np.int8)
        )
        Tabu(tenure=tenure, num_sweeps=20).solve(qubo)
        assert max(waits) == min(tenure + 5, 10)

    def test_target(self):
        qubo = example_batch(3, 40)
        best = Tabu(num_sweeps=200).solve(qubo).energies
        goal = Budget(target=best + 1e-6)
        found = Tabu(num_sweeps=10**7).solve(qubo, budget=goal)
        assert found.status == "target"
        assert (found.energies <= best + 1e-6).all()

    def test_stale_pools_begin_anew(self, monkeypatch):
        seen = []

        def watched(kernel, shared, per_row, threads):
            over_rows(kernel, shared, per_row, threads)
            pool = per_row[-1]
            seen.append((pool.held.copy(), pool.stale.copy(), pool.runs.copy()))

        monkeypatch.setattr("solvers.flips.tabu.over_rows", watched)
        monkeypatch.setattr("solvers.flips.tabu.CHUNK", 4 * 20 * 20)
        qubo = example_batch(4, 20, definite=False)
        Tabu(num_sweeps=2000, pool=3, subsize=0).solve(qubo)
        held, stale, runs = (np.array(each) for each in zip(*seen, strict=True))
        assert (runs[-1] > 200).all()
        assert stale.max() < tabu_rounds.STALE * 3
        assert (held[1:] < held[:-1]).sum() > 10

    def test_runs_leave_states_of_the_pool(self, monkeypatch):
        """A run may leave any state of the pool, also while the pool stays the same."""
        left = {}

        def watched(kernel, shared, per_row, threads):
            over_rows(kernel, shared, per_row, threads)
            _, place, _, _, pool = per_row
            for r in np.flatnonzero(pool.going & (pool.held > 1)):
                states = pool.states[r, : pool.held[r]]
                assert (states == place.here[r]).all(axis=1).any()
                left.setdefault(states.tobytes(), set()).add(place.here[r].tobytes())

        monkeypatch.setattr("solvers.flips.tabu.over_rows", watched)
        monkeypatch.setattr("solvers.flips.tabu.CHUNK", 3 * 60 * 60)
        Tabu(num_sweeps=300, pool=5).solve(example_batch(3, 60, definite=False))
        assert max(len(states) for states in left.values()) > 2

    @pytest.mark.parametrize("seed", range(3))
    def test_ill_conditioned(self, seed):
        """Energies are judged in float64: what is claimed is real, and low."""
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(400, 100)).cumsum(axis=1) * 0.05
        x += rng.normal(3, 1, (400, 1))
        H = x.T @ x / 400
        t = rng.random((4, 100))
        pull = t @ H
        qubo = QuboBatch(H, -2 * pull, (t * pull).sum(axis=1), np.ones((4, 1)), t)
        found = Tabu(num_sweeps=300).solve(qubo)
        np.testing.assert_allclose(
            found.energies, reference_energies(qubo, found.states), rtol=1e-6
        )
        start = reference_energies(qubo, qubo.nearest())
        assert found.energies.sum() < 0.03 * start.sum()


class TestLargeCoefficients:
    @pytest.mark.parametrize("large", [1e5, 1e7, 1e9, 1e12])
    def test_optimum(self, large):
        for qubo in (with_large(large, 10), with_large(large, 10, of=(2, 7))):
            _, lowest = brute_force(qubo)
            found = Tabu().solve(qubo, budget=Budget(sweeps=500))
            np.testing.assert_allclose(found.energies, lowest, atol=1e-9)

    @pytest.mark.parametrize("n", [60, 200])
    def test_as_good_as_without(self, n):
        """The variable is never 1: the others are a problem of their own."""
        qubo = with_large(1e9, n)
        others = QuboBatch.from_matrix(qubo.H[1:, 1:], qubo.linear[:, 1:])
        best = Tabu().solve(others).energies
        found = Tabu().solve(qubo)
        np.testing.assert_allclose(found.energies, best, rtol=1e-9)

    @pytest.mark.parametrize("sweeps", [1, 20])
    def test_no_flip_gains(self, sweeps):
        for qubo in (with_large(1e9, 100), make(3, 100)):
            found = Tabu().solve(qubo, budget=Budget(sweeps=sweeps))
            assert flip_costs(qubo, found.states).min() > -1e-3


@pytest.mark.parametrize("name", ["bqpqka_1", "bqpqka_30", "bqp50_3", "bqp250_1"])
def test_best_known_values(real_data, name):
    table = (real_data / "qubo" / "best_known.csv").read_text().splitlines()
    (line,) = [row for row in table if f"{name}.qubo" in row]
    known = -float(line.split('",')[1].split(",")[2])
    qubo = read_qubo(real_data / "qubo" / f"{name}.qubo", maximise=True)
    found = Tabu().solve(qubo, budget=Budget(target=known + 0.5))
    assert found.energies[0] == known


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sweeps": 0}, "num_sweeps must be at least 1"),
        ({"pool": 0}, "pool must be at least 1"),
        ({"relink": -0.1}, r"relink must lie in \[0, 1\]"),
        ({"relink": 1.1}, r"relink must lie in \[0, 1\]"),
        ({"patience": 0}, "patience must be positive and finite"),
        ({"patience": math.inf}, "patience must be positive and finite"),
        ({"tenure": -1}, "tenure must be at least 0"),
        ({"weakest": 0.6}, "0 <= weakest <= strongest <= 1"),
        ({"weakest": -0.1}, "0 <= weakest <= strongest <= 1"),
        ({"strongest": 1.1}, "0 <= weakest <= strongest <= 1"),
        ({"share": 0}, r"share must lie in \(0, 1\]"),
        ({"share": 1.1}, r"share must lie in \(0, 1\]"),
        ({"subsize": -1}, "subsize must be at least 0"),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver tabu: .*{message}"):
        Tabu(**options)


@pytest.mark.parametrize(
    "name", ["relink", "patience", "weakest", "strongest", "share"]
)
def test_options_refuse_nan(name):
    with pytest.raises(InputError, match=name):
        Tabu(**{name: math.nan})
