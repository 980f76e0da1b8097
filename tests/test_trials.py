"""Runs of solvers on one problem, made once and kept."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import trials as module
from benchmarks.harness.failures import FAULTS
from benchmarks.harness.race import run_solver
from benchmarks.harness.runs import Run, Spec
from benchmarks.harness.store import Store
from benchmarks.harness.trials import Score, Trial, Trials
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import Budget, InputError, QuboBatch, parse_solver
from solvers.sampling.cem import CrossEntropy
from solvers.sampling.nearest import Floor
from solvers.testing import brute_force
from tests.clocks import Clock
from tests.test_store import same

CEM = CrossEntropy(samples=20, iterations=3)


def pose(rows: int = 3) -> RoundingProblem:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 40)) + 1
    return RoundingProblem.on_grid(rng.normal(size=(rows, 12)), Grid(bits=3), x @ x.T)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


ABOUT = {"layer": "conv1"}


def never() -> RoundingProblem:
    raise AssertionError("a problem that nobody asked for")


def test_a_trial_is_judged_by_the_weights(path):
    problem = pose()
    trial = Trials(lambda: problem, Store(path), threads=2).run(CEM, seed=4)
    states = CEM.solve(problem.to_qubos()[0], seed=4).states
    error = problem.local_mse(states).sum()
    assert trial.run.objective == pytest.approx(error)
    np.testing.assert_array_equal(trial.run.states, states)
    np.testing.assert_allclose(trial.run.energies, problem.local_mse(states))
    np.testing.assert_allclose(trial.run.claimed, trial.run.energies)
    nearest = problem.local_mse(problem.nearest()).sum()
    assert trial.ratio == pytest.approx(error / nearest)
    assert trial.falls[-1][1] == pytest.approx(trial.ratio)
    assert trial.run.seconds > 0
    assert trial.run.timing["compile"] >= 0
    assert (trial.run.status, trial.status) == ("ok", "done")
    spec = trial.run.spec
    assert (spec.solver, spec.threads) == ("cem[samples=20,iterations=3]", 2)
    assert spec.problem == problem.digest
    assert {"python", "packages", "commit"} <= trial.run.environment.keys()


def test_runs_are_taken_from_the_store(path):
    first = Trials(pose, Store(path), about=ABOUT).run(CEM)
    again = Trials(never, Store(path), about=ABOUT).run(CEM)
    assert (again.ratio, again.falls.tolist()) == (first.ratio, first.falls.tolist())
    assert same(again.run, first.run)
    # What a problem comes from need not be said: then it is posed.
    assert same(Trials(pose, Store(path)).run(CEM).run, first.run)
    other = Trials(lambda: pose(rows=2), Store(path), about={"layer": "conv2"})
    assert other.run(CEM).ratio != first.ratio
    assert len(list(Store(path).runs())) == 2


def test_what_tells_runs_apart(path):
    store = Store(path)
    trials = Trials(pose, store, name="conv1")
    sa = parse_solver("sa")
    for how in ({}, {"seed": 1}, {"seconds": 0.5}, {"seconds": 0.25}, {"sweeps": 3}):
        trials.run(sa, **how)
    trials.run(sa, sweeps=3)
    trials.run(parse_solver("sa[num_sweeps=3]"))
    trials.run(sa, target=-1.0)
    Trials(pose, store, threads=2).run(sa)
    Trials(pose, Store(None)).run(sa)
    specs = [run.spec for run in store.runs()]
    assert len({spec.run_id for spec in specs}) == len(specs) == 8
    assert [spec.seconds for spec in specs[:4]] == [None, None, 0.5, 0.25]
    assert specs[5].solver == "sa[num_sweeps=3]"
    assert specs[6].settings == {"target": -1.0}
    (problem,) = store.problems().values()
    assert (problem.name, problem.kind, problem.rows, problem.n) == (
        *("conv1", "rounding", 3, 12),
    )
    assert problem.meta["bits"] == 3


def test_batches_from_elsewhere(path):
    qubo = QuboBatch.from_matrix(np.random.default_rng(0).normal(size=(9, 9)))
    trials = Trials(lambda: qubo, Store(path), name="mine")
    trial = trials.run(parse_solver("tabu"), seconds=5)
    assert trial.run.objective == pytest.approx(float(brute_force(qubo)[1][0]))
    assert (trial.ratio, trial.run.status, trials.known.kind) == (None, "ok", "qubo")
    assert trial.run.falls[-1, 1] == pytest.approx(trial.run.objective)


def test_claims_about_batches_are_not_believed():
    class Boaster(Floor):
        name = "boaster"

        def solve(self, qubo, **options):
            found = super().solve(qubo, **options)
            return replace(found, energies=found.energies - 1000)

    qubo = QuboBatch.from_matrix(np.eye(3))
    trial = Trials(lambda: qubo, Store(None)).run(Boaster())
    assert (trial.run.status, trial.run.objective) == ("invalid", 0.0)


def test_failed_runs_are_kept_and_told_each_time(path, monkeypatch, capsys):
    def search(self, task):
        raise ValueError("not today")

    with monkeypatch.context() as patched:
        patched.setattr(CrossEntropy, "search", search)
        trials = Trials(pose, Store(path))
        assert math.isnan(trials.run(CEM).run.objective)
        assert trials.exit_code == 1
    trials = Trials(pose, Store(path))
    trial = trials.run(CEM)
    assert (trial.run.status, trial.ratio, trials.exit_code) == ("error", None, 1)
    assert trial.run.message.endswith("ValueError: not today")
    assert capsys.readouterr().err == f"error: {trial.run.message}\n" * 2
    trials = Trials(pose, Store(path, again=FAULTS))
    assert (trials.run(CEM).run.status, trials.exit_code) == ("ok", 0)
    assert Trials(pose, Store(path)).run(CEM).run.status == "ok"


def test_runs_of_another_processor_are_told(path, monkeypatch):
    first = Trials(pose, Store(path)).run(CEM)
    monkeypatch.setattr("benchmarks.harness.store.processor", lambda: "another")
    with pytest.warns(UserWarning, match="has runs of another processor: their times"):
        assert same(Trials(pose, Store(path)).run(CEM).run, first.run)


def test_the_budget_reaches_the_solver(monkeypatch):
    clock = Clock(tick=1e-3)
    clock.for_all(monkeypatch)
    trials = Trials(pose, Store(None))
    long = parse_solver("sa[num_sweeps=1000000000]")
    assert trials.run(long, sweeps=5).status == "done"
    assert 0.3 < trials.run(long, seconds=0.5).run.seconds < 0.7


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
    trials = Trials(pose, Store(None))
    trials.run(CEM, 0)
    trials.run(CEM, 1)
    assert done == ["compile", "solve", "solve"]
    done.clear()
    run_solver(CEM, pose(), 0, Budget())
    assert done == ["compile", "solve"]


def test_a_solver_in_a_file_is_known_by_what_the_file_says(path, tmp_path):
    file = tmp_path / "mine.py"

    def ratio():
        trials = Trials(pose, Store(path))
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
    """They may come later than the run, whose answer is kept."""
    ones = Score(key="ones", of=lambda states: {"ones": int(states.sum())})
    zeros = Score(key="zeros", of=lambda states: {"zeros": int((states == 0).sum())})
    bare = Trials(pose, Store(path), about=ABOUT).run(CEM)
    assert bare.scores == {}
    first = Trials(never, Store(path), about=ABOUT).run(CEM, score=ones)
    assert first.scores["ones"] == bare.run.states.sum()
    again = Trials(never, Store(path), about=ABOUT).run(
        CEM, score=Score(key="ones", of=lambda states: never())
    )
    assert again.scores == first.scores
    more = Trials(never, Store(path), about=ABOUT).run(CEM, score=zeros)
    assert {**more.run.scores["ones"], **more.scores} == {
        "ones": first.scores["ones"],
        "zeros": 36 - first.scores["ones"],
    }
    assert len(list(Store(path).runs())) == 1


def test_data_are_for_solvers_that_look_at_them():
    asked = []
    store = Store(None)
    trials = Trials(pose, store, about=ABOUT, data=lambda: asked.append(1))
    trials.run(CEM)
    assert asked == []
    trials.run(parse_solver("adaround[steps=2]"))
    assert asked == [1]
    # On other data they are other runs.
    alone, given = Trials(pose, store), store.table("settings")["settings"]
    assert [text == "{}" for text in given] == [True, False]
    alone.run(parse_solver("adaround[steps=2]"))
    assert len(store.table("run_id")["run_id"]) == 3


def test_remarks_are_summed_over_the_batches():
    info = [{"build_seconds": 1.0, "library_seconds": 2.0}, {"build_seconds": 0.5}]
    spec = Spec(problem="", solver="", code="")
    trial = Trial(run=Run(spec=spec, status="ok", info=tuple(info)), nearest=None)
    assert trial.building == 3.5
    assert trial.total("build_seconds") == 1.5
    assert trial.total("moves") == 0


def test_a_problem_without_an_error_has_no_ratio():
    def exact() -> RoundingProblem:
        return RoundingProblem.on_grid(np.eye(3), Grid(bits=3), np.zeros((3, 3)))

    trials = Trials(exact, Store(None))
    assert trials.run(CEM).ratio is None
    with pytest.raises(InputError, match="rounding to nearest has no error"):
        trials.require_ratio()
    Trials(pose, Store(None)).require_ratio()


def test_a_solver_that_cannot_is_refused(monkeypatch):
    monkeypatch.setattr(CrossEntropy, "supports", lambda self, qubo: "not today")
    with pytest.raises(InputError, match="solver cem: not today"):
        Trials(pose, Store(None)).require_support(CEM)


def test_false_claims_are_invalid(monkeypatch):
    kept = module.solve

    def lie(*arguments):
        found = kept(*arguments)
        found[0].energies[:] -= 1
        return found

    monkeypatch.setattr(module, "solve", lie)
    trial = Trials(pose, Store(None)).run(CEM)
    assert (trial.run.status, trial.status) == ("invalid", "invalid")
    assert math.isfinite(trial.run.objective)
    assert trial.run.states is not None
