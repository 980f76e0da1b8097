"""A small store to report on: two layers, four solvers, and failures of all kinds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harness.runs import STATUSES, Problem, Run, Spec
from benchmarks.harness.store import Store
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid

SOLVERS = ("first", "second", "third[option=1]", "third[option=2]")
BUDGETS = (0.1, 1.0)
SEEDS = range(4)
HOSTILE = "<script>alert('&amp;')</script>\u2028"
FAULTS = [status for status in STATUSES if status != "ok"]


def rounding(seed: int, bits: int) -> RoundingProblem:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(9, 30)) + 1
    return RoundingProblem.on_grid(
        rng.normal(size=(3, 9)), Grid(bits=bits), x @ x.T / 30
    )


def problem_of(problem: RoundingProblem, name: str) -> Problem:
    return Problem(
        digest=problem.digest,
        name=name,
        rows=problem.rows,
        n=problem.n,
        nearest=float(problem.local_mse(problem.nearest()).sum()),
        meta=dict(problem.meta),
    )


def answer(
    problem: RoundingProblem, solver: int, seed: int, seconds: float
) -> tuple[Run, np.ndarray]:
    """A run that comes to an answer better with rank and budget, by way of nearest."""
    rng = np.random.default_rng([solver, seed])
    tried = rng.integers(0, 2, (2000 >> 2 * solver, *problem.weight.shape), np.uint8)
    energies = np.array([problem.local_mse(states) for states in tried])
    states = problem.nearest()
    best = problem.local_mse(states)
    for found, each in zip(energies, tried, strict=True):
        states = np.where((found < best)[:, None], each, states)
        best = np.minimum(best, found)
    start = float(problem.local_mse(problem.nearest()).sum())
    late = seconds * (0.4 + 0.1 * rng.random())
    falls = np.array([[0.001 * seconds, start], [late, best.sum()]])
    spec = Spec(
        problem=problem.digest,
        solver=SOLVERS[solver],
        code="c0de",
        seed=seed,
        seconds=seconds,
    )
    run = Run(
        spec=spec,
        status="ok",
        objective=float(best.sum()),
        energies=best,
        claimed=best,
        states=states,
        falls=falls,
        seconds=seconds,
        scores={"top1": 90 - 10 * float(best.sum()) / start, "remark": "none"},
        info=({"lower_bound": (0.5 * best).tolist()},) if solver == 0 else (),
        began=f"2026-01-0{1 + seed}T00:00:00+00:00",
        environment={"machine": "m", "packages": {"numpy": "2", "absent": None}},
    )
    return run, states


def fill(store: Store) -> dict[str, RoundingProblem]:
    """Add problems and runs; return the problems by name."""
    problems = {"net.one": rounding(1, 3), "net.two": rounding(2, 2)}
    for name, problem in problems.items():
        store.add_problem(problem_of(problem, name))
        for solver in range(len(SOLVERS)):
            for seed in SEEDS:
                for seconds in BUDGETS:
                    store.add(answer(problem, solver, seed, seconds)[0])
    # Runs on a whole network have scores, and neither states nor an objective.
    store.add_problem(Problem(digest="network", name="net", kind="network"))
    for seed in SEEDS:
        spec = Spec(problem="network", solver=SOLVERS[0], code="c0de", seed=seed)
        store.add(
            Run(spec=spec, status="ok", seconds=2.0, scores={"top1": 80.0 + seed})
        )
    done, _ = answer(problems["net.one"], 3, 0, 0.1)
    for status in FAULTS:
        spec = replace(done.spec, solver=f"bad[{HOSTILE}]", settings={"as": status})
        store.add(Run(spec=spec, status=status, message=f"{HOSTILE} {status}"))
    return problems


def stored(folder: Path) -> Path:
    """A store in a file, beside the problems in a folder."""
    path = folder / "small.store"
    with Store(path) as store:
        problems = fill(store)
    (folder / "problems").mkdir()
    for name, problem in problems.items():
        problem.save(folder / "problems" / f"{name}.npz")
    return path
