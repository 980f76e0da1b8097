"""Babai's rule and Klein's samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.decoders import decoder
from solvers.decoders.babai import Babai
from solvers.decoders.factor import ORDERS, binary_targets, factorise
from solvers.decoders.klein import Klein
from solvers.errors import InputError
from solvers.qubo import QuboBatch
from solvers.testing import (
    brute_force,
    check_solver,
    example_batch,
    reference_energies,
)
from tests.cases import rounding
from tests.clocks import Clock

pytestmark = pytest.mark.arithmetic


def by_definition(qubo: QuboBatch, order: str, damping: float) -> np.ndarray:
    """Fix each variable at the value with the lower real minimum over the later ones.

    Solves a linear system per decision; shares only the order with the solver.
    """
    factor = factorise(qubo.H, order, damping)
    states = np.zeros((qubo.rows, qubo.n), np.uint8)
    for r, s in enumerate(qubo.full_scale()):
        A = s[:, None] * (qubo.H + factor.damping * np.eye(qubo.n)) * s
        b = (factor.damping * s**2 - qubo.linear[r]) / 2
        pinned = np.flatnonzero(~qubo.free(r))
        x = states[r].astype(float)
        if qubo.fixed is not None:
            x[pinned] = qubo.fixed[r, pinned]
        done = list(pinned)
        for i in factor.order:
            if i in pinned:
                continue
            left = [j for j in range(qubo.n) if j not in done]
            pull = b[left] - A[np.ix_(left, done)] @ x[done]
            x[i] = np.linalg.solve(A[np.ix_(left, left)], pull)[left.index(i)] > 0.5
            done.append(i)
        states[r] = x
    return states


@pytest.mark.parametrize("solver", [Babai(), Klein(samples=3)], ids=lambda s: s.name)
def test_conformance(solver):
    assert check_solver(solver) == []


class TestBabai:
    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("definite", [True, False])
    def test_is_the_nearest_plane(self, order, definite):
        scale = np.random.default_rng(2).uniform(0.5, 2, (3, 70))
        qubo = example_batch(3, 70, definite=definite, scale=scale)
        found = Babai(order=order).solve(qubo, initial=np.zeros((3, 70)))
        np.testing.assert_array_equal(found.states, by_definition(qubo, order, 0.02))

    def test_with_early_pins_is_exact_conditioning(self):
        """Pins that come first in the order: the others are decided as without them."""
        qubo = example_batch(5, 40)
        fixed = np.full((5, 40), -1, np.int8)
        fixed[:, :9] = np.random.default_rng(0).integers(0, 2, (5, 9))
        qubo = replace(qubo, fixed=fixed)
        found = Babai(order="natural").solve(qubo)
        wanted = by_definition(qubo, "natural", 0.02)
        start = reference_energies(qubo, qubo.nearest())
        better = reference_energies(qubo, wanted) < start - rounding(qubo)
        assert better.sum() >= 3
        np.testing.assert_array_equal(found.states[better], wanted[better])

    def test_diagonal_is_exact(self):
        rng = np.random.default_rng(0)
        qubo = QuboBatch.from_matrix(
            np.diag(rng.uniform(0.1, 5, 10)), rng.normal(size=(6, 10)) * 4
        )
        states, energies = brute_force(qubo)
        found = Babai().solve(qubo)
        np.testing.assert_array_equal(found.states, states)
        np.testing.assert_allclose(found.energies, energies)

    @pytest.mark.parametrize("order", ["activation", "min-pivot", "v-blast"])
    def test_names_of_variables_do_not_matter(self, order):
        qubo = example_batch(4, 80)
        way = np.random.default_rng(3).permutation(80)
        other = replace(
            qubo,
            H=qubo.H[np.ix_(way, way)],
            linear=qubo.linear[:, way],
            prior=qubo.prior[:, way],
        )
        solver = Babai(order=order)
        np.testing.assert_array_equal(
            solver.solve(other).states, solver.solve(qubo).states[:, way]
        )

    def test_no_linear_part_is_lost_on_zero_H(self):
        qubo = QuboBatch.from_matrix(np.zeros((3, 3)), [[-1.0, 2.0, -1e-9]])
        assert Babai().solve(qubo).states.tolist() == [[1, 0, 1]]

    def test_ties_go_down(self):
        qubo = QuboBatch.from_matrix(np.eye(2), [[-1.0, -1.0]])
        for solver in (Babai(damping=0.0), Klein(damping=0.0, samples=1)):
            found = solver.solve(qubo, initial=[[0, 0]])
            assert found.states.tolist() == [[0, 0]]

    def test_no_variables(self):
        empty = QuboBatch(
            np.zeros((0, 0)), np.zeros((2, 0)), [1.0, 2.0], np.ones((2, 1)),
            np.zeros((2, 0)),
        )  # fmt: skip
        for solver in (Babai(), Klein()):
            assert solver.solve(empty).energies.tolist() == [1.0, 2.0]

    def test_info_names_the_damping(self):
        H = definite = example_batch(1, 12).H
        assert Babai().solve(QuboBatch.from_matrix(H)).info == {
            "damping": pytest.approx(0.02)
        }
        indefinite = definite - 2 * np.linalg.eigvalsh(definite)[0] * np.eye(12)
        found = Babai().solve(QuboBatch.from_matrix(-indefinite))
        assert found.info["damping"] > 0.5

    def test_time_is_looked_at_between_rows(self, monkeypatch):
        monkeypatch.setattr(decoder, "CHUNK", 1)
        qubo = example_batch(5, 30)
        whole = Babai().solve(qubo)
        monitor = Monitor(clock=Clock(tick=1))
        some = Babai().solve(qubo, budget=Budget(seconds=4), monitor=monitor)
        same = (some.states == whole.states).all(axis=1)
        start = (some.states == qubo.nearest()).all(axis=1)
        assert some.status == "time"
        assert same[0]
        assert not same[4]
        assert (same | start).all()

    def test_blocks_of_rows_do_not_matter(self, monkeypatch):
        qubo = example_batch(7, 30)
        whole = Babai().solve(qubo)
        monkeypatch.setattr(decoder, "CHUNK", 2 * 0.5 * 30**2)
        parts = Babai().solve(qubo)
        assert len(parts.trace[0]) > len(whole.trace[0])
        np.testing.assert_array_equal(parts.states, whole.states)
        np.testing.assert_allclose(parts.trace[1][-2], parts.energies)


class TestKlein:
    def test_first_sample_is_babai(self):
        qubo = example_batch(4, 60)
        one = Klein(samples=1).solve(qubo)
        np.testing.assert_array_equal(one.states, Babai().solve(qubo).states)

    def test_samples_find_better_ones(self):
        qubo = example_batch(6, 60)
        one, ten, fifty = (Klein(samples=s).solve(qubo).energies for s in (1, 10, 50))
        assert (fifty <= ten).all()
        assert (ten <= one).all()
        assert fifty.sum() < ten.sum() < one.sum()

    def test_sweeps_are_samples(self):
        qubo = example_batch(4, 40)
        capped = Klein().solve(qubo, budget=Budget(sweeps=7))
        few = Klein(samples=7).solve(qubo)
        np.testing.assert_array_equal(capped.states, few.states)
        assert len(capped.trace[0]) == 1 + 7 + 1

    def test_probabilities(self):
        """Of one variable with E(1) - E(0) = 0.4."""
        rows, T = 4000, 0.8
        qubo = QuboBatch.from_matrix([[1.0]], np.full((rows, 1), -0.6))
        targets = binary_targets(qubo, factorise(qubo.H, damping=0.3))
        streams = np.random.default_rng(0).integers(0, 2**63, rows).astype(np.uint64)
        before = streams.copy()
        ones = targets.nearest_planes(np.full(rows, 1 / T), streams).mean()
        wanted = 1 / (1 + np.exp(0.4 / T))
        assert abs(ones - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / rows)
        assert (streams != before).all()

    def test_temperature_follows_the_energies(self):
        qubo = example_batch(3, 50)
        other = replace(qubo, H=16 * qubo.H, linear=16 * qubo.linear)
        one, two = Klein(samples=9).solve(qubo), Klein(samples=9).solve(other)
        np.testing.assert_array_equal(one.states, two.states)
        assert two.info["temperature"] == pytest.approx(16 * one.info["temperature"])

    def test_seeds_differ(self):
        qubo = example_batch(8, 60)
        one, two = (Klein(samples=5).solve(qubo, seed=s).energies for s in (0, 1))
        assert (one != two).any()


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Babai, {"order": "random"}, "order must be one of natural, activation"),
        (Babai, {"damping": -0.1}, "damping must be at least 0"),
        (Babai, {"damping": np.inf}, "damping must be at least 0"),
        (Klein, {"samples": 0}, "samples must be at least 1"),
        (Klein, {"temperature": -1.0}, "temperature must be at least 0"),
        (Klein, {"temperature": np.inf}, "temperature must be at least 0"),
    ],
)
def test_options(cls, options, message):
    with pytest.raises(InputError, match=f"solver {cls.name}: {message}"):
        cls(**options)
