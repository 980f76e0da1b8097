"""`check_solver`: the checks that every solver must pass, for authors of solvers.

The oracles here are plain numpy and share nothing with the solvers' kernels.

Examples
--------
>>> from solvers import parse_solver
>>> from solvers.testing import check_solver
>>> check_solver(parse_solver("stochastic[samples=20]"))
[]
"""

from __future__ import annotations

import math
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, get_type_hints

import numpy as np

from solvers.base import Solution, Solver
from solvers.budget import Budget
from solvers.errors import InputError
from solvers.qubo import Float, QuboBatch, States

STATUSES = ("done", "time", "target")
# Largest relative error of a claimed energy; beyond it a run is invalid.
ENERGY_TOLERANCE = 1e-6
SEED = 7


def reference_energies(qubo: QuboBatch, states: States) -> Float:
    """Energies by the definition: [R] of states [R, n], [R, K] of states [R, K, n]."""
    many = states.ndim == 3
    x = np.asarray(states if many else states[:, None], np.float64)
    y = qubo.scale[:, None] * x
    energies: Float = ((y @ qubo.H.astype(np.float64)) * y).sum(axis=2)
    energies += (qubo.linear[:, None] * x).sum(axis=2) + qubo.offset[:, None]
    return energies if many else energies[:, 0]


def brute_force(qubo: QuboBatch) -> tuple[States, Float]:
    """An optimal state [R, n] and the lowest energy [R] of every row, for small n."""
    bits = np.arange(2**qubo.n)[:, None] >> np.arange(qubo.n) & 1
    all_states = bits.astype(np.uint8)
    states = np.broadcast_to(all_states, (qubo.rows, *all_states.shape))
    energies = reference_energies(qubo, states)
    if qubo.fixed is not None:
        wrong = (qubo.fixed[:, None] >= 0) & (qubo.fixed[:, None] != states)
        energies[wrong.any(axis=2)] = np.inf
    best = energies.argmin(axis=1)
    return all_states[best], energies[np.arange(qubo.rows), best]


def example_batch(
    rows: int, n: int, seed: int = 0, definite: bool = True, scale: Float | None = None
) -> QuboBatch:
    """Rounding problems ``(s x - s t)^T H (s x - s t)`` with random H [n, n] and t."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    H = A @ A.T if definite else A + A.T
    s = np.ones((rows, 1)) if scale is None else scale
    t = rng.random((rows, n))
    pull = (s * t) @ H
    return QuboBatch(H, -2 * s * pull, ((s * t) * pull).sum(axis=1), s, t)


def example_batches() -> dict[str, QuboBatch]:
    """Small batches that cover the cases a solver meets, by name; n is at most 9."""
    rng = np.random.default_rng(SEED)
    dense, indefinite = example_batch(4, 9), example_batch(3, 9, definite=False)
    per_weight = example_batch(3, 9, scale=rng.uniform(0.1, 3, (3, 9)))
    sparse = np.where(rng.random((9, 9)) < 0.2, rng.normal(size=(9, 9)), 0.0)
    penalised = np.diag([1e7, *np.full(8, -1.0)])
    penalised[1, 2], penalised[3, 4] = 2.5, -1.5
    signs = np.array([[[-1]], [[1]]], np.int32)
    return {
        "positive definite": dense,
        "indefinite": indefinite,
        "scale per row": example_batch(3, 9, scale=rng.uniform(0.1, 3, (3, 1))),
        "scale per weight": per_weight,
        "some pinned": replace(per_weight, fixed=rng.integers(-1, 2, (3, 9), np.int8)),
        "all pinned": replace(indefinite, fixed=rng.integers(0, 2, (3, 9), np.int8)),
        "H in float32": replace(dense, H=dense.H.astype(np.float32)),
        "sparse": QuboBatch.from_matrix(sparse, rng.normal(size=(2, 9))),
        "one large coefficient": QuboBatch.from_matrix(penalised),
        "all zero": QuboBatch.from_matrix(np.zeros((2, 2))),
        "one variable": example_batch(3, 1),
        "two variables": example_batch(3, 2, definite=False),
        "with levels": replace(
            per_weight,
            fixed=rng.integers(-1, 2, (3, 9), np.int8),
            levels=rng.integers(1, 8, (2, 3, 9), np.int32) * signs,
        ),
    }


def check_solver(
    solver: Solver | type[Solver], *, rows_independent: bool = True
) -> list[str]:
    """Check a solver on `example_batches`, as the project checks its own solvers.

    Options are validated fields of a frozen dataclass, with defaults and of types that
    the registry can read. States are uint8 [R, n] of 0 and 1, pinned variables keep
    their values (a solver out of the set instead gives int16 within the batch's
    levels), and claimed energies are right. The same seed gives the same states, on one
    thread and on two. No row is worse than its start (a rule instead gives the same
    answer from any start). ``Budget(sweeps=1)`` and the other limits are heeded, the
    status is known and the trace monotone. Neither the batch nor numpy's global random
    state is changed.

    Parameters
    ----------
    solver
        An instance, or a class to be checked with its defaults. It solves each batch
        about eight times.
    rows_independent
        Check that the first row of a batch gets the same states without the others, as
        `Solver` promises. False for a solver that couples rows on purpose.

    Returns
    -------
    list of str
        The batches that the solver does not support, each with its reason.

    Raises
    ------
    AssertionError
        A check fails; the message says which, and on which batch.
    """
    cls = solver if isinstance(solver, type) else type(solver)
    _check_options(cls)
    solver = cls() if isinstance(solver, type) else solver
    skipped = []
    batches = example_batches()
    for name, qubo in batches.items():
        if (reason := solver.supports(qubo)) is not None:
            skipped.append(f"{name}: {reason}")
        else:
            _Case(solver, qubo, name).check(rows_independent)
    _require(len(skipped) < len(batches), f"{cls.__name__} supports no batch")
    return skipped


def _require(condition: bool | np.bool_, message: str) -> None:
    # Not `assert`, which python -O leaves out.
    if not condition:
        raise AssertionError(message)


def _check_options(cls: type[Solver]) -> None:
    class_text = f"solver class {cls.__name__}"
    _require(isinstance(getattr(cls, "name", None), str), f"{class_text} has no name")
    frozen = is_dataclass(cls) and "__dataclass_fields__" in vars(cls)
    _require(frozen, f"{class_text} must be a dataclass(frozen=True, kw_only=True)")
    types = get_type_hints(cls)
    for option in fields(cls):
        option_text, kind = f"option {option.name} of {class_text}", types[option.name]
        _require(option.default is not MISSING, f"{option_text} has no default")
        plain = kind in (bool, int, float, str)
        _require(plain, f"{option_text} must be a bool, int, float or str, not {kind}")
        if kind is float:
            _require_refused(cls, {option.name: math.nan})
    _require_refused(cls, {"polish": "no such polish"})


def _require_refused(cls: type[Solver], options: dict[str, Any]) -> None:
    try:
        cls(**options)
    except InputError:
        return
    raise AssertionError(f"solver class {cls.__name__} accepts {options}")


class _Case:
    """One solver on one batch."""

    def __init__(self, solver: Solver, qubo: QuboBatch, name: str) -> None:
        self.solver, self.qubo, self.name = solver, qubo, name

    def require(self, condition: bool | np.bool_, message: str) -> None:
        _require(
            condition, f"solver {self.solver.name}, batch {self.name!r}: {message}"
        )

    def check(self, rows_independent: bool) -> None:
        before = _fingerprint(self.qubo)
        solution = self.solve()
        untouched = _fingerprint(self.qubo) == before
        self.require(untouched, "the batch or numpy's global random state is changed")
        self.require_same(solution, self.solve(), "the same seed gives other states")
        threaded = self.solve(Budget(threads=2))
        self.require_same(solution, threaded, "other states on two threads than on one")
        if rows_independent:
            first_row = self.solve(qubo=self.qubo.take(slice(0, 1))).states
            is_equal = np.array_equal(first_row, solution.states[:1])
            self.require(is_equal, "the first row depends on the rows after it")
        self.check_start(solution)
        self.check_limits(solution)

    def solve(
        self,
        budget: Budget | None = None,
        initial: States | None = None,
        qubo: QuboBatch | None = None,
    ) -> Solution:
        """Solve, and check what must hold for any solution."""
        qubo = self.qubo if qubo is None else qubo
        solution = self.solver.solve(qubo, seed=SEED, budget=budget, initial=initial)
        states, energies = solution.states, solution.energies
        dtype = "int16" if self.solver.out_of_set else "uint8"
        form, wanted = f"{states.dtype}{states.shape}", f"{dtype}{(qubo.rows, qubo.n)}"
        self.require(form == wanted, f"states are {form}, not {wanted}")
        if self.solver.out_of_set and qubo.levels is not None:
            inside = (qubo.levels[0] <= states) & (states <= qubo.levels[1])
            self.require(inside.all(), "states lie outside the levels")
        else:
            self.require((states <= 1).all(), "states hold other values than 0 and 1")
            pinned = np.array_equal(qubo.pin(states), states)
            self.require(pinned, "a pinned variable has another value")
        exact = reference_energies(qubo, states)
        # Where terms cancel, no sum is better than the rounding of its largest term.
        sizes = {name: abs(getattr(qubo, name)) for name in ("H", "linear", "offset")}
        noise = 1e-12 * reference_energies(replace(qubo, **sizes), abs(states))
        close = abs(energies - exact) <= ENERGY_TOLERANCE * abs(exact) + noise
        self.require(close.all(), f"claimed energies {energies} are really {exact}")
        self.require(solution.status in STATUSES, f"unknown status {solution.status!r}")
        seconds, trace = solution.trace
        self.require((seconds[1:] >= seconds[:-1]).all(), "the trace runs back in time")
        self.require((trace[1:] <= trace[:-1]).all(), "the trace's energies rise")
        return solution

    def require_same(self, first: Solution, second: Solution, message: str) -> None:
        self.require(np.array_equal(first.states, second.states), message)

    def check_start(self, cold: Solution) -> None:
        """Check answers against starts; `cold` started at the nearest rounding."""
        rng = np.random.default_rng(SEED)
        given = self.qubo.pin(rng.integers(0, 2, cold.states.shape, np.uint8))
        warm = self.solve(initial=given)
        if not self.solver.keeps_start:
            self.require_same(
                cold, warm, "the answer depends on a start that it does not keep"
            )
            return
        for solution, start in ((cold, self.qubo.nearest()), (warm, given)):
            bound = reference_energies(self.qubo, start)
            better = solution.energies <= bound + ENERGY_TOLERANCE * abs(bound)
            self.require(better.all(), "a row is worse than its start")

    def check_limits(self, unlimited: Solution) -> None:
        """Check that limits are heeded; `unlimited` was solved without any."""
        one_sweep = self.solve(Budget(sweeps=1))
        no_time = self.solve(Budget(seconds=1e-9))
        # The first and last entries of a trace are the start and the answer; a solver
        # that takes rows in turn reports once for each.
        most_reports = max(len(unlimited.trace[0]) - 1, 2 + self.qubo.rows)
        heeded = len(one_sweep.trace[0]) <= most_reports
        self.require(heeded, "as many reports with Budget(sweeps=1) as without")
        for solution, allowed_statuses in (
            (one_sweep, ("done",)),
            (no_time, ("done", "time")),
        ):
            is_allowed = solution.status in allowed_statuses
            self.require(
                is_allowed, f"status {solution.status} for lack of such a limit"
            )
        satisfied = self.solve(Budget(target=math.inf))
        self.require(
            satisfied.status != "time", "status time without a limit of seconds"
        )


def _fingerprint(qubo: QuboBatch) -> list[bytes]:
    # Looks at the legacy generator only to see that nobody else has used it.
    state = np.random.get_state(legacy=True)  # noqa: NPY002
    arrays = [np.asarray(getattr(qubo, f.name)) for f in fields(qubo)]
    return [repr(state).encode()] + [a.tobytes() for a in arrays if a.dtype != object]
