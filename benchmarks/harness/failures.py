"""What a solver does wrong is kept to this solver: the others run, nothing is lost."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from tqdm import tqdm

from solvers import QuboBatch, Solver, label
from solvers.errors import printable
from solvers.registry import reason

# Statuses of runs without an answer, and with one that does not bear out its claim.
FAULTS = ("error", "crash", "oom", "timeout", "invalid")


class SolverFailure(Exception):
    """A solver has failed; the message is one line that says which one, and how."""


@contextmanager
def contained(solver: Solver) -> Iterator[None]:
    """Keep what a solver does wrong to itself.

    What it does to numpy's handling of floating-point errors and to the filters of
    warnings is undone.

    Raises
    ------
    SolverFailure
        Anything was raised, ``sys.exit`` included; only Ctrl-C passes.
    """
    name, filters = label(solver), list(warnings.filters)
    try:
        with np.errstate():
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SolverFailure(named(name, reason(error))) from error
    finally:
        # `catch_warnings` would show the same warning again in every run.
        if list(warnings.filters) != filters:
            warnings.filters = filters


def named(solver: str, message: str) -> str:
    """What is said about a solver, with the solver's label in front."""
    # Most messages for users begin so already.
    return message if message.startswith("solver ") else f"solver {solver}: {message}"


def refusal(solver: Solver, qubo: QuboBatch) -> str | None:
    """Why a solver says that it cannot take a batch; None if it can.

    A solver that fails to say so is left to fail in its run.
    """
    try:
        with contained(solver):
            return solver.supports(qubo)
    except SolverFailure:
        return None


def require_support(solver: Solver, qubo: QuboBatch) -> None:
    """Refuse a solver that cannot take the batch, before any work is done."""
    why = refusal(solver, qubo)
    solver.require(why is None, str(why))


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record as JSON holds it; what JSON cannot hold is refused.

    Raises
    ------
    ValueError, TypeError
        A number is not finite, or a value is none of JSON's kinds.
    """
    held: dict[str, Any] = json.loads(json.dumps(record, allow_nan=False))
    return held


def report(failure: SolverFailure | str) -> None:
    """Print a solver's failure in one line, beside bars of progress."""
    tqdm.write(f"error: {printable(str(failure))}", file=sys.stderr)
