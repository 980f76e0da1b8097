"""Runs of solvers on a QUBO that is no layer's: its digest, and what a run is."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import fields
from typing import Any

import numpy as np

from benchmarks.harness.failures import contained, plain
from solvers import Budget, QuboBatch, Solver
from solvers.testing import reference_energies


def qubo_digest(qubo: QuboBatch, target: float | None) -> str:
    """A hash of everything that decides a run's answer, the solver apart."""
    sha = hashlib.sha256(repr(target).encode())
    for field in fields(qubo):
        values = getattr(qubo, field.name)
        sha.update(f" {field.name} ".encode())
        if values is not None:
            sha.update(f"{values.dtype.str} {values.shape} ".encode())
            sha.update(np.ascontiguousarray(values).data.cast("B"))
    return sha.hexdigest()[:16]


def measure(
    solver: Solver, qubo: QuboBatch, seed: int, budget: Budget
) -> dict[str, Any]:
    """A run as it is kept in logs; energies are summed over rows.

    The solver is given a copy of the problem. Kernels that are not compiled yet are
    compiled within its seconds.

    Raises
    ------
    SolverFailure
        The solver has no answer.
    """
    with contained(solver):
        solution = solver.solve(deepcopy(qubo), seed=seed, budget=budget)
        states = solution.states
        if not solver.out_of_set:
            states = qubo.require_states("states", states)
        seconds, best = solution.trace
        return plain(
            {
                # Computed by the definition, whatever the solver claims.
                "energy": float(reference_energies(qubo, states).sum()),
                "budget": budget.seconds,
                "seconds_to_best": float(seconds[int(np.argmin(best.sum(axis=1)))]),
                "seconds": solution.seconds,
                "status": solution.status,
            }
        )
