"""Runs of solvers on one posed problem, kept as they finish."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from benchmarks.harness.log import RunLog, solver_key
from benchmarks.harness.race import States, judge, solve
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, QuboBatch, Solution, Solver, label
from solvers.layer_data import LayerData

# Figures of an answer's states [R, n] that are kept with its run.
Score = Callable[[States], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a solver on a problem, its answer judged.

    Attributes
    ----------
    label
        Of the solver.
    objective
        Summed over the rows, recomputed from the rounded weights.
    ratio
        To rounding to nearest; None where that has no error.
    seconds
        Everything the solver did with the problem.
    status
        ``"invalid"`` where the rounded weights do not bear out what was claimed.
    info
        The solver's remarks, for each of the problem's batches.
    falls
        Seconds and ratio, whenever the error summed over all rows was lowest so far.
    scores
        What else was made of the states.
    """

    label: str
    objective: float
    ratio: float | None
    seconds: float
    status: str
    info: Sequence[dict[str, Any]] = ()
    falls: Sequence[Sequence[float]] = ()
    scores: dict[str, Any] = field(default_factory=dict)

    def total(self, remark: str) -> float:
        """A figure of the remarks, summed over the batches."""
        return float(sum(note.get(remark, 0) for note in self.info))

    @property
    def building(self) -> float:
        """Seconds that went into other packages' models or libraries of moves."""
        return self.total("build_seconds") + self.total("library_seconds")


class Trials:
    """Runs on one problem by solver, seed and budget: from the log, or made now.

    Parameters
    ----------
    pose
        Gives the problem; called once, and not at all where the log has every run.
    log
        Where runs are kept.
    threads
        Of every run.
    name
        What the keys of the log begin with, where it holds runs on several problems.
    data
        What the layer does, for solvers that look at more than the quadratic form;
        called for every such run.
    """

    def __init__(
        self,
        pose: Callable[[], RoundingProblem],
        log: RunLog,
        *,
        threads: int = 1,
        name: str = "",
        data: Callable[[], Sequence[LayerData] | None] = lambda: None,
    ) -> None:
        self._pose, self._log, self._threads = pose, log, threads
        self._name, self._data = name, data
        self._compiled: set[str] = set()

    def run(
        self,
        solver: Solver,
        seed: int = 0,
        *,
        seconds: float | None = None,
        sweeps: int | None = None,
        score: Score | None = None,
    ) -> Trial:
        """One run."""
        key = self._name + solver_key(solver)
        key += "" if seconds is None else f"@{seconds!r}"
        key += "" if sweeps is None else f" sweeps {sweeps}"
        budget = Budget(seconds=seconds, sweeps=sweeps, threads=self._threads)
        make = partial(self._make, solver, seed, budget, score)
        return Trial(**self._log.run(f"{key} seed {seed}", make))

    def require_ratio(self) -> None:
        """Refuse a problem that rounding to nearest solves without an error."""
        if not self._nearest:
            raise InputError(
                "there is no ratio to nearest: rounding to nearest has no error"
            )

    def require_support(self, solver: Solver) -> None:
        """Refuse a solver that cannot take the problem, before any work is done."""
        reason = solver.supports(self._qubos[0])
        solver.require(reason is None, str(reason))

    @cached_property
    def problem(self) -> RoundingProblem:
        """The problem, posed when it is first needed."""
        return self._pose()

    @cached_property
    def _qubos(self) -> list[QuboBatch]:
        return self.problem.to_qubos()

    @cached_property
    def _nearest(self) -> float:
        return float(self.problem.local_mse(self.problem.nearest()).sum())

    def _make(
        self, solver: Solver, seed: int, budget: Budget, score: Score | None
    ) -> dict[str, Any]:
        if label(solver) not in self._compiled:
            solver.compile_for(self._qubos[0])
            self._compiled.add(label(solver))
        data = self._data() if solver.uses_data else None
        solutions = solve(solver, self._qubos, seed, budget, data)
        states, record = judge(solver, self.problem, self._qubos, seed, solutions)
        nearest = self._nearest
        trial = Trial(
            label=record["label"],
            objective=record["objective"],
            ratio=record["objective"] / nearest if nearest else None,
            seconds=record["seconds"],
            status=record["status"],
            info=record["info"],
            falls=falls(solutions, nearest) if nearest else (),
            scores={} if score is None else score(states),
        )
        return asdict(trial)


def falls(solutions: Sequence[Solution], nearest: float) -> list[tuple[float, float]]:
    """Seconds and ratio, whenever the error summed over all rows was lowest so far.

    The solutions' seconds follow one another; until its turn has come a batch stands
    at its start (at infinity, where the solver keeps none).
    """
    sums = np.array([found.trace[1][0].sum() for found in solutions])
    begun, lowest, steps = 0.0, math.inf, []
    for i, found in enumerate(solutions):
        seconds, energies = found.trace
        for at, energy in zip(seconds, energies.sum(axis=1), strict=True):
            sums[i] = energy
            if (total := float(sums.sum())) < lowest:
                lowest = total
                steps.append(
                    (float(begun + found.timing["prepare"] + at), lowest / nearest)
                )
        begun += found.seconds
    return steps
