"""An answer, judged: what a solver claims is computed anew, and makes a `Run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness.failures import plain
from benchmarks.harness.packing import thinned
from benchmarks.harness.race import check, ending, falls, remarks, timing
from benchmarks.harness.runs import Run, Spec
from benchmarks.harness.worker import Outcome
from qubo_rounding.problem import RoundingProblem
from solvers import QuboBatch, Solution, Solver
from solvers.registry import reason

# What makes runs beside the solver, in a process of their own or not: either way the
# answer is the same, and so is the run's id.
MAKER = "benchmarks.harness.judged"
DISHONEST = "the states do not have the energies that are claimed for them"


def judged(
    outcome: Outcome,
    spec: Spec,
    solver: Solver,
    problem: RoundingProblem | QuboBatch,
    qubos: Sequence[QuboBatch],
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
    solver, problem, qubos
        What was run, and on what.
    known
        More of the run's attributes, such as ``began``.
    """
    ended: dict[str, Any] = {
        "status": outcome.status,
        "message": outcome.message,
        "seconds": outcome.seconds,
        "timing": {},
    }
    if outcome.solutions:
        try:
            answer = answered(solver, problem, qubos, outcome.solutions)
        except Exception as error:
            # Attributes of any kind: the solver may have made its solution itself.
            ended |= {"status": "invalid", "message": f"no answer: {reason(error)}"}
        else:
            honest = answer.pop("status") == "ok"
            ended |= answer
            if not honest:
                ended |= {"status": "invalid", "message": DISHONEST}
    ended["timing"] = {**ended["timing"], "compile": outcome.compiling}
    return Run(spec=spec, **ended, **known)


def answered(
    solver: Solver,
    problem: RoundingProblem | QuboBatch,
    qubos: Sequence[QuboBatch],
    solutions: Sequence[Solution],
) -> dict[str, Any]:
    """The fields of a `Run` that come of its solutions, checked."""
    checked = check(solver, problem, qubos, solutions)
    remarked = [remarks(solution.info) for solution in solutions]
    # The solver's word stands first, where tables look for it.
    remarked[0] = {**remarked[0], "ended": ending(solutions)}
    told = plain(
        {
            "objective": float(checked.energies.sum()),
            "seconds": sum(solution.seconds for solution in solutions),
            "timing": timing(solutions),
            "info": remarked,
        }
    )
    return {
        **told,
        "info": tuple(told["info"]),
        "status": "ok" if checked.honest else "invalid",
        "energies": checked.energies,
        "claimed": checked.claimed,
        "states": checked.states.astype(np.int16 if solver.out_of_set else np.uint8),
        "falls": thinned(falls(solutions)),
    }
