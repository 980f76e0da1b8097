"""Other packages' solvers behind the protocol."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks.peers import DwaveTabu
from solvers import Budget, InputError, parse_solver
from solvers.testing import brute_force, example_batch, example_batches


def test_is_found_by_name():
    assert parse_solver("dwave-tabu[milliseconds=5]") == DwaveTabu(milliseconds=5)
    with pytest.raises(InputError, match="milliseconds must be at least 1"):
        DwaveTabu(milliseconds=0)


@pytest.mark.parametrize("name", example_batches())
def test_finds_optima(name):
    """From near them: the sampler sticks in other optima even of 9 variables."""
    qubo = example_batches()[name]
    states, lowest = brute_force(qubo)
    states[:, 0] ^= 1
    found = DwaveTabu(milliseconds=20).solve(qubo, initial=qubo.pin(states))
    np.testing.assert_allclose(found.energies, lowest, atol=1e-9)
    np.testing.assert_array_equal(qubo.pin(found.states), found.states)


def test_shares_the_seconds_among_the_rows():
    qubo = example_batch(5, 40, definite=False)
    begun = time.perf_counter()
    found = DwaveTabu().solve(qubo, budget=Budget(seconds=0.5))
    assert 0.4 < time.perf_counter() - begun < 0.75
    # A row's report comes when it is through.
    reports = np.diff(found.trace[0][:6])
    assert (reports > 0.05).all()


def test_stops_at_the_target():
    qubo = example_batch(1, 10)
    _, lowest = brute_force(qubo)
    begun = time.perf_counter()
    budget = Budget(seconds=20, target=lowest + 1e-9)
    assert DwaveTabu().solve(qubo, budget=budget).status == "target"
    assert time.perf_counter() - begun < 10
