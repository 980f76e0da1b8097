"""Which solver `auto` takes, and that it is no worse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from solvers.base import Solver
from solvers.budget import Budget, Monitor
from solvers.composed.auto import ENDLESS, LONG, TRIAL, Auto, choose, density, is_open
from solvers.decoders.kbest import KBest
from solvers.errors import InputError
from solvers.flips.annealing import SimulatedAnnealing
from solvers.flips.tabu import Tabu
from solvers.lattice.solver import Lattice
from solvers.proofs.exact import Exact
from solvers.qubo import QuboBatch
from solvers.testing import brute_force, check_solver, example_batches
from tests.clocks import Clock
from tests.test_lattice import patches

TABU = replace(Tabu(), num_sweeps=ENDLESS)
ANNEALING = replace(SimulatedAnnealing(), num_sweeps=ENDLESS)


def wishart(n: int, samples: int, rows: int = 2) -> QuboBatch:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, samples))
    H, t = x @ x.T / samples, rng.random((rows, n))
    return QuboBatch(
        H=H,
        linear=-2 * t @ H,
        offset=np.einsum("ri,ij,rj->r", t, H, t),
        scale=np.ones((rows, 1)),
        prior=t,
    )


def graph(n: int) -> QuboBatch:
    """A maximum cut of a random graph, in which a vertex has about six neighbours."""
    edges = np.triu(np.random.default_rng(0).random((n, n)) < 6 / n, 1)
    return QuboBatch.from_matrix(2.0 * edges, -(edges + edges.T).sum(axis=1))


def test_conformance():
    assert check_solver(Auto) == []


@pytest.mark.parametrize("name", sorted(example_batches()))
def test_small_problems_are_solved(name):
    qubo = example_batches()[name]
    _, energies = brute_force(qubo)
    found = Auto().solve(qubo)
    np.testing.assert_allclose(found.energies, energies, rtol=1e-9, atol=1e-12)


def test_the_choice():
    assert choose(patches(2, 9), 1.0) == (Exact(),)
    assert choose(patches(2, 60), None) == (Lattice(),)
    assert choose(wishart(60, 70), None) == (Tabu(),)
    assert choose(wishart(60, 200), 1.0) == (TABU,)
    assert choose(wishart(60, 200), 1e-4) == (ANNEALING, TABU)
    assert choose(wishart(60, 200), 3e-4, threads=2) == (TABU,)
    assert choose(graph(60), None) == (SimulatedAnnealing(), Tabu())
    assert choose(graph(60), 1.0) == (ANNEALING, TABU)
    large = patches(400, 400)
    assert choose(large, 1.0) == (Lattice(),)
    assert choose(large, 0.05) == (ANNEALING,)
    assert choose(large, None) == (Lattice(elites=1, num_sweeps=100),)


def test_the_choice_with_light_effort(monkeypatch):
    light = {"seconds": None, "effort": "light"}
    assert choose(patches(2, 9), **light) == (Exact(),)
    assert choose(patches(2, 60), **light) == (Lattice(elites=1),)
    assert choose(patches(2, 60), 1.0, effort="light") == (Lattice(),)
    assert choose(graph(60), **light) == (SimulatedAnnealing(),)
    assert choose(wishart(60, 6000), **light) == (SimulatedAnnealing(),)
    monkeypatch.setattr("solvers.composed.auto.MIDDLE", 7000)
    assert choose(patches(2, 60), **light) == (KBest(paths=16),)
    assert check_solver(Auto(effort="light")) == []
    with pytest.raises(InputError, match="effort must be one of full, light"):
        Auto(effort="little")


def test_open_problems():
    """Neither sparse ones nor those that have a flat spectrum."""
    dense = QuboBatch.from_matrix(np.random.default_rng(0).normal(size=(40, 40)))
    assert is_open(dense)
    assert not is_open(graph(600))
    assert not is_open(wishart(60, 200))
    assert density(np.eye(4)) == 0.25
    assert density(np.empty((0, 0))) == 0


def test_pinned_variables_do_not_count():
    qubo = patches(1, 60)
    fixed = np.where(np.arange(60) < 50, 1, -1).astype(np.int8)[None]
    pinned = QuboBatch(qubo.H, qubo.linear, qubo.offset, qubo.scale, qubo.prior, fixed)
    assert choose(pinned, None) == (Exact(),)


def test_a_limit_ends_before_a_second_turn():
    qubo = wishart(60, 70, 8)
    easy = qubo.energies(qubo.nearest())
    monitor = Monitor(clock=Clock(tick=1e-3, last=1.0))
    budget = Budget(target=easy, seconds=5)
    found = Auto().solve(qubo, budget=budget, monitor=monitor)
    assert found.status == "target"
    assert found.info["runs"] == 1


@pytest.mark.parametrize("seconds", [None, 1.0])
@pytest.mark.parametrize(
    "qubo", [patches(8, 60), wishart(60, 70, 8), wishart(60, 200, 8), graph(200)]
)
def test_no_worse_than_its_parts(qubo, seconds):
    def solve(solver):
        monitor = Monitor(clock=Clock(tick=2e-2, last=3.0))
        return solver.solve(qubo, budget=Budget(seconds=seconds), monitor=monitor)

    found = solve(Auto())
    for part in choose(qubo, seconds):
        other = solve(part)
        assert found.energies.sum() <= other.energies.sum() + 5e-3 * abs(
            other.energies.sum()
        )


@dataclass(frozen=True, kw_only=True)
class Flipper(Solver):
    """Flips `count` variables on, reports, and goes on until it is stopped."""

    name: ClassVar[str] = "flipper"
    given: ClassVar[list[tuple[int, float, int | None, int]]] = []

    count: int = 1

    def search(self, task):
        budget = task.budget
        self.given.append(
            (self.count, budget.seconds, budget.sweeps, int(task.start.sum()))
        )
        states = np.where(np.arange(task.qubo.n) < self.count, 1, 0)[None].astype("u1")
        while task.monitor.report(task.qubo.energies(states)):
            if budget.seconds is None:
                break
            task.monitor.clock.now += 1
        task.info["sweeps"] = budget.sweeps or 1
        return states


class TestRelay:
    """Annealing flips `first` variables on, tabu search `second`; more is better."""

    qubo = QuboBatch.from_matrix(-np.eye(40))

    @pytest.fixture(autouse=True)
    def solvers(self, monkeypatch):
        monkeypatch.setattr(Flipper, "given", [])

    def solve(self, monkeypatch, first, second, dense=True, **budget):
        monkeypatch.setattr(
            "solvers.composed.auto.choose",
            lambda *_: (Flipper(count=first), Flipper(count=second)),
        )
        monkeypatch.setattr("solvers.composed.auto.is_open", lambda qubo: dense)
        monitor = Monitor(clock=Clock(last=1000))
        return Auto(polish="none").solve(
            self.qubo, budget=Budget(**budget), monitor=monitor
        )

    @pytest.mark.parametrize("second", [20, 30])
    def test_tabu_search_goes_on_if_it_is_as_good(self, monkeypatch, second):
        found = self.solve(monkeypatch, 20, second, seconds=100)
        counts, seconds, _, starts = zip(*Flipper.given, strict=True)
        assert counts == (20, second)
        np.testing.assert_allclose(seconds, [100 * TRIAL, 100 * (1 - TRIAL)], rtol=1e-2)
        # Both begin where the task does.
        assert starts == (0, 0)
        assert found.energies == -second
        assert found.status == "time"

    def test_a_long_anneal_takes_its_place_if_it_is_not(self, monkeypatch):
        found = self.solve(monkeypatch, 30, 20, seconds=100)
        counts, seconds, _, starts = zip(*Flipper.given, strict=True)
        assert counts == (30, 20, 30, 20)
        left = 100 * (1 - 2 * TRIAL)
        np.testing.assert_allclose(
            seconds[2:], [LONG * left, (1 - LONG) * left], atol=1
        )
        assert starts == (0, 0, 30, 30)
        assert found.energies == -30
        assert found.info["runs"] == 4

    def test_a_sparse_problem_is_annealed_at_once(self, monkeypatch):
        self.solve(monkeypatch, 20, 30, dense=False, seconds=100)
        counts, seconds, *_ = zip(*Flipper.given, strict=True)
        assert counts == (20, 30)
        np.testing.assert_allclose(seconds, [100 * LONG, 100 * (1 - LONG)], rtol=1e-2)

    def test_without_a_limit_of_time_they_run_in_turn(self, monkeypatch):
        found = self.solve(monkeypatch, 10, 30, sweeps=30)
        assert Flipper.given == [(10, None, 15, 0), (30, None, 15, 10)]
        assert found.info["sweeps"] == 30

    @pytest.mark.parametrize("first", [10, 30])
    def test_a_limit_of_sweeps_holds_for_all_together(self, monkeypatch, first):
        self.solve(monkeypatch, first, 20, sweeps=100, seconds=100)
        assert sum(sweeps for _, _, sweeps, _ in Flipper.given) == 100


def test_sweeps_are_counted_over_all_turns(monkeypatch):
    swept = []

    def search(self, task, inner=Lattice.search):
        states = inner(self, task)
        swept.append(task.info["sweeps"])
        return states

    monkeypatch.setattr(Lattice, "search", search)
    monitor = Monitor(clock=Clock(tick=1e-6, last=1e9))
    budget = Budget(seconds=1e6, sweeps=3000)
    Auto().solve(patches(2, 40), budget=budget, monitor=monitor)
    assert len(swept) > 1
    assert 3000 <= sum(swept) <= 3010


def test_time_left_begins_again():
    monitor = Monitor(clock=Clock(tick=1e-3, last=3.0))
    found = Auto().solve(patches(2, 40), budget=Budget(seconds=1.5), monitor=monitor)
    assert found.info["runs"] > 1
    assert found.info["method"] == "lattice"
    assert found.status == "time"
