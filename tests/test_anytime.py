"""Error against seconds, and seconds to a target: `python -m benchmarks anytime`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.commands import anytime
from benchmarks.harness import judged, traces
from benchmarks.harness.race import falls
from benchmarks.harness.runs import Run, Spec
from benchmarks.harness.store import Store
from benchmarks.harness.trials import Trial, Trials
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import Budget, Solution, parse_solver
from solvers.base import Solver
from solvers.decoders.kbest import KBest
from tests.clocks import Clock

# Annealers by single flips twice, the second time at temperatures for the problem.
PEERS = [
    *("dwave-greedy", "dwave-path-integral", "dwave-rotor", "dwave-sa", "dwave-sa"),
    *("dwave-tabu", "openjij-sa", "openjij-sa", "openjij-sqa", "qubolite-descent"),
    *("qubolite-sa", "simulated-bifurcation"),
]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 60)) + 1
    path = tmp_path_factory.mktemp("anytime") / "small.npz"
    weight = rng.normal(size=(3, 20))
    RoundingProblem.on_grid(weight, Grid(bits=3), x @ x.T / 60).save(path)
    return path


def run(problem: Path, *arguments: str) -> int:
    return benchmarks(["anytime", "--problem", str(problem), *arguments])


def tables(out: str) -> list[dict[str, list[str]]]:
    """The cells of each table by the first cell of the line."""
    parts = [part.splitlines()[1:] for part in out.split("\n\n")]
    parts[0] = parts[0][1:]
    lines = ([line.split("  ") for line in part[1:]] for part in parts)
    return [
        {cells[0]: [c.strip() for c in cells[1:] if c.strip()] for cells in part}
        for part in lines
    ]


def test_tables(problem, capsys, monkeypatch):
    solvers = "nearest,kbest,tabu,dwave-tabu"
    arguments = ["--solver", solvers, "--seconds", "0.1,0.03", "--seeds", "2"]
    Clock(tick=5e-3).for_all(monkeypatch)
    assert run(problem, *arguments, "--target", "kbest@0.1") == 0
    out = capsys.readouterr().out
    assert out.startswith("small: 3 rows, n = 20\n")
    assert "0.03 s" in out.splitlines()[2].split("0.1 s")[0]
    ratios, targets = tables(out)
    assert list(ratios) == list(targets) == solvers.split(",")
    assert ratios["nearest"][:2] == ["1.00000 [1.00000, 1.00000]"] * 2
    assert float(ratios["tabu"][1].split()[0].strip("()")) < 1
    # kbest reaches what kbest does; nearest is cut off, not left out.
    assert targets["kbest"][0] == "2/2"
    assert 0 < float(targets["kbest"][1]) < 0.1
    assert targets["nearest"][:3] == ["0/2", ">0.1", "[>0.1, >0.1]"]
    if targets["dwave-tabu"][0] == "2/2":
        assert targets["nearest"][3].startswith("<")
        assert targets["dwave-tabu"][3] == "1"


def test_one_seed_and_a_ratio_without_the_baseline(problem, capsys, monkeypatch):
    Clock(tick=1e-3).for_all(monkeypatch)
    arguments = ["--solver", "kbest", "--seconds", "0.05", "--seeds", "1"]
    assert run(problem, *arguments, "--target", "0.99", "--baseline", "tabu") == 0
    ratios, targets = tables(capsys.readouterr().out)
    assert ratios["kbest"][0].count(" ") == 0
    assert list(targets) == ["kbest", "tabu"]
    assert float(targets["kbest"][3]) > 0


def test_the_first_rows(problem, capsys):
    arguments = ["--rows", "2", "--solver", "kbest", "--seeds", "1"]
    assert run(problem, *arguments, "--seconds", "0.05") == 0
    assert "2 rows" in capsys.readouterr().out


def test_the_default_list_can_be_read(problem):
    whole = RoundingProblem.load(problem)
    solvers, missing = anytime.chosen(None, whole)
    assert len(solvers) + len(missing) == len(anytime.SOLVERS) + len(PEERS)
    found = anytime.peers(whole)
    assert [text.partition("[")[0] for text in found] == PEERS
    betas = [text for text in found if "[beta_min=" in text]
    assert [text.partition("[")[0] for text in betas] == ["dwave-sa", "openjij-sa"]
    assert len(set(solvers)) == len(solvers)


def test_missing_packages_are_named_and_left_out(problem, monkeypatch, capsys):
    monkeypatch.setattr(anytime, "SOLVERS", ("kbest", "tabu"))
    monkeypatch.setattr(anytime, "peers", lambda problem: [])
    monkeypatch.setattr(KBest, "supports", lambda self, qubo: "no such package")
    assert run(problem, "--seconds", "0.02", "--seeds", "1") == 0
    out = capsys.readouterr().out
    assert "left out: kbest: no such package\n" in out
    assert list(tables(out.replace("left out: kbest: no such package\n", ""))[0]) == [
        "tabu"
    ]
    # Asked for, it is an error instead.
    assert run(problem, "--seconds", "0.02", "--solver", "tabu,kbest") == 2
    assert capsys.readouterr().err == "error: solver kbest: no such package\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "soon"], "cannot read --seconds 'soon'; write 0.05,0.5,5"),
        (["--seconds", "0.1,0"], "seconds must be positive, not 0.0"),
        (["--seconds", "nan"], "seconds must be positive, not nan"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["--target", "0"], "--target must be a positive ratio, not 0"),
        (["--target", "nan"], "--target must be a positive ratio, not nan"),
        (["--target", "tabu"], "--target takes a ratio or SOLVER@SECONDS, not 'tabu'"),
        (["--target", "tabu@-1"], "seconds must be positive, not -1.0"),
        (["--target", "tabuu@1"], "did you mean tabu"),
        (["--solver", "tabu@1"], "--solver takes no @SECONDS here; --seconds gives"),
        (["--solver", "tabuu"], "did you mean tabu"),
        (["--baseline", "tabu"], "--baseline goes with --target, whose speed-ups"),
        (["--baseline", "tabuu", "--target", "0.5"], "did you mean tabu"),
        (["--rows", "4"], "--rows must be 1 to 3, not 4"),
        (["--threads", "0"], "threads must be at least 1, not 0"),
    ],
)
def test_bad_input(problem, capsys, arguments, message):
    arguments = ["--solver", "tabu", *arguments]
    assert run(problem, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_error_to_nearest(tmp_path, capsys):
    path = tmp_path / "exact.npz"
    RoundingProblem.on_grid(np.eye(3), Grid(bits=3), np.zeros((3, 3))).save(path)
    assert run(path, "--solver", "tabu") == 2
    assert "rounding to nearest has no error" in capsys.readouterr().err


def test_runs_are_taken_up_again(problem, tmp_path, capsys):
    path = tmp_path / "runs.db"
    arguments = ["--seconds", "0.03", "--seeds", "2", "--store", str(path)]
    assert run(problem, *arguments, "--solver", "kbest") == 0
    first, before = capsys.readouterr().out, path.read_bytes()
    assert run(problem, *arguments, "--solver", "kbest") == 0
    assert capsys.readouterr().out == first
    assert path.read_bytes() == before
    # Another seed, and a target: only what is new is run.
    arguments[3] = "3"
    more = ["--solver", "kbest", "--baseline", "kbest", "--target", "kbest@0.03"]
    assert run(problem, *arguments, *more) == 0
    assert Store(path).table("seed")["seed"].tolist() == [0, 1, 2]
    # Other rows are another problem.
    assert run(problem, *arguments, "--solver", "kbest", "--rows", "1") == 0
    assert Store(path).table("seed")["seed"].tolist() == [0, 1, 2, 0, 1, 2]
    assert [p.rows for p in Store(path).problems().values()] == [3, 1]


def solution(steps: list[tuple[float, list[float]]], prepare: float) -> Solution:
    seconds, energies = zip(*steps, strict=True)
    return Solution(
        states=np.zeros((len(energies[0]), 1), np.uint8),
        energies=np.array(energies[-1]),
        status="done",
        timing={"prepare": prepare, "solve": 2.0, "finish": 0.5},
        trace=(np.array(seconds), np.array(energies)),
    )


def test_falls_of_one_batch():
    found = solution([(0, [5, 5]), (1, [4, 5]), (1.5, [4, 5]), (2, [4, 2])], 0.25)
    assert falls([found]).tolist() == [[0.25, 10], [1.25, 9], [2.25, 6]]


def test_falls_of_batches_one_after_the_other():
    first = solution([(0, [5.0]), (1, [3.0])], 0.25)
    second = solution([(0, [5.0]), (2, [1.0])], 0.5)
    assert falls([first, second]).tolist() == [
        [0.25, 10],
        [1.25, 8],
        [2.75 + 0.5 + 2, 4],
    ]


def test_rules_are_nowhere_before_they_are_through():
    found = solution([(0, [math.inf]), (1, [2.0])], 0)
    assert falls([found]).tolist() == [[1.0, 2.0]]
    assert falls([found, found]).tolist() == [[3.5, 4.0]]


def test_budgets():
    found = list(traces.budgets([0.05, 0.1, 10]))
    assert [found[0], found[2], found[-1]] == [0.05, 0.1, 10]
    ratios = np.array(found[1:]) / found[:-1]
    assert (ratios > 1).all()
    assert (ratios <= traces.STEP * (1 + 1e-9)).all()
    assert list(traces.budgets([2.0])) == [2.0]


class Known:
    """Trials with the given runs, by seconds."""

    def __init__(self, runs) -> None:
        self.given, self.asked = runs, []

    def run(self, seconds):
        self.asked.append(seconds)
        ratio, steps = self.given[seconds]
        run = Run(
            spec=Spec(problem="", solver="known", code=""),
            objective=abs(ratio),
            seconds=seconds,
            status="invalid" if ratio < 0 else "ok",
            info=({"build_seconds": 0.06}, {"library_seconds": 0.04}),
            falls=np.array(steps),
        )
        return Trial(run=run, nearest=1.0)


def time_to(runs, ratio):
    known = Known(runs)
    return traces.time_to(known.run, ratio, sorted(runs)), known.asked


def test_the_time_is_that_of_the_shortest_run_which_arrives():
    runs = {
        1.0: (0.9, [(0.2, 1.0), (0.5, 0.9)]),
        2.0: (0.5, [(0.2, 1.0), (1.5, 0.6), (1.9, 0.5)]),
        4.0: (0.3, [(0.2, 1.0), (3.0, 0.5), (3.9, 0.3)]),
    }
    assert time_to(runs, 0.55) == ((1.9, pytest.approx(1.8)), [4.0, 1.0, 2.0])
    assert time_to(runs, 0.6)[0][0] == 1.5
    assert time_to(runs, 1.0)[0][0] == 0.2


def test_missing_the_target_in_the_longest_run_is_missing_it():
    runs = {1.0: (0.9, [(0.5, 0.9)]), 2.0: (0.8, [(0.5, 0.9), (1.5, 0.8)])}
    assert time_to(runs, 0.7) == (traces.MISSED, [2.0])


def test_claims_that_the_answer_does_not_bear_out_do_not_count():
    assert time_to({1.0: (0.9, [(0.1, 0.2)])}, 0.5)[0] == traces.MISSED
    assert time_to({1.0: (-0.2, [(0.1, 0.2)])}, 0.5)[0] == traces.MISSED
    # Nor does what comes long after the limit.
    assert time_to({1.0: (0.2, [(3.0, 0.2)])}, 0.5)[0] == traces.MISSED


@dataclass(frozen=True, kw_only=True)
class Late(Solver):
    """A solver that takes ten times its limit, and builds for a hundredth of that."""

    name: ClassVar[str] = "late"

    def search(self, task):
        while task.monitor.elapsed() < 10 * task.budget.seconds:
            pass
        task.info["build_seconds"] = task.info["library_seconds"] = 0.005
        return task.start


def unkept(problem: Path) -> Trials:
    return Trials(lambda: RoundingProblem.load(problem), Store(None))


def test_late_runs_are_marked_and_building_is_apart(problem, monkeypatch):
    Clock(tick=1e-4).for_all(monkeypatch)

    class Timed(Late):
        def solve(self, qubo, **how):
            how["budget"] = Budget(seconds=how["budget"].seconds or 0.001)
            return super().solve(qubo, **how)

    _, ratio, building = anytime.row(unkept(problem), 2, Timed(), [0.005])
    assert ratio.startswith("(0.05")
    assert building == "0.010"


def test_invalid_claims_are_shown(problem, monkeypatch):
    kept = judged.check

    def check(*arguments):
        return replace(kept(*arguments), honest=False)

    monkeypatch.setattr(judged, "check", check)
    cells = anytime.row(unkept(problem), 2, parse_solver("kbest"), [0.05])
    assert cells == ["kbest", "invalid", "0.000"]


@pytest.mark.parametrize(
    ("baseline", "own", "text"),
    [
        (8.0, 2.0, "4"),
        (math.inf, 2.0, ">5"),
        (2.0, math.inf, "<0.2"),
        (math.inf, math.inf, "-"),
    ],
)
def test_speed_ups_of_censored_times_are_bounds(baseline, own, text):
    assert anytime._quotient(baseline, own, 10.0) == text
