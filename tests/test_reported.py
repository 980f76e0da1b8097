"""States that solvers report have the energies that they report with them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.kept import MOST_FALLS, KeepingMonitor, Kept
from solvers import Budget, Monitor, QuboBatch, available, parse_solver
from solvers.testing import example_batches

BATCHES = example_batches()
# They report energies alone, until they end.
SILENT = {"descent"}


class Checks(Monitor):
    """Compares what is reported with the batch."""

    def __init__(self, qubo: QuboBatch, steps: bool) -> None:
        super().__init__()
        self._qubo, self._steps = qubo, steps
        self.reports = self.with_states = 0

    def handle(self, seconds: float, energies: Any, states: Any) -> None:
        self.reports += 1
        if states is None:
            return
        found = np.array(states() if callable(states) else states)
        known = np.isfinite(energies)
        self.with_states += bool(known.all())
        own = self._qubo.require_steps if self._steps else self._qubo.require_states
        np.testing.assert_allclose(
            energies[known],
            self._qubo.energies(own("states", found))[known],
            rtol=1e-9,
            atol=1e-9 * (1 + np.abs(self._qubo.offset).max()),
        )


@pytest.mark.parametrize("name", available())
def test_reported_states_have_the_reported_energies(name):
    solver = parse_solver(name)
    for qubo in BATCHES.values():
        if solver.supports(qubo) is not None:
            continue
        checks = Checks(qubo, solver.out_of_set)
        solver.solve(qubo, budget=Budget(sweeps=20), monitor=checks)
        assert checks.with_states >= 1
        if qubo.n and not solver.rule and name not in SILENT:
            assert checks.with_states > 1 or checks.reports == 1


def kept(tmp_path, rows=3, n=4) -> Kept:
    return Kept(tmp_path / "kept", rows, n, np.uint8, create=True)


def test_the_best_of_each_row_is_kept(tmp_path):
    own = kept(tmp_path)
    monitor = KeepingMonitor(Kept(tmp_path / "kept", 3, 4, np.uint8))
    monitor.start(Budget(), np.array([5.0, 6.0, np.inf]))
    zeros, ones = np.zeros((3, 4), np.uint8), np.ones((3, 4), np.uint8)
    monitor.report(np.array([4.0, 9.0, np.nan]), zeros)
    monitor.report(np.array([4.5, 3.0, np.inf]), lambda: ones)
    monitor.report(np.array([1.0, 1.0, 1.0]))
    has, energies, states = own.best
    assert has.tolist() == [True, True, False]
    assert energies[:2].tolist() == [4.0, 3.0]
    assert states[:2].tolist() == [[0] * 4, [1] * 4]
    assert own.falls[-1, 1] == 3.0
    assert own.timing["solve"] >= own.falls[-1, 0]


def test_states_of_another_shape_are_not_kept(tmp_path):
    own = kept(tmp_path)
    own.keep(np.zeros(3), np.zeros((3, 5), np.uint8))
    assert not own.best[0].any()


def test_falls_are_bounded_and_end_at_the_lowest(tmp_path):
    own = kept(tmp_path)
    for i in range(3 * MOST_FALLS):
        own.note(float(i), -float(i))
    assert len(own.falls) < MOST_FALLS
    assert own.falls[-1].tolist() == [3 * MOST_FALLS - 1, 1 - 3 * MOST_FALLS]
    assert all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(own.falls))
