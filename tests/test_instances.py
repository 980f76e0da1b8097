"""QUBO files through `python -m benchmarks instances`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.commands import instances
from benchmarks.harness.store import Store
from solvers import QuboBatch, write_qubo
from solvers.testing import brute_force, example_batch


def command(*arguments: object) -> int:
    return benchmarks(["instances", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small problems to be maximised, and their optima."""
    rng = np.random.default_rng(0)
    lines = ["name,file,best_known_max"]
    for k in range(3):
        Q = np.triu(rng.integers(-50, 51, (10, 10))).astype(float)
        write_qubo(tmp_path / f"p_{k}.qubo", QuboBatch.from_matrix(Q))
        best = -brute_force(QuboBatch.from_matrix(-Q))[1][0]
        lines.append(f"p10-{k},p_{k}.qubo,{best}")
    (tmp_path / "best.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_reaches_known_maxima(folder, capsys):
    path = folder / "runs.db"
    arguments = [str(folder), "--best-known", str(folder / "best.csv")]
    arguments += ["--solver", "tabu,floor", "--store", str(path)]
    assert command(*arguments) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert rows[1][:4] == ["p10-*", "10", "tabu", "3/3"]
    # The empty state has the value 0, which is no maximum here.
    assert rows[2][2:4] == ["floor", "0/3"]
    assert float(rows[2][4]) == 100.0
    assert rows[3][0] == "all"
    kept = path.read_bytes()
    assert len(Store(path).table("seed")["seed"]) == 6
    assert command(*arguments) == 0
    assert capsys.readouterr().out == out
    assert path.read_bytes() == kept


def test_without_known_values_the_best_of_the_run_counts(folder, capsys):
    problem = str(folder / "p_0.qubo")
    assert command(problem, "--solver", "floor,tabu") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    reached = {row[2]: row[3] for row in rows[1:]}
    assert reached == {"floor": "0/1", "tabu": "1/1"}


def test_a_miss_counts_as_the_whole_budget(folder, capsys):
    arguments = [str(folder), "--best-known", str(folder / "best.csv")]
    assert command(*arguments, "--solver", "floor", "--seconds", "7") == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "7.000"


def test_instances_must_be_told_apart(folder, capsys):
    (folder / "more").mkdir()
    write_qubo(folder / "more" / "p_0.qubo", QuboBatch.from_matrix(np.eye(2)))
    assert command(str(folder), str(folder / "more")) == 2
    assert "two instances are called p_0" in capsys.readouterr().err


def test_an_instance_is_one_row(tmp_path, capsys):
    write_qubo(tmp_path / "a.npz", example_batch(2, 3))
    assert command(str(tmp_path)) == 2
    assert "a.npz holds 2 rows; an instance is one" in capsys.readouterr().err


def test_other_best_known_values_are_other_runs(folder):
    """They stop runs: by the values, wherever the table lies."""
    path = folder / "runs.db"
    common = [folder, "--store", path, "--solver", "floor"]

    def runs(*more):
        assert command(*common, *more) == 0
        return len(Store(path).table("seed")["seed"])

    best = folder / "best.csv"
    assert runs() == 3
    assert runs("--best-known", best) == 6
    moved = best.rename(folder / "moved.csv")
    assert runs("--best-known", moved) == 6
    lines = moved.read_text().splitlines()
    lines[1] = lines[1].rpartition(",")[0] + ",1e6"
    moved.write_text("\n".join(lines))
    assert runs("--best-known", moved) == 7


@pytest.mark.parametrize(
    ("name", "group"),
    [("gka12d", "gka*d"), ("bqp50-1", "bqp50-*"), ("p_3", "p_*"), ("mine", "mine")],
)
def test_classes(name, group):
    assert instances._class(name) == group


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("file\nx.qubo\n", r"best.csv:2: needs file and best_known_max or best_known_"),
        ("file,best_known_max\nx.qubo,many\n", r"best.csv:2: needs file and best"),
        (
            "file,best_known_max\nx.qubo,inf\n",
            "best.csv:2: the best known value is inf",
        ),
        ("file,best_known_min\nx,1\ny,-1e999\n", "best.csv:3: the best known value is"),
        (
            "file,best_known_min\nx.qubo,nan\n",
            "best.csv:2: the best known value is nan",
        ),
        ("name,best_known_min\nx.qubo,1\n", "best.csv:2: needs file and best"),
        (f"file,name\nx,{'y' * 200_000}\n", "best.csv is not a table: field larger"),
        ("file\nx\udcff\n", "best.csv is not a table: 'utf-8' codec can't decode"),
    ],
)
def test_bad_tables(folder, capsys, csv, message):
    (folder / "best.csv").write_text(csv, errors="surrogateescape")
    code = benchmarks(
        ["instances", str(folder), "--best-known", str(folder / "best.csv")]
    )
    assert code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message.replace("\\", "") in error


def test_no_instances(tmp_path, capsys):
    assert command(str(tmp_path)) == 2
    assert "no instance in" in capsys.readouterr().err
    assert command(str(tmp_path / "none.qubo")) == 2
    assert "no file" in capsys.readouterr().err


def test_no_instances_so_small(folder, capsys):
    assert command(folder, "--largest", 5) == 2
    said = f"error: no instance of at most 5 variables in {folder}\n"
    assert capsys.readouterr().err == said


@pytest.mark.skipif(
    "QUBO_ROUNDING_REAL_DATA" not in os.environ,
    reason="real data: QUBO_ROUNDING_REAL_DATA is not set",
)
def test_tabu_reaches_the_best_known_values_of_the_literature(capsys):
    """A sample of the classes; all of them are run by the command."""
    folder = Path(os.environ["QUBO_ROUNDING_REAL_DATA"]) / "qubo"
    names = ("bqp50_1", "bqp100_3", "bqp250_1", "bqpqka_10", "bqpqka_24", "bqpqka_34")
    files = [str(folder / f"{name}.qubo") for name in names]
    known = str(folder / "best_known.csv")
    assert command(*files, "--best-known", known, "--solver", "tabu") == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[:4] == ["all", "30-250", "tabu", "6/6"]


def test_a_changed_file_is_run_again(folder, capsys):
    problem, path = folder / "p_0.qubo", folder / "runs.db"
    arguments = [str(problem), "--solver", "floor", "--store", path]
    assert command(*arguments) == 0
    write_qubo(problem, QuboBatch.from_matrix(np.eye(3)))
    assert command(*arguments) == 0
    assert len(Store(path).table("seed")["seed"]) == 2


def test_no_solver_that_can(folder, capsys):
    assert command(str(folder), "--solver", "gptq") == 2
    assert "solver gptq: the batch has no levels" in capsys.readouterr().err


def test_a_kept_run_is_of_the_whole_problem_and_the_value_it_aimed_at(folder, capsys):
    kept = folder / "runs.db"

    def runs():
        assert command(folder / "held.npz", "--store", kept, "--solver", "floor") == 0
        capsys.readouterr()
        return len(Store(kept).table("seed")["seed"])

    qubo = QuboBatch.from_matrix(np.diag([1.0, -2.0, 3.0]))
    write_qubo(folder / "held.npz", qubo)
    assert runs() == runs() == 1
    write_qubo(folder / "held.npz", replace(qubo, offset=qubo.offset + 100))
    assert runs() == 2
    write_qubo(folder / "held.npz", replace(qubo, fixed=np.ones((1, 3), np.int8)))
    assert runs() == 3
