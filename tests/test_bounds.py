"""Lower bounds: below every energy, whatever the matrix; and how near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from solvers.errors import InputError
from solvers.proofs.bounds import (
    diagonal_split,
    partial_enumeration,
    semidefinite,
    single_threaded,
)
from solvers.proofs.semidefinite import (
    Model,
    central_path,
    ellipsoid,
    positive_definite,
    split,
    tangent,
)
from solvers.qubo import QuboBatch
from solvers.testing import brute_force, example_batch, example_batches
from tests.cases import exact_energies

pytestmark = pytest.mark.arithmetic

METHODS = {
    "diagonal": diagonal_split,
    "semidefinite": semidefinite,
    "partial": lambda qubo: partial_enumeration(qubo, 4),
}


def near(bound: np.ndarray, least: np.ndarray, share: float) -> np.ndarray:
    return least - bound <= share * abs(least)


def require_bounds(qubo: QuboBatch, bounds: np.ndarray, states: np.ndarray) -> None:
    """Bounds are proofs: they allow for their own rounding, and here is no other."""
    exact = exact_energies(qubo, states)
    assert all(float(b) <= e for b, e in zip(bounds, exact, strict=True))


@pytest.mark.parametrize("name", example_batches())
@pytest.mark.parametrize("method", METHODS)
def test_examples(name, method):
    qubo = example_batches()[name]
    bounds = METHODS[method](qubo)
    assert bounds.shape == (qubo.rows,)
    require_bounds(qubo, bounds, brute_force(qubo)[0])


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 10),
    kind=st.sampled_from(["definite", "indefinite", "ill", "sparse", "low rank"]),
    unit=st.sampled_from([1e-150, 1e-12, 1.0, 1e12, 1e150]),
    pins=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_never_above_the_optimum(seed, n, kind, unit, pins):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.01, 10, (2, n))
    if kind in ("definite", "indefinite"):
        qubo = example_batch(2, n, seed, definite=kind == "definite", scale=scale)
    else:
        V = np.linalg.qr(rng.normal(size=(n, n)))[0]
        if kind == "ill":
            H = V * np.logspace(0, -12, n) @ V.T
        elif kind == "low rank":
            H = np.outer(V[0], V[0])
        else:
            H = np.where(rng.random((n, n)) < 0.2, rng.normal(size=(n, n)), 0.0)
        H = (H + H.T) / 2
        # Optima near 0, where a bound has the least room.
        t = np.round(rng.random((2, n)), 1) if kind == "ill" else rng.random((2, n))
        pull = scale * t @ H
        offset = (scale * t * pull).sum(axis=1)
        qubo = QuboBatch(H, -2 * scale * pull, offset, scale, t)
    qubo = replace(
        qubo, H=unit * qubo.H, linear=unit * qubo.linear, offset=unit * qubo.offset
    )
    if pins:
        qubo = replace(qubo, fixed=rng.integers(-1, 2, (2, n), np.int8))
    states, _ = brute_force(qubo)
    for method in METHODS.values():
        require_bounds(qubo, method(qubo), states)


def test_each_method_is_stronger_than_the_one_before():
    qubo = example_batch(4, 12, seed=1)
    _, least = brute_force(qubo)
    weak, strong = diagonal_split(qubo), semidefinite(qubo)
    more, most = partial_enumeration(qubo, 4), partial_enumeration(qubo, 12)
    assert (weak < strong).all()
    assert (strong <= more + 1e-9).all()
    assert (more < most).all()
    # With all variables nothing is relaxed.
    assert near(most, least, 1e-4).all()
    assert (weak > 0).all()


def test_least_eigenvalue():
    """With t = 1/2 the best multiple of the identity is the least eigenvalue."""
    rng = np.random.default_rng(3)
    H = example_batch(1, 12).H
    t = np.full((1, 12), 0.5)
    pull = t @ H
    qubo = QuboBatch(H, -2 * pull, (t * pull).sum(axis=1), np.ones((1, 1)), t)
    np.testing.assert_allclose(
        diagonal_split(qubo), 12 / 4 * np.linalg.eigvalsh(H)[0], rtol=1e-6
    )
    D = rng.uniform(1, 2, 12)
    qubo = replace(qubo, H=np.diag(D), linear=-D[None], offset=[D.sum() / 4])
    # A diagonal matrix has the energy sum(D) / 4 everywhere.
    np.testing.assert_allclose(semidefinite(qubo), D.sum() / 4, rtol=1e-3)


def test_separable_rows_are_solved():
    qubo = QuboBatch.from_matrix(np.zeros((5, 5)), [[1.0, -2.0, 3.0, -4.0, 0.5]])
    np.testing.assert_allclose(semidefinite(qubo), -6, rtol=1e-3)


def test_rows_do_not_matter_to_each_other():
    qubo = example_batches()["some pinned"]
    for method in METHODS.values():
        np.testing.assert_allclose(method(qubo)[:1], method(qubo.take([0])), rtol=1e-9)


def test_seconds():
    """Less time, weaker bounds; none at all still gives bounds."""
    qubo = example_batch(3, 60, seed=2)
    hasty, patient = semidefinite(qubo, seconds=1e-9), semidefinite(qubo)
    assert np.isfinite(hasty).all()
    assert (hasty < patient).all()


@pytest.mark.parametrize("variables", [0, 31])
def test_number_of_variables(variables):
    with pytest.raises(InputError, match="variables must be a number from 1 to 30"):
        partial_enumeration(example_batch(1, 3), variables)


def test_blas_has_one_thread():
    pools = single_threaded(threadpool_info)()
    assert {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"} == {1}


class TestSplit:
    model = Model.of_row(example_batch(1, 9, seed=4, definite=False), 0)
    every = (np.arange(512)[:, None] >> np.arange(9) & 1).astype(np.uint8)

    def path(self):
        return (here for here, _ in filter(None, central_path(self.model)))

    def ellipsoid(self, energy, share):
        steps = ellipsoid(self.model, energy, share, next(self.path()))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def test_is_what_it_says(self):
        energies = self.model.energies(self.every)
        for count, here in enumerate(self.path()):
            away = self.every - here.y
            parabola = here.bound + ((away @ here.matrix) * away).sum(axis=1)
            # They agree on the states up to the rounding that the bound gives away.
            np.testing.assert_allclose(parabola, energies, rtol=1e-9, atol=1e-9)
            if count > 5:
                break

    def test_is_refused_where_not_convex(self):
        assert split(self.model, np.zeros(9)) is None
        assert split(self.model, np.full(9, 100.0)) is not None

    def test_tangents_are_below_the_function(self):
        here = split(self.model, np.full(9, 100.0))
        slope = self.model.c - here.d
        rng = np.random.default_rng(0)
        least = self.model.energies(self.every).min()
        values = [
            tangent(here.matrix, slope, self.model.k, y)
            for y in rng.normal(0.5, 1, (50, 9))
        ]
        assert max(values) <= least + self.model.noise
        assert here.bound == pytest.approx(
            tangent(here.matrix, slope, self.model.k, here.y)
        )

    def test_bounds_rise_along_the_path(self):
        bounds = [here.bound for here in self.path()]
        assert len(bounds) > 10
        assert (np.diff(bounds) > -1e-9).all()

    def test_ellipsoid_holds_the_better_states(self):
        energies = np.sort(self.model.energies(self.every))
        target = float(energies[20])
        for share in (1.0, 0.1):
            here = self.ellipsoid(target, share)
            away = self.every - here.y
            inside = here.bound + ((away @ here.matrix) * away).sum(axis=1) <= target
            assert (self.model.energies(self.every) <= target - 1e-9).sum() <= (
                inside.sum()
            )

    def test_ellipsoid_below_the_optimum_is_empty(self):
        least = float(self.model.energies(self.every).min())
        here = self.ellipsoid(least - 10, 0.1)
        assert here.bound >= least - 10 - self.model.noise


def test_positive_definite():
    V = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0]
    good, bad = (V * np.r_[[low], np.ones(19)] @ V.T for low in (1e-9, -1e-9))
    assert positive_definite((good + good.T) / 2)
    assert not positive_definite((bad + bad.T) / 2)
    # Not certain.
    assert not positive_definite(np.diag([1.0, 1e-17]))
