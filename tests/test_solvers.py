"""All solvers: conformance, rules by definition, optima of small problems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.qubo import QuboBatch
from solvers.registry import BUILT_IN, parse_solver, solver_class
from solvers.sampling.nearest import Ceil, Floor, Nearest
from solvers.sampling.stochastic import Stochastic
from solvers.testing import (
    brute_force,
    check_solver,
    example_batch,
    reference_energies,
)
from tests.cases import rounding

pytestmark = pytest.mark.arithmetic

SEARCHERS = [name for name in BUILT_IN if not solver_class(name).rule]
# dwave's sampler remarks on a model whose biases are all zero.
quiet = pytest.mark.filterwarnings("ignore:All bqm biases are zero")


@quiet
@pytest.mark.parametrize("name", BUILT_IN)
def test_conformance(name):
    cls = solver_class(name)
    skipped = check_solver(cls)
    assert cls.out_of_set or skipped == []
    assert cls.name == name


@quiet
@pytest.mark.parametrize(
    "text",
    [
        "stochastic[samples=3,polish=one-flip]",
        "nearest[polish=pair-flip]",
        "descent[moves=pair-flip,polish=cyclic]",
        "cem[samples=7,smoothing=1,polish=one-flip]",
        "sa[num_sweeps=60,num_restarts=2,float32=false,polish=none]",
        "sa[num_sweeps=60,beta_min=0.1,beta_max=10]",
        "neal[num_reads=3,num_sweeps=20,warm=true]",
    ],
)
def test_conformance_with_options(text):
    assert check_solver(parse_solver(text)) == []


@quiet
def test_conformance_where_rows_are_coupled():
    layer = Stochastic(pick="layer")
    check_solver(layer, rows_independent=False)
    with pytest.raises(AssertionError, match="first row depends on the rows after it"):
        check_solver(layer)


@pytest.mark.parametrize("name", ["cem", "sa", "neal"])
def test_finds_the_optimum(name):
    """With its defaults, on problems with one pronounced minimum."""
    rng = np.random.default_rng(3)
    for n in (1, 2, 5, 12):
        H = np.eye(n) * 2 + 0.1 * example_batch(1, n, seed=n, definite=False).H
        qubo = QuboBatch.from_matrix(H, rng.normal(-2, 2, (4, n)))
        pinned = rng.integers(-1, 2, (4, n), np.int8)
        for batch in (qubo, replace(qubo, fixed=pinned)):
            found = parse_solver(name).solve(batch)
            _, lowest = brute_force(batch)
            np.testing.assert_allclose(found.energies, lowest, atol=1e-9)


@pytest.mark.parametrize(("name", "rows"), [("cem", 8), ("sa", 12)])
@pytest.mark.parametrize("definite", [True, False])
def test_finds_optima_of_rounding_problems(name, rows, definite):
    """The optimum of so many rows of 12; no row above the nearest rounding."""
    qubo = example_batch(12, 10, 5, definite, np.full((12, 1), 0.3))
    found = parse_solver(name).solve(qubo).energies
    _, lowest = brute_force(qubo)
    assert np.isclose(found, lowest).sum() >= rows
    start = reference_energies(qubo, qubo.nearest())
    assert (found <= start + rounding(qubo)).all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_variables(name):
    qubo = QuboBatch.from_matrix(np.zeros((0, 0)), offset=2.5)
    qubo = replace(qubo, levels=np.zeros((2, 1, 0)))
    found = parse_solver(name).solve(qubo)
    assert found.states.shape == (1, 0)
    assert found.energies == [2.5]
    each = replace(qubo, scale=np.ones((1, 0)))
    assert parse_solver(name).solve(each).energies == [2.5]


class TestRules:
    qubo = replace(
        example_batch(3, 5, seed=1),
        fixed=[[-1] * 5, [-1, 0, 1, -1, -1], [1, 1, 0, 0, 0]],
    )

    def test_definitions(self):
        free = self.qubo.fixed < 0
        for solver, ruled in (
            (Nearest(), self.qubo.prior > 0.5),
            (Floor(), np.zeros((3, 5))),
            (Ceil(), np.ones((3, 5))),
        ):
            found = solver.solve(self.qubo).states
            np.testing.assert_array_equal(found, np.where(free, ruled, self.qubo.fixed))

    def test_stochastic_follows_the_prior(self):
        prior = np.tile([0.0, 0.2, 0.7, 1.0], (1, 1))
        qubo = replace(example_batch(1, 4), prior=prior)
        one = Stochastic(samples=1)
        draws = np.concatenate([one.solve(qubo, seed=s).states for s in range(1500)])
        sigma = np.sqrt(prior * (1 - prior) / 1500)
        assert (np.abs(draws.mean(axis=0) - prior) <= 5 * sigma).all()

    def test_stochastic_improves_with_samples(self):
        """Best of K: the first K of the same stream of draws."""
        qubo = example_batch(5, 9)
        energies = [
            Stochastic(samples=k).solve(qubo).energies for k in (1, 10, 25, 60, 2000)
        ]
        assert (np.diff(energies, axis=0) <= 0).all()
        np.testing.assert_allclose(energies[-1], brute_force(qubo)[1], atol=1e-9)

    def test_stochastic_by_layer(self):
        """One sample for all rows: neither the best of each, nor any."""
        qubo = example_batch(5, 9)
        alone = [Stochastic(samples=1).solve(qubo).energies.sum()]
        layer = Stochastic(samples=60, pick="layer").solve(qubo).energies.sum()
        row = Stochastic(samples=60).solve(qubo).energies.sum()
        assert row < layer < alone[0]

    def test_stochastic_by_layer_is_the_best_sum(self):
        """Two opposite rows: whatever one gains, the other loses."""
        qubo = QuboBatch.from_matrix(np.zeros((1, 1)), [[3.0], [-2.0]])
        found = Stochastic(samples=200, pick="layer").solve(qubo)
        np.testing.assert_array_equal(found.states, [[0], [1]])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"samples": 0}, "samples must be at least 1"),
            ({"pick": "best"}, "pick must be row or layer"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            Stochastic(**options)
