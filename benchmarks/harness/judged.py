"""An outcome, judged: what a solver claims is computed anew, and makes a `Run`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness.race import bears_out, falls, remarks
from benchmarks.harness.runs import Run, Spec, States
from benchmarks.harness.worker import Outcome
from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch, Solution, Solver
from solvers.qubo import Float
from solvers.registry import reason
from solvers.testing import reference_energies


def judged(
    outcome: Outcome,
    spec: Spec,
    solver: Solver,
    qubos: Sequence[QuboBatch],
    problem: RoundingProblem | None = None,
    **known: Any,
) -> Run:
    """The run that an outcome makes.

    The answer of a run that was killed is judged like any other. What is no answer, or
    does not bear out its claim, makes the run ``invalid``, whatever else became of it.

    Parameters
    ----------
    outcome
        What has become of the run.
    spec
        What was asked for.
    solver, qubos
        What was run, and on what.
    problem
        The problem that the batches are of: its rounded weights give the errors. By
        default energies are those of the batches.
    known
        More of the run's attributes, such as ``began``.
    """
    solutions = outcome.solutions
    timing = {"compile": outcome.compiling}
    ended: dict[str, Any] = {
        "status": outcome.status,
        "message": outcome.message,
        "seconds": outcome.seconds,
    }
    if solutions:
        try:
            states, energies, claimed = _answer(solver, qubos, problem, solutions)
            timing |= {
                part: math.fsum(solution.timing[part] for solution in solutions)
                for part in solutions[0].timing
            }
            steps = np.array(falls(solutions, 1.0), np.float64).reshape(-1, 2)
        except Exception as error:
            # Attributes of any kind: the solver may have made its solution itself.
            ended |= {"status": "invalid", "message": f"no answer: {reason(error)}"}
        else:
            if not bears_out(claimed, energies, qubos):
                message = (
                    "the states do not have the energies that are claimed for them"
                )
                ended |= {"status": "invalid", "message": message}
            ended |= {
                "objective": float(energies.sum()),
                "energies": energies,
                "claimed": claimed,
                "states": states,
                "falls": steps,
                "info": tuple(remarks(solution.info) for solution in solutions),
            }
    return Run(spec=spec, timing=timing, **ended, **known)


def _answer(
    solver: Solver,
    qubos: Sequence[QuboBatch],
    problem: RoundingProblem | None,
    solutions: Sequence[Solution],
) -> tuple[States, Float, Float]:
    """States [R, n] of all batches, their energies [R], and those claimed [R].

    Raises
    ------
    InputError
        States or energies of another shape, or values that no state has.
    """
    parts: list[Any] = []
    for qubo, solution in zip(qubos, solutions, strict=True):
        require = qubo.require_steps if solver.out_of_set else qubo.require_states
        parts.append(require("states", solution.states))
        if solution.energies.shape != (qubo.rows,):
            raise InputError(f"energies must have shape {(qubo.rows,)}")
    if problem is not None:
        states = problem.join(parts)
        energies: Float = problem.local_mse(states)
    else:
        states = np.concatenate(parts)
        energies = np.concatenate(
            [reference_energies(q, x) for q, x in zip(qubos, parts, strict=True)]
        )
    return states, energies, np.concatenate([s.energies for s in solutions])
