"""`Trials`: runs of solvers on one problem, each kept in a store once it has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.harness.digests import code_digest_of, problem_digest
from benchmarks.harness.environment import environment
from benchmarks.harness.failures import (
    FAULTS,
    SolverFailure,
    contained,
    named,
    plain,
    refusal,
    report,
    require_support,
)
from benchmarks.harness.judged import MAKER, answered, judged
from benchmarks.harness.packing import hash_of
from benchmarks.harness.race import compile_for, solve
from benchmarks.harness.runs import Problem, Run, Spec, States
from benchmarks.harness.store import Store
from benchmarks.harness.worker import Workers
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, QuboBatch, Solver, label
from solvers.errors import printable
from solvers.layer_data import LayerData
from solvers.qubo import Float


@dataclass(frozen=True, kw_only=True)
class Score:
    """Figures that are computed from the states of an answer, and kept with its run.

    Attributes
    ----------
    key
        What the figures depend on beside the run; they are kept under it.
    of
        Computes them from states [R, n].
    """

    key: str
    of: Callable[[States], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A run beside rounding to nearest, and the figures of a `Score`.

    Attributes
    ----------
    run
        The run.
    nearest
        Energy of rounding to nearest, summed over the rows; None where there is none.
    scores
        The figures; empty without an answer, and without a score.
    """

    run: Run
    nearest: float | None
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The error's ratio to that of nearest; None if either is missing, or 0."""
        if not self.nearest or math.isnan(self.run.objective):
            return None
        return self.run.objective / self.nearest

    @property
    def falls(self) -> Float:
        """Seconds and ratio [T, 2], each time the error is lower than ever before."""
        if not self.nearest or self.run.falls is None:
            return np.empty((0, 2))
        return self.run.falls / (1.0, self.nearest)

    @property
    def status(self) -> str:
        """The run's status; of a run that is well, the solver's word for its end."""
        if self.run.status != "ok":
            return self.run.status
        return str(self.run.info[0]["ended"])

    def total(self, remark: str) -> float:
        """A number of the solver's remarks, summed over the batches."""
        values = (note.get(remark) for note in self.run.info)
        # Another solver may mean something else by this remark.
        return float(sum(v for v in values if isinstance(v, int | float)))

    @property
    def building(self) -> float:
        """Seconds that went into other packages' models or libraries of moves."""
        return self.total("build_seconds") + self.total("library_seconds")


class Trials:
    """Runs on one problem by solver, seed and budget: from a store, or made now.

    Parameters
    ----------
    pose
        Gives the problem; called once, and not at all if the store has every run and
        `about` says which problem it is.
    store
        Where runs are kept.
    name
        The problem's name in tables.
    about
        All that the problem comes from, such as a network, images and a grid, so that
        the store knows it the next time before it is posed.
    threads
        Number of threads of every run.
    data
        Gives the layer's data, for solvers that look at more than the quadratic form;
        called for every such run.
    workers
        Make each run in a process of its own. None: runs are made in this process,
        with the same answers and under the same ids.

    Attributes
    ----------
    exit_code
        The command's: 1 once a run has one of `FAULTS`, else 0.
    """

    def __init__(
        self,
        pose: Callable[[], RoundingProblem | QuboBatch],
        store: Store,
        *,
        name: str = "",
        about: dict[str, Any] | None = None,
        threads: int = 1,
        data: Callable[[], Sequence[LayerData] | None] | None = None,
        workers: Workers | None = None,
    ) -> None:
        self._pose, self._store, self._threads = pose, store, threads
        self._name, self._about, self._data = name, about, data
        self._workers = workers
        self._compiled: dict[str, float] = {}
        self.exit_code = 0

    def run(
        self,
        solver: Solver,
        seed: int = 0,
        *,
        seconds: float | None = None,
        sweeps: int | None = None,
        target: float | None = None,
        score: Score | None = None,
    ) -> Trial:
        """The run of a solver with a seed and a budget; a failure is said in one line.

        Parameters
        ----------
        target
            The energy at which the solver may stop.
        score
            Computes figures from the answer, if the run does not have them yet.
        """
        settings: dict[str, Any] = {} if target is None else {"target": target}
        if self._data is not None and solver.uses_data:
            settings["data"] = hash_of(self._about)
        spec = Spec(
            problem=self.known.digest,
            solver=label(solver),
            code=code_digest_of(solver, MAKER),
            seed=seed,
            seconds=seconds,
            sweeps=sweeps,
            threads=self._threads,
            settings=settings,
        )
        run = self._store.kept(spec, lambda: self._make(spec, solver, target))
        if run.status in FAULTS and run.message:
            # Of a run from a process of its own, it does not say which solver.
            report(named(run.spec.solver, run.message))
        if score is not None and run.states is not None and score.key not in run.scores:
            scores = {**run.scores, score.key: plain(score.of(run.states))}
            run = replace(run, scores=scores)
            self._store.add(run)
        self.exit_code |= run.status in FAULTS
        scores = {} if score is None else run.scores.get(score.key, {})
        return Trial(run=run, nearest=self.known.nearest, scores=scores)

    def require_ratio(self) -> None:
        """Refuse a problem that rounding to nearest solves without an error."""
        if not self.known.nearest:
            raise InputError(
                "there is no ratio to nearest: rounding to nearest has no error"
            )

    def require_support(self, solver: Solver) -> None:
        """Refuse a solver that cannot take the problem, before any work is done."""
        require_support(solver, self.qubos[0])

    def refusal(self, solver: Solver) -> str | None:
        """Why a solver says that it cannot take the problem; None if it can."""
        return refusal(solver, self.qubos[0])

    @cached_property
    def problem(self) -> RoundingProblem | QuboBatch:
        """The problem, posed when it is first needed."""
        return self._pose()

    @cached_property
    def known(self) -> Problem:
        """The problem as results name it."""
        known = None
        if self._about is not None:
            digest = self._store.fact({"posed": self._about}, self._digest)["problem"]
            known = self._store.problem(digest)
        if known is None:
            known = described(self.problem, self._name)
            self._store.add_problem(known)
        return known

    def _digest(self) -> dict[str, Any]:
        return {"problem": problem_digest(self.problem)}

    @cached_property
    def qubos(self) -> list[QuboBatch]:
        """The problem's batches."""
        problem = self.problem
        return [problem] if isinstance(problem, QuboBatch) else problem.to_qubos()

    def _make(self, spec: Spec, solver: Solver, target: float | None) -> Run:
        """Make a run."""
        self.require_support(solver)
        data = None
        if self._data is not None and solver.uses_data:
            data = self._data()
        if self._workers is not None:
            return isolated(
                self._workers, spec, solver, self.problem, self.qubos, target, data
            )
        begun = started(spec.threads)
        budget = Budget(spec.seconds, spec.sweeps, target, spec.threads)
        try:
            with contained(solver):
                if spec.solver not in self._compiled:
                    at = time.perf_counter()
                    compile_for(solver, self.qubos[0])
                    self._compiled[spec.solver] = time.perf_counter() - at
                solutions = solve(solver, self.qubos, spec.seed, budget, data)
                answer = answered(solver, self.problem, self.qubos, solutions)
        except SolverFailure as failure:
            return Run(spec=spec, status="error", message=str(failure), **begun)
        answer["timing"]["compile"] = self._compiled[spec.solver]
        return Run(spec=spec, **answer, **begun)


def isolated(
    workers: Workers,
    spec: Spec,
    solver: Solver,
    problem: RoundingProblem | QuboBatch,
    qubos: Sequence[QuboBatch],
    target: float | None = None,
    data: Sequence[LayerData] | None = None,
) -> Run:
    """The run that a spec asks for, made in a process of its own, and judged.

    Parameters
    ----------
    workers
        Make it, and hold it to their limits.
    spec, solver, target
        What is asked for; `target` is the energy at which the solver may stop.
    problem, qubos, data
        The problem, its batches and the layer's data for each of them.
    """
    begun = started(spec.threads)
    budget = Budget(spec.seconds, spec.sweeps, target, spec.threads)
    outcome = workers.run(qubos, solver, seed=spec.seed, budget=budget, data=data)
    return judged(outcome, spec, solver, problem, qubos, **begun)


def started(threads: int) -> dict[str, Any]:
    """The fields of a `Run` that are known when it begins, which is now."""
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(threads),
    }


def described(problem: RoundingProblem | QuboBatch, name: str) -> Problem:
    """A problem as results name it."""
    size: dict[str, Any] = {"rows": problem.rows, "n": problem.n}
    # Names of files may hold bytes that are no text.
    size["name"] = printable(name)
    digest = problem_digest(problem)
    if isinstance(problem, QuboBatch):
        return Problem(digest=digest, kind="qubo", **size)
    nearest = float(problem.local_mse(problem.nearest()).sum())
    return Problem(digest=digest, nearest=nearest, meta=dict(problem.meta), **size)


def fault_of(trials: Sequence[Trial]) -> str | None:
    """The worst of `FAULTS` among the trials; None if there is none."""
    statuses = {trial.run.status for trial in trials}
    return next((fault for fault in FAULTS if fault in statuses), None)
