"""Which solver `auto` takes, and that it is no worse."""

from __future__ import annotations

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.composed.auto import Auto, choose
from solvers.flips.annealing import SimulatedAnnealing
from solvers.flips.tabu import Tabu
from solvers.lattice.solver import Lattice
from solvers.proofs.exact import Exact
from solvers.qubo import QuboBatch
from solvers.testing import brute_force, check_solver, example_batches
from tests.clocks import Clock
from tests.test_lattice import patches


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
    assert choose(wishart(60, 200), 1.0) == (Tabu(),)
    assert choose(wishart(60, 70), 1.0) == (Lattice(), Tabu())
    assert choose(QuboBatch.from_matrix(-np.eye(60)), 1.0) == (Tabu(),)
    large = patches(400, 400)
    assert choose(large, 1.0) == (Lattice(),)
    assert choose(large, 0.05) == (SimulatedAnnealing(),)
    assert choose(large, None) == (Lattice(elites=1, num_sweeps=100),)


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


@pytest.mark.parametrize("qubo", [patches(8, 60), wishart(60, 70, 8)])
def test_no_worse_than_its_parts(qubo):
    def solve(solver):
        monitor = Monitor(clock=Clock(tick=2e-3, last=2.0))
        return solver.solve(qubo, budget=Budget(seconds=1.0), monitor=monitor)

    found = solve(Auto())
    for part in (Lattice(), Tabu()):
        other = solve(part)
        assert found.energies.sum() <= other.energies.sum() * (1 + 1e-3)


def test_time_left_begins_again():
    monitor = Monitor(clock=Clock(tick=1e-3, last=3.0))
    found = Auto().solve(patches(2, 40), budget=Budget(seconds=1.5), monitor=monitor)
    assert found.info["runs"] > 1
    assert found.info["method"] == "lattice"
    assert found.status == "time"
