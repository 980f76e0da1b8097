"""Hopfield networks: three forms, their options, limits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from solvers.budget import Budget, Monitor
from solvers.errors import InputError
from solvers.relaxations.hopfield import FORMS, Hopfield
from solvers.testing import check_solver, example_batch, reference_energies
from tests.clocks import Clock
from tests.test_annealing import ill_conditioned

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("form", FORMS)
def test_conforms(form):
    assert check_solver(Hopfield(form=form, steps=60)) == []


@pytest.mark.parametrize("form", FORMS)
def test_hard_and_far_better_than_nearest(form):
    qubo = ill_conditioned(8, 80)
    found = Hopfield(form=form).solve(qubo)
    assert found.info["soft_fraction"] < 0.01
    assert "warning" not in found.info
    nearest = reference_energies(qubo, qubo.nearest()).sum()
    assert found.energies.sum() < 0.025 * nearest


def test_the_forms_differ():
    """Else an option would do nothing."""
    qubo = example_batch(6, 60)
    answers = {Hopfield(form=f).solve(qubo).states.tobytes() for f in FORMS}
    assert len(answers) == 3


def test_without_f_reg_the_rectified_form_stays_soft():
    qubo = ill_conditioned(4, 40)
    soft = Hopfield(form="rectified+reg", regularisation=0.0).solve(qubo)
    assert soft.info["soft_fraction"] > 0.1
    assert "soft" not in soft.info.get("warning", "")
    assert "not near 0 or 1" in soft.info["warning"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("factor", [4.0, 2.0**-140, 2.0**140])
def test_units_of_energy_do_not_matter(form, factor):
    qubo = example_batch(3, 20)
    scaled = replace(
        qubo,
        H=factor * qubo.H,
        linear=factor * qubo.linear,
        offset=factor * qubo.offset,
    )
    solver = Hopfield(form=form, steps=500)
    np.testing.assert_array_equal(
        solver.solve(qubo).states, solver.solve(scaled).states
    )


def test_seed_changes_nothing():
    qubo = example_batch(3, 30)
    one, other = (Hopfield(steps=300).solve(qubo, seed=s).states for s in (0, 1))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sweeps", [1, 99, 100, 250])
def test_sweeps_are_steps(sweeps):
    found = Hopfield().solve(example_batch(2, 5), budget=Budget(sweeps=sweeps))
    assert found.info["steps"] == sweeps


def test_a_short_budget_shortens_the_schedule():
    """Cut off instead, states would still be soft."""
    qubo = ill_conditioned(8, 80)
    for form in FORMS:
        found = Hopfield(form=form).solve(qubo, budget=Budget(sweeps=1000))
        assert found.info["soft_fraction"] < 0.01
        nearest = reference_energies(qubo, qubo.nearest()).sum()
        assert found.energies.sum() < 0.04 * nearest


def test_ends_in_time(monkeypatch):
    qubo = ill_conditioned(16, 120)
    clock = Clock(last=2200)
    clock.paces(monkeypatch, each=1.0)
    found = Hopfield(steps=10**8).solve(
        qubo, budget=Budget(seconds=2000), monitor=Monitor(clock=clock)
    )
    assert found.status in ("time", "done")
    assert found.info["steps"] == pytest.approx(2000, rel=0.03)
    assert found.info["soft_fraction"] < 0.1


def test_target_stops():
    qubo = example_batch(4, 40)
    best = Hopfield().solve(qubo)
    found = Hopfield().solve(qubo, budget=Budget(target=best.energies + 1e-9))
    assert found.status == "target"
    assert (found.energies <= best.energies + 1e-9).all()


def test_trace_is_of_states_at_hand():
    found = Hopfield(steps=1000).solve(ill_conditioned(6, 60))
    np.testing.assert_allclose(found.trace[1][-2], found.energies, rtol=1e-9)


def test_missing_device():
    with pytest.raises(InputError, match="device 'cuda:99' is not available here"):
        Hopfield(device="cuda:99").solve(example_batch(1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "tanh"}, "form must be one of sigmoid, sigmoid.reg, rectified.reg"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"rate": math.inf}, "rate must be positive"),
        ({"regularisation": -1.0}, "regularisation must be 0 or more"),
        ({"beta_end": 1.0}, "beta must fall and stay above 1"),
        ({"beta_start": 1.5}, "beta must fall and stay above 1"),
        ({"warm_up": 1.0}, r"warm_up must lie in \[0, 1\)"),
        ({"cold": 0.0}, "the temperature must fall"),
        ({"cold": 2.0}, "the temperature must fall"),
        ({"device": ""}, "device must be cpu or a device of torch"),
    ],
)
def test_options(options, message):
    with pytest.raises(InputError, match=f"solver hopfield: {message}"):
        Hopfield(**options)
