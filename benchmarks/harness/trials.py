"""`Trials`: runs of solvers on one problem, each kept in the log once it has ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

from benchmarks.harness.failures import (
    FAULTS,
    SolverFailure,
    contained,
    plain,
    report,
    require_support,
)
from benchmarks.harness.log import RunLog, solver_key
from benchmarks.harness.race import States, compile_for, falls, judge, solve
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, QuboBatch, Solver, label
from solvers.layer_data import LayerData

# Computes figures from an answer's states [R, n], to be kept with its run.
Score = Callable[[States], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A finished run of a solver on a problem, with its answer judged.

    Attributes
    ----------
    label
        The solver's label.
    objective
        The error summed over the rows, recomputed from the rounded weights; NaN of a
        solver that has failed, as are its seconds.
    ratio
        The error's ratio to that of rounding to nearest; None if the latter is 0.
    seconds
        Seconds of all that the solver did with the problem.
    status
        As in `Solution`; ``"invalid"`` if the rounded weights do not bear out the
        claimed energies, ``"error"`` if the solver has failed.
    info
        The solver's remarks on each of the problem's batches.
    falls
        Seconds and ratio at each time when the error summed over all rows became lower
        than ever before.
    scores
        Figures that a `Score` has computed from the states.
    """

    label: str
    objective: float
    ratio: float | None
    seconds: float
    status: str
    info: Sequence[dict[str, Any]] = ()
    falls: Sequence[Sequence[float]] = ()
    scores: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def failed(cls, label: str) -> Trial:
        """What is left of a run whose solver has failed."""
        return cls(
            label=label,
            objective=math.nan,
            ratio=None,
            seconds=math.nan,
            status="error",
        )

    def total(self, remark: str) -> float:
        """A number of the solver's remarks, summed over the batches."""
        values = (note.get(remark) for note in self.info)
        # Another solver may mean something else by this remark.
        return float(sum(v for v in values if isinstance(v, int | float)))

    @property
    def building(self) -> float:
        """Seconds that went into other packages' models or libraries of moves."""
        return self.total("build_seconds") + self.total("library_seconds")


class Trials:
    """Runs on one problem by solver, seed and budget: from the log, or made now.

    Parameters
    ----------
    pose
        Gives the problem; called once, and not at all if the log has every run.
    log
        Where runs are kept.
    threads
        Number of threads of every run.
    name
        Beginning of the log's keys, for logs with runs on several problems.
    data
        Gives the layer's data, for solvers that look at more than the quadratic form;
        called for every such run.

    Attributes
    ----------
    exit_code
        The command's: 1 once a run has one of `FAULTS`, else 0.
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
        self.exit_code = 0

    def run(
        self,
        solver: Solver,
        seed: int = 0,
        *,
        seconds: float | None = None,
        sweeps: int | None = None,
        score: Score | None = None,
    ) -> Trial:
        """The run of a solver with a seed and a budget.

        If the solver fails, this is said in one line and not kept in the log.
        """
        key = self._name + solver_key(solver)
        key += "" if seconds is None else f"@{seconds!r}"
        key += "" if sweeps is None else f" sweeps {sweeps}"
        budget = Budget(seconds=seconds, sweeps=sweeps, threads=self._threads)
        make = partial(self._make, solver, seed, budget, score)
        try:
            trial = Trial(**self._log.run(f"{key} seed {seed}", make))
        except SolverFailure as failure:
            report(failure)
            trial = Trial.failed(label(solver))
        self.exit_code |= trial.status in FAULTS
        return trial

    def require_ratio(self) -> None:
        """Refuse a problem that rounding to nearest solves without an error."""
        if not self._nearest:
            raise InputError(
                "there is no ratio to nearest: rounding to nearest has no error"
            )

    def require_support(self, solver: Solver) -> None:
        """Refuse a solver that cannot take the problem, before any work is done."""
        require_support(solver, self._qubos[0])

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
        """Make a run; return the fields of its `Trial`."""
        qubos, nearest = self._qubos, self._nearest
        data = self._data() if solver.uses_data else None
        require_support(solver, qubos[0])
        with contained(solver):
            if label(solver) not in self._compiled:
                compile_for(solver, qubos[0])
                self._compiled.add(label(solver))
            solutions = solve(solver, qubos, seed, budget, data)
            states, record = judge(solver, self.problem, qubos, seed, solutions)
            trial = Trial(
                label=record["label"],
                objective=record["objective"],
                ratio=record["objective"] / nearest if nearest else None,
                seconds=record["seconds"],
                status=record["status"],
                info=record["info"],
                falls=falls(solutions, nearest) if nearest else (),
            )
            made = plain(asdict(trial))
        return made | {"scores": {} if score is None else score(states)}


def fault_of(trials: Sequence[Trial]) -> str | None:
    """The worst of `FAULTS` among the trials; None if there is none."""
    statuses = {trial.status for trial in trials}
    return next((fault for fault in FAULTS if fault in statuses), None)
