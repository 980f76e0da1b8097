"""`solve`: any binary quadratic model in one call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from solvers.base import Solution, Solver
from solvers.budget import Budget
from solvers.errors import InputError, shown
from solvers.io.model import as_model
from solvers.qubo import Float
from solvers.registry import parse_solver

# Exact for the smallest problems, single flips for general ones, `lattice` for
# roundings.
DEFAULT_SOLVER = "auto"


def solve(
    Q: Any,
    linear: ArrayLike | Mapping[Hashable, float] | None = None,
    offset: float | ArrayLike = 0.0,
    *,
    solver: str | Solver = DEFAULT_SOLVER,
    seed: int = 0,
    seconds: float | None = None,
    sweeps: int | None = None,
    target: float | Float | None = None,
    threads: int = 1,
    initial: ArrayLike | Mapping[Hashable, int] | None = None,
) -> Solution:
    """Minimise ``x^T Q x + linear.x + offset`` over binary x.

    Parameters
    ----------
    Q
        A matrix [n, n], symmetric or not, dense or from scipy.sparse;
        ``{(i, j): weight}`` with any labels, where (i, i) is linear and (i, j) and
        (j, i) add up; a dimod model, BINARY or SPIN; or a `QuboBatch`. Everything is
        made dense.
    linear
        [n], or [R, n] for R problems that share Q; ``{label: weight}`` where Q is a
        dict (an array follows the order in which labels first appear in Q). Models and
        batches have their own.
    offset
        One number or [R].
    solver
        A name, with options as in ``"sa[num_sweeps=100]"``, or a `Solver`.
    seed
        The same seed gives the same answer, unless `seconds` end the search first.
    seconds, sweeps, target, threads
        See `Budget`.
    initial
        States to start from, in the values of the problem (-1 and +1 for SPIN): [n],
        [R, n] or ``{label: value}``.

    Returns
    -------
    Solution
        `states` are 0 and 1, also for a SPIN model, in the order of `variables`;
        `to_sampleset` gives them in the caller's labels and values.

    Raises
    ------
    InputError
        Anything that cannot be read, or that memory cannot hold as a dense matrix.

    Examples
    --------
    >>> from solvers import solve
    >>> found = solve({("a", "a"): -1.0, ("b", "b"): 1.5, ("a", "b"): -2.0})
    >>> found.variables, found.states, found.energies
    (('a', 'b'), array([[1, 1]], dtype=uint8), array([-1.5]))
    """
    method = as_solver(solver)
    model = as_model(Q, linear, offset)
    budget = Budget(seconds=seconds, sweeps=sweeps, target=target, threads=threads)
    states = None if initial is None else model.states(initial)
    solution = method.solve(model.qubo, seed=seed, budget=budget, initial=states)
    return replace(solution, variables=model.variables, vartype=model.vartype)


def as_solver(solver: str | Solver) -> Solver:
    """`solver` itself, or the solver that a text names."""
    if isinstance(solver, Solver):
        return solver
    if isinstance(solver, str):
        return parse_solver(solver)
    raise InputError(
        "solver must be a text such as 'sa[num_sweeps=100]' or an instance of Solver, "
        f"not {shown(solver)}"
    )
