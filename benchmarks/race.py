"""Solvers run on one problem, and their answers checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from qubo_rounding.problem import RoundingProblem
from solvers import Budget, Monitor, QuboBatch, Solver, label
from solvers.layer_data import LayerData

# uint8; of a solver out of the set int16.
States = NDArray[np.integer[Any]]
# A claimed energy may differ from the recomputed one by this share of it …
CLAIM_TOLERANCE = 1e-6
# … or by this share of the terms that cancel in it.
CANCELLATION = 1e-12


def warm_up(solver: Solver, qubo: QuboBatch) -> None:
    """Compile what the solver needs, on one row and for one sweep."""
    solver.solve(qubo.take(slice(0, 1)), budget=Budget(sweeps=1))


def run_solver(
    solver: Solver,
    problem: RoundingProblem,
    seed: int,
    budget: Budget,
    data: Sequence[LayerData] | None = None,
) -> tuple[States, dict[str, Any]]:
    """States [R, n] of a solver, and its part of the record.

    A claim that the rounded weights do not bear out has the status ``invalid``. A
    problem of several batches solves one after the other; its seconds are shared.
    `data` are the layers behind the batches.
    """
    qubos = problem.to_qubos()
    warm_up(solver, qubos[0])
    states, claims, statuses, notes = [], [], [], []
    timing = {"prepare": 0.0, "solve": 0.0, "finish": 0.0}
    with tqdm(desc=label(solver), unit=" reports", leave=False, disable=None) as bar:
        for i, qubo in enumerate(qubos):
            found = solver.solve(
                qubo,
                seed=seed + (i << 32),
                budget=_share(budget, sum(timing.values()), len(qubos) - i),
                monitor=Monitor(lambda seconds, best: _show(bar, best)),
                data=None if data is None else data[i],
            )
            states.append(found.states)
            claims.append(found.energies)
            statuses.append(found.status)
            notes.append({k: v for k, v in found.info.items() if _plain(v)})
            for part, seconds in found.timing.items():
                timing[part] += seconds
    joined = problem.join(states)
    truth = problem.local_mse(joined)
    terms = np.concatenate([np.abs(q.offset) for q in qubos])
    claimed = np.concatenate(claims)
    allowed = CLAIM_TOLERANCE * np.abs(truth) + CANCELLATION * terms
    honest = bool((np.abs(claimed - truth) <= allowed).all())
    status = next((s for s in ("time", "target") if s in statuses), "done")
    return joined, {
        "solver": solver.name,
        "label": label(solver),
        "options": asdict(solver),
        "out_of_set": solver.out_of_set,
        "seed": seed,
        "objective": float(truth.sum()),
        "seconds": sum(timing.values()),
        "status": status if honest else "invalid",
        "timing": timing,
        "flipped": int((joined != problem.nearest()).sum()),
        "info": notes,
    }


def _plain(value: Any) -> bool:
    """Whether JSON can hold it as it is."""
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, int | str) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _share(budget: Budget, used: float, batches: int) -> Budget:
    if budget.seconds is None:
        return budget
    left = max(budget.seconds - used, 1e-3) / batches
    return Budget(left, budget.sweeps, budget.target, budget.threads)


def _show(bar: Any, best: NDArray[np.float64]) -> None:
    bar.set_postfix_str(f"energy {best.sum():.6g}", refresh=False)
    bar.update()
