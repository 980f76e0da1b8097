"""An outcome, judged: what a solver claims is computed anew, and makes a `Run`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.harness.race import CANCELLATION, CLAIM_TOLERANCE, falls, remarks
from benchmarks.harness.runs import Run, Spec, States
from benchmarks.harness.worker import Outcome
from qubo_rounding.problem import RoundingProblem
from solvers import QuboBatch, Solver
from solvers.errors import InputError
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
    """The run that an outcome is.

    The answer of a run that was killed is judged like any other; what does not bear out
    its claim is ``invalid``, whatever else became of the run.

    Parameters
    ----------
    spec
        What was asked for.
    solver, qubos
        What was run, and on what.
    problem
        The problem that the batches are of, which then judges; else the batches do.
    known
        More attributes of the run, such as its environment.
    """
    run = Run
    ...
