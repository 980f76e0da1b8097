"""`solve`: any binary quadratic model in one call."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.base import Solution, Solver
from solvers.budget import Budget
from solvers.errors import InputError
from solvers.qubo import Float, QuboBatch
from solvers.registry import parse_solver

DEFAULT_SOLVER = "tabu"
# What is read becomes dense; symmetrising it holds three matrices of float64 at a time,
# and a solver keeps one more of its own.
_BYTES_PER_ENTRY = 32


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
        A matrix [n, n] of any symmetry, dense or of scipy.sparse;
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
        Same seed, same answer, unless `seconds` end first.
    seconds, sweeps, target, threads
        See `Budget`.
    initial
        States to start from, in the values of the problem (-1 and +1 for SPIN): [n],
        [R, n] or ``{label: value}``.

    Returns
    -------
    Solution
        `states` are 0 and 1, also for a SPIN model, in the order of `variables`;
        `to_sampleset` speaks the caller's language.

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
    chosen = as_solver(solver)
    model = as_model(Q, linear, offset)
    budget = Budget(seconds=seconds, sweeps=sweeps, target=target, threads=threads)
    start = None if initial is None else model.states(initial)
    solution = chosen.solve(model.qubo, seed=seed, budget=budget, initial=start)
    return replace(solution, variables=model.variables, vartype=model.vartype)


@dataclass(frozen=True, eq=False)
class Model:
    """A batch, and the caller's names and values of its variables.

    Attributes
    ----------
    qubo
        The batch.
    variables
        Labels; None: 0 to n - 1.
    vartype
        ``"BINARY"`` or ``"SPIN"``, with ``spin = 2 x - 1``.
    """

    qubo: QuboBatch
    variables: tuple[Hashable, ...] | None = None
    vartype: str = "BINARY"

    def states(self, values: ArrayLike | Mapping[Hashable, int]) -> NDArray[Any]:
        """0 and 1 [R, n] for the caller's values: [n], [R, n] or by label.

        Raises
        ------
        InputError
            Labels missing or unknown, a ragged list, values that are no spins. Binary
            values and the shape are left for the solver to check.
        """
        if isinstance(values, Mapping):
            labels = self.variables or range(self.qubo.n)
            for label in labels:
                if label not in values:
                    raise InputError(
                        f"initial has no value for variable {_shown(label)}"
                    )
            if unknown := values.keys() - set(labels):
                one = _shown(unknown.pop())
                raise InputError(f"initial has a value for {one}, which is no variable")
            values = [values[label] for label in labels]
        try:
            x = np.asarray(values)
        except ValueError as error:
            raise InputError("initial must be numbers in a regular array") from error
        if self.vartype == "SPIN":
            if not ((x == -1) | (x == 1)).all():
                raise InputError("initial may hold only -1 and +1 for a SPIN model")
            x = x > 0
        return np.broadcast_to(x, (self.qubo.rows, len(x))) if x.ndim == 1 else x


def as_solver(solver: str | Solver) -> Solver:
    """A solver from its text, or as it is."""
    if isinstance(solver, Solver):
        return solver
    if isinstance(solver, str):
        return parse_solver(solver)
    raise InputError(
        "solver must be a text such as 'sa[num_sweeps=100]' or an instance of Solver, "
        f"not {_shown(solver)}"
    )


def as_model(
    Q: Any,
    linear: ArrayLike | Mapping[Hashable, float] | None = None,
    offset: float | ArrayLike = 0.0,
) -> Model:
    """Read whatever `solve` takes.

    Raises
    ------
    InputError
        As `solve`.
    """
    # Whoever holds a dimod model or a sparse matrix has imported its package.
    dimod, sparse = (sys.modules.get(name) for name in ("dimod", "scipy.sparse"))
    is_bqm = dimod is not None and isinstance(Q, dimod.BinaryQuadraticModel)
    if isinstance(Q, QuboBatch) or is_bqm:
        if linear is not None or np.any(np.asarray(offset) != 0):
            kind = type(Q).__name__
            raise InputError(f"a {kind} has linear terms and an offset of its own")
        if isinstance(Q, QuboBatch):
            return Model(Q)
        require_dense(Q.num_variables)
        return Model(QuboBatch.from_bqm(Q), tuple(Q.variables), Q.vartype.name)
    is_sparse = sparse is not None and sparse.issparse(Q)
    # One kind of sparse matrix is a dict too.
    if isinstance(Q, Mapping) and not is_sparse:
        return _from_mapping(Q, linear, offset)
    if isinstance(linear, Mapping):
        raise InputError("linear may be a dict only where Q is one")
    if is_sparse:
        if Q.ndim == 2:
            require_dense(max(Q.shape))
        Q = Q.toarray()
    elif not (isinstance(Q, Sequence) or hasattr(Q, "__array__")):
        raise InputError(
            f"cannot read a problem from {type(Q).__name__}; give a matrix, a dict "
            "{(i, j): weight}, a dimod BinaryQuadraticModel or a QuboBatch"
        )
    return Model(QuboBatch.from_matrix(Q, linear, offset))


def require_dense(n: int, what: str = "") -> None:
    """Refuse n variables whose dense matrix memory cannot hold; `what` leads the line.

    Raises
    ------
    InputError
        With both sizes.
    """
    import psutil

    needed, available = _BYTES_PER_ENTRY * n**2, psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"{what}{n} variables need {needed / 2**30:.1f} GiB as a dense matrix and "
            f"{available / 2**30:.1f} GiB is available"
        )


def _from_mapping(
    Q: Mapping[Any, Any],
    linear: ArrayLike | Mapping[Hashable, float] | None,
    offset: float | ArrayLike,
) -> Model:
    for key in Q:
        if not (isinstance(key, tuple) and len(key) == 2):
            raise InputError(f"the keys of Q must be pairs (i, j), not {_shown(key)}")
    named = linear if isinstance(linear, Mapping) else {}
    labels = [*(label for key in Q for label in key), *named]
    index = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    require_dense(len(index))
    if isinstance(linear, Mapping):
        c = np.zeros(len(index))
        c[[index[label] for label in linear]] = _numbers("linear", linear.items())
        linear = c
    dense = np.zeros((len(index), len(index)))
    at = np.array([(index[i], index[j]) for i, j in Q], np.intp).reshape(-1, 2)
    np.add.at(dense, (at[:, 0], at[:, 1]), _numbers("Q", Q.items()))
    return Model(QuboBatch.from_matrix(dense, linear, offset), tuple(index))


def _numbers(name: str, items: Iterable[tuple[Any, Any]]) -> list[float]:
    return [_number(name, key, value) for key, value in items]


def _number(name: str, key: Any, value: Any) -> float:
    if isinstance(value, Real):
        # A whole number can be too large for a float.
        with suppress(OverflowError):
            number = float(value)
            if math.isfinite(number):
                return number
    raise InputError(
        f"{name}[{_shown(key)}] is {_shown(value)}; it must be a finite real number"
    )


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
