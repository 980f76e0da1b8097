"""Runs of solvers on one problem, made once and kept."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import trials as module
from benchmarks.harness.log import RunLog
from benchmarks.harness.race import run_solver
from benchmarks.harness.trials import Trial, Trials
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import Budget, InputError, parse_solver
from solvers.sampling.cem import CrossEntropy
from tests.clocks import Clock

CEM = CrossEntropy(samples=20, iterations=3)


def pose(rows: int = 3) -> RoundingProblem:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 40)) + 1
    return RoundingProblem.on_grid(rng.normal(size=(rows, 12)), Grid(bits=3), x @ x.T)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


def keys(path: Path) -> list[str]:
    return [json.loads(line)["key"] for line in path.read_text().splitlines()[1:]]


def never() -> RoundingProblem:
    raise AssertionError("a problem that nobody asked for")


def test_a_trial_is_judged_by_the_weights(path):
    problem = pose()
    trial = Trials(lambda: problem, RunLog(path, {}, {})).run(CEM, seed=4)
    states = CEM.solve(problem.to_qubos()[0], seed=4).states
    error = problem.local_mse(states).sum()
    assert trial.objective == pytest.approx(error)
    nearest = problem.local_mse(problem.nearest()).sum()
    assert trial.ratio == pytest.approx(error / nearest)
    assert trial.falls[-1][1] == pytest.approx(trial.ratio)
    assert trial.seconds > 0
    assert (trial.label, trial.status) == ("cem[samples=20,iterations=3]", "done")


def test_runs_are_taken_from_the_log(path):
    first = Trials(pose, RunLog(path, {}, {})).run(CEM)
    again = Trials(never, RunLog(path, {}, {})).run(CEM)
    assert json.dumps(asdict(again)) == json.dumps(asdict(first))
    assert len(keys(path)) == 1


def test_keys_tell_runs_apart(path):
    trials = Trials(pose, RunLog(path, {}, {}), name="conv1 ")
    sa = parse_solver("sa")
    for how in ({}, {"seed": 1}, {"seconds": 0.5}, {"seconds": 0.25}, {"sweeps": 3}):
        trials.run(sa, **how)
    trials.run(sa, sweeps=3)
    trials.run(parse_solver("sa[num_sweeps=3]"))
    assert keys(path) == [
        "conv1 sa seed 0",
        "conv1 sa seed 1",
        "conv1 sa@0.5 seed 0",
        "conv1 sa@0.25 seed 0",
        "conv1 sa sweeps 3 seed 0",
        "conv1 sa[num_sweeps=3] seed 0",
    ]


def test_the_budget_reaches_the_solver(monkeypatch):
    clock = Clock(tick=1e-3)
    clock.for_all(monkeypatch)
    trials = Trials(pose, RunLog(None, {}, {}))
    long = parse_solver("sa[num_sweeps=1000000000]")
    assert trials.run(long, sweeps=5).status == "done"
    assert 0.3 < trials.run(long, seconds=0.5).seconds < 0.7


def test_kernels_are_compiled_once_and_before_the_clock(monkeypatch):
    done = []
    solver = type(CEM)
    solve = solver.solve

    def compiling(self, qubo):
        done.append("compile")

    def solving(self, *given, **named):
        done.append("solve")
        return solve(self, *given, **named)

    monkeypatch.setattr(solver, "compile_for", compiling)
    monkeypatch.setattr(solver, "solve", solving)
    trials = Trials(pose, RunLog(None, {}, {}))
    trials.run(CEM, 0)
    trials.run(CEM, 1)
    assert done == ["compile", "solve", "solve"]
    done.clear()
    run_solver(CEM, pose(), 0, Budget())
    assert done == ["compile", "solve"]


def test_a_solver_in_a_file_is_known_by_what_the_file_says(path, tmp_path):
    file = tmp_path / "mine.py"

    def ratio():
        trials = Trials(pose, RunLog(path, {}, {}))
        return trials.run(parse_solver(f"{file}:Mine")).ratio

    source = """
from solvers.sampling.nearest import Nearest, Floor

class Mine({}):
    name = "mine"
"""
    file.write_text(source.format("Nearest"))
    assert ratio() == 1
    file.write_text(source.format("Floor"))
    assert ratio() > 1


def test_scores_are_kept_with_the_run(path):
    def score(states):
        return {"ones": int(states.sum())}

    first = Trials(pose, RunLog(path, {}, {})).run(CEM, score=score)
    assert first.scores["ones"] > 0
    again = Trials(never, RunLog(path, {}, {})).run(CEM, score=lambda states: never())
    assert again.scores == first.scores


def test_data_are_for_solvers_that_look_at_them():
    asked = []
    trials = Trials(pose, RunLog(None, {}, {}), data=lambda: asked.append(1))
    trials.run(CEM)
    assert asked == []
    trials.run(parse_solver("adaround[steps=2]"))
    assert asked == [1]


def test_remarks_are_summed_over_the_batches():
    info = [{"build_seconds": 1.0, "library_seconds": 2.0}, {"build_seconds": 0.5}]
    trial = Trial(
        label="", objective=1.0, ratio=1.0, seconds=9.0, status="done", info=info
    )
    assert trial.building == 3.5
    assert trial.total("build_seconds") == 1.5
    assert trial.total("moves") == 0


def test_a_problem_without_an_error_has_no_ratio():
    def exact() -> RoundingProblem:
        return RoundingProblem.on_grid(np.eye(3), Grid(bits=3), np.zeros((3, 3)))

    trials = Trials(exact, RunLog(None, {}, {}))
    assert trials.run(CEM).ratio is None
    with pytest.raises(InputError, match="rounding to nearest has no error"):
        trials.require_ratio()
    Trials(pose, RunLog(None, {}, {})).require_ratio()


def test_a_solver_that_cannot_is_refused(monkeypatch):
    monkeypatch.setattr(CrossEntropy, "supports", lambda self, qubo: "not today")
    with pytest.raises(InputError, match="solver cem: not today"):
        Trials(pose, RunLog(None, {}, {})).require_support(CEM)


def test_false_claims_are_invalid(monkeypatch):
    kept = module.solve

    def lie(*arguments):
        found = kept(*arguments)
        found[0].energies[:] -= 1
        return found

    monkeypatch.setattr(module, "solve", lie)
    trial = Trials(pose, RunLog(None, {}, {})).run(CEM)
    assert trial.status == "invalid"
    assert math.isfinite(trial.objective)
