"""All methods on one problem, through `python -m benchmarks compare`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.commands import compare
from benchmarks.harness.problems import first_rows
from benchmarks.harness.readers import read_entry
from benchmarks.harness.store import Store
from benchmarks.harness.trials import Trials
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers.registry import parse_solver, split_solvers


def command(*arguments: object) -> int:
    return benchmarks(["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 40)) + 1
    weight = rng.normal(size=(3, 12))
    path = tmp_path_factory.mktemp("compare") / "small.npz"
    RoundingProblem.on_grid(weight, Grid(bits=3), x @ x.T / 40).save(path)
    return path


def rows(out: str) -> dict[str, list[str]]:
    lines = [line.split() for line in out.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def test_table(problem, capsys):
    arguments = ["--problem", str(problem), "--solver", "nearest,tabu@0.1,sa,gptq"]
    assert command(*arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("small: 3 rows, n = 12\n")
    table = rows(out)
    assert list(table) == ["nearest", "tabu@0.1", "sa[polish=none]", "gptq"]
    assert float(table["nearest"][0]) == 1.0
    assert float(table["nearest"][2]) <= 1.0
    assert float(table["tabu@0.1"][0]) <= float(table["nearest"][2])
    assert table["gptq"][2:6] == ["out", "of", "the", "set"]
    assert {line[-1] for line in table.values()} <= {"done", "time"}


def test_polished_errors_are_those_of_the_descended_states(problem):
    whole = RoundingProblem.load(problem)
    trials = Trials(lambda: whole, Store(None))
    score = compare.one_flip(whole)
    trial = compare.measure(trials, parse_solver("nearest"), 0, None, score)
    (qubo,) = whole.to_qubos()
    states = compare.descend(qubo, qubo.nearest())
    error = whole.local_mse(states).sum() / whole.local_mse(whole.nearest()).sum()
    assert trial.scores["polished_ratio"] == pytest.approx(error)


def test_the_default_list_can_be_read(problem):
    methods = compare.methods(RoundingProblem.load(problem))
    assert len(methods) == len(set(methods)) > 25
    for text in methods:
        read_entry(text)
    assert split_solvers(",".join(methods)) == methods


def test_first_rows(problem, capsys):
    whole = RoundingProblem.load(problem)
    first = first_rows(whole, 2)
    states = whole.nearest()
    np.testing.assert_allclose(first.local_mse(states[:2]), whole.local_mse(states)[:2])
    for rows_, message in ((4, "--rows must be 1 to 3, not 4"), (0, "not 0")):
        assert command("--problem", str(problem), "--rows", str(rows_)) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--solver", "tabu@soon"], "cannot read seconds 'soon' of 'tabu@soon'"),
        (["--solver", "tabu@0"], "seconds must be positive"),
        (["--solver", "tabuu"], "did you mean tabu"),
    ],
)
def test_bad_input(problem, capsys, arguments, message):
    assert command("--problem", str(problem), *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_runs_are_taken_up_again(problem, tmp_path, capsys):
    path = tmp_path / "runs.db"
    arguments = ["--problem", str(problem), "--store", str(path)]
    assert command(*arguments, "--solver", "nearest,sa") == 0
    before = Store(path).table("solver", "seconds")
    first = rows(capsys.readouterr().out)
    assert command(*arguments, "--solver", "sa,nearest,descent") == 0
    after = Store(path).table("solver", "seconds")
    assert after["solver"].tolist() == [*before["solver"], "descent"]
    assert after["seconds"][:2].tolist() == before["seconds"].tolist()
    found = rows(capsys.readouterr().out)
    assert {name: found[name] for name in first} == first
    assert list(found) == ["sa[polish=none]", "nearest", "descent"]
    assert command(*arguments, "--solver", "sa", "--rerun") == 0
    again = Store(path).table("solver", "seconds")
    assert again["solver"].tolist() == after["solver"].tolist()
    assert again["seconds"][1] != after["seconds"][1]


def test_another_problem_has_other_runs(problem, tmp_path, capsys):
    path, store = tmp_path / "copy.npz", tmp_path / "runs.db"
    path.write_bytes(problem.read_bytes())
    arguments = ["--solver", "nearest", "--store", str(store)]
    for _ in range(2):
        assert command("--problem", str(path), *arguments) == 0
        assert command("--problem", str(problem), *arguments) == 0
        assert len(Store(store).problems()) == len(list(Store(store).runs())) == 1
    RoundingProblem.load(problem, "free").save(path)
    assert command("--problem", str(path), *arguments) == 0
    assert len(Store(store).problems()) == len(list(Store(store).runs())) == 2
