"""Solvers run on one problem, and their answers checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.harness.failures import contained, plain
from benchmarks.harness.runs import States
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from qubo_rounding.problem.in_turn import solve_in_turn
from solvers import Budget, InputError, Monitor, QuboBatch, Solution, Solver, label
from solvers.layer_data import LayerData
from solvers.qubo import Float
from solvers.testing import reference_energies

# A claimed energy may differ from the recomputed one by this share of the latter …
CLAIM_TOLERANCE = 1e-6
# … and by this share of the terms that cancel in it.
CANCELLATION = 1e-12
# Characters of a remark that a record keeps; longer ones are no remarks.
LONGEST = 1_000_000


def run_solver(
    solver: Solver,
    problem: RoundingProblem,
    seed: int,
    budget: Budget,
    data: Sequence[LayerData] | None = None,
) -> tuple[States, dict[str, Any]]:
    """States [R, n] of a solver, compiled beforehand, and its part of the record.

    Raises
    ------
    SolverFailure
        The solver has no answer.
    """
    qubos = problem.to_qubos()
    with contained(solver):
        compile_for(solver, qubos[0])
        solutions = solve(solver, qubos, seed, budget, data)
        states, record = judge(solver, problem, qubos, seed, solutions)
        return states, plain(record)


def run_in_turn(
    solver: Solver, problem: RoundingProblem, grid: Grid, seed: int, budget: Budget
) -> tuple[RoundingProblem, States, dict[str, Any]]:
    """A solver run in turn with fits of the scale, and its part of the record.

    The solver is compiled beforehand, and the rounds share the seconds. Beside what
    `run_solver` gives, the record has ``objective_by_round``, which begins with the
    error at the problem's own scale. What the solver says about its runs stands there
    in their order, batch by batch.

    Returns
    -------
    problem
        The problem at the final scale.
    states : [R, n]
        The answer, as states of this problem.
    record
        The solver's part of the record.

    Raises
    ------
    SolverFailure
        The solver has no answer.
    """
    records: list[dict[str, Any]] = []

    def states_of(posed: RoundingProblem) -> States:
        qubos = posed.to_qubos()
        used = sum(record["seconds"] for record in records)
        share = _share(budget, used, grid.turns + 1 - len(records))
        solutions = solve(solver, qubos, seed, share)
        states, record = judge(solver, posed, qubos, seed, solutions)
        records.append(record)
        return states

    with contained(solver):
        compile_for(solver, problem.to_qubos()[0])
        turns = solve_in_turn(problem, grid, states_of)
        statuses = [record["status"] for record in records]
        record = {
            **about(solver, seed),
            "objective": float(turns.errors[-1]),
            "objective_by_round": turns.errors.tolist(),
            "seconds": sum(record["seconds"] for record in records),
            "status": _first_of(("invalid", "time", "target"), statuses),
            "timing": {
                part: sum(record["timing"][part] for record in records)
                for part in records[0]["timing"]
            },
            "flipped": int((turns.states != turns.problem.nearest()).sum()),
            "info": [notes for record in records for notes in record["info"]],
        }
        return turns.problem, turns.states, plain(record)


def about(solver: Solver, seed: int) -> dict[str, Any]:
    """The part of a record that is known before the run."""
    return {
        "solver": solver.name,
        "label": label(solver),
        "options": asdict(solver),
        "out_of_set": solver.out_of_set,
        "seed": seed,
    }


def compile_for(solver: Solver, qubo: QuboBatch) -> None:
    """Compile all that the solver may call for such a batch, on a copy of it."""
    solver.compile_for(deepcopy(qubo))


def solve(
    solver: Solver,
    qubos: Sequence[QuboBatch],
    seed: int,
    budget: Budget,
    data: Sequence[LayerData] | None = None,
    monitor: Callable[[int], Monitor] | None = None,
) -> list[Solution]:
    """A solution for each of a problem's batches; what is not compiled yet counts.

    Several batches are solved one after the other and share the seconds. `data` is the
    layer's data for each batch. `monitor` gives what it reports to, by a batch's index:
    a bar of progress by default. The solver is given copies: whatever it does to them,
    in spite of their being read-only, shows in no other solver's result, and not in
    what the judge computes.
    """
    solutions: list[Solution] = []
    with tqdm(desc=label(solver), unit=" reports", leave=False, disable=None) as bar:
        for i, qubo in enumerate(qubos):
            used = sum(solution.seconds for solution in solutions)
            if monitor is None:
                reported = Monitor(lambda seconds, best: _show(bar, best))
            else:
                reported = monitor(i)
            solutions.append(
                solver.solve(
                    deepcopy(qubo),
                    seed=seed + (i << 32),
                    budget=_share(budget, used, len(qubos) - i),
                    monitor=reported,
                    data=None if data is None else data[i],
                )
            )
    return solutions


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """What a solver has claimed, and what its states bear out.

    Attributes
    ----------
    states : [R, n]
        The answer to the whole problem.
    energies, claimed : [R]
        The energies recomputed from the states by code that shares nothing with the
        solvers, and those that the solver has claimed.
    honest
        Whether the two agree, as far as rounding allows.
    """

    states: States
    energies: Float
    claimed: Float
    honest: bool


def check(
    solver: Solver,
    problem: RoundingProblem | QuboBatch,
    qubos: Sequence[QuboBatch],
    solutions: Sequence[Solution],
) -> Checked:
    """Recompute the energies of an answer, and compare the claims with them.

    Parameters
    ----------
    solver
        The solver that has answered.
    problem
        The problem.
    qubos
        The problem's batches; of a batch, that alone.
    solutions
        The solver's solution for each of them.

    Raises
    ------
    InputError
        What should be states or energies has another shape, or values that none has.
    """
    parts: list[Any] = []
    for qubo, solution in zip(qubos, solutions, strict=True):
        require = qubo.require_steps if solver.out_of_set else qubo.require_states
        parts.append(require("states", solution.states))
        if solution.energies.shape != (qubo.rows,):
            raise InputError(f"energies must have shape {(qubo.rows,)}")
    if isinstance(problem, RoundingProblem):
        states = problem.join(parts)
        energies = problem.local_mse(states)
        terms = np.concatenate([np.abs(qubo.offset) for qubo in qubos])
    else:
        states = np.concatenate(parts)
        energies = np.concatenate(
            [reference_energies(q, part) for q, part in zip(qubos, parts, strict=True)]
        )
        terms = np.concatenate([_terms(qubo) for qubo in qubos])
    claimed = np.concatenate([solution.energies for solution in solutions])
    allowed = CLAIM_TOLERANCE * np.abs(energies) + CANCELLATION * terms
    honest = bool((np.abs(claimed - energies) <= allowed).all())
    return Checked(states=states, energies=energies, claimed=claimed, honest=honest)


def _terms(qubo: QuboBatch) -> Float:
    """The size of the terms [R] that an energy is the sum of."""
    size = np.broadcast_to(qubo.scale, qubo.linear.shape)
    terms = np.abs(qubo.offset) + np.abs(qubo.linear).sum(axis=1)
    return np.asarray(terms + np.einsum("ri,ri->r", size @ np.abs(qubo.H), size))


def judge(
    solver: Solver,
    problem: RoundingProblem,
    qubos: Sequence[QuboBatch],
    seed: int,
    solutions: Sequence[Solution],
) -> tuple[States, dict[str, Any]]:
    """States [R, n] of the batches' solutions, and the record of their quality.

    The status is ``invalid`` if the rounded weights do not bear out the claimed
    energies.
    """
    checked = check(solver, problem, qubos, solutions)
    return checked.states, {
        **about(solver, seed),
        "objective": float(checked.energies.sum()),
        "seconds": sum(solution.seconds for solution in solutions),
        "status": ending(solutions) if checked.honest else "invalid",
        "timing": timing(solutions),
        "flipped": int((checked.states != problem.nearest()).sum()),
        "info": [remarks(solution.info) for solution in solutions],
    }


def ending(solutions: Sequence[Solution]) -> str:
    """How the solver says that it has ended: as one of its solutions, or done."""
    statuses = [solution.status for solution in solutions]
    return _first_of(("time", "target"), statuses)


def timing(solutions: Sequence[Solution]) -> dict[str, float]:
    """Seconds of the parts of solving, summed over the batches."""
    return {
        part: sum(solution.timing[part] for solution in solutions)
        for part in solutions[0].timing
    }


def falls(solutions: Sequence[Solution]) -> Float:
    """Seconds and energy [T, 2], each time the sum over all rows is lower than before.

    The batches are solved one after the other. Until its turn comes, a batch counts
    with the energy of its start (infinite if the solver keeps no start).
    """
    sums = np.array([solution.trace[1][0].sum() for solution in solutions])
    begun, lowest, steps = 0.0, math.inf, []
    for i, solution in enumerate(solutions):
        seconds, energies = solution.trace
        for at, energy in zip(seconds, energies.sum(axis=1), strict=True):
            sums[i] = energy
            if (total := float(sums.sum())) < lowest:
                lowest = total
                steps.append((begun + solution.timing["prepare"] + at, lowest))
        begun += solution.seconds
    return np.array(steps, np.float64).reshape(-1, 2)


def _first_of(notable: Sequence[str], statuses: Sequence[str]) -> str:
    """The status of several runs: the first notable one that any has, else done."""
    return next((status for status in notable if status in statuses), "done")


def remarks(info: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold of a solver's remarks, up to `LONGEST` characters of each."""
    return {
        key: value
        for key, value in info.items()
        if isinstance(key, str) and _plain(value) and len(repr(value)) <= LONGEST
    }


def _plain(value: Any) -> bool:
    """Whether JSON can hold `value` as it is."""
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, int | str) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _share(budget: Budget, used: float, runs: int) -> Budget:
    """The next run's budget: an equal share of the seconds for each one left."""
    if budget.seconds is None:
        return budget
    left = max(budget.seconds - used, 1e-3) / runs
    return Budget(left, budget.sweeps, budget.target, budget.threads)


def _show(bar: Any, best: NDArray[np.float64]) -> None:
    bar.set_postfix_str(f"energy {best.sum():.6g}", refresh=False)
    bar.update()
