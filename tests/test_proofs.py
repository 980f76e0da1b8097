"""Bounds and proofs of a problem's rows, through `python -m benchmarks proofs`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from benchmarks.studies import proofs
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid


def command(*arguments: object) -> int:
    return benchmarks(["proofs", *map(str, arguments)])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 60)) + 1
    problem = RoundingProblem.on_grid(
        rng.normal(size=(3, 12)), Grid(bits=3), x @ x.T / 60
    )
    file = tmp_path_factory.mktemp("proofs") / "small.npz"
    problem.save(file)
    return file


def test_table(path, tmp_path, capsys):
    kept = tmp_path / "runs.db"
    arguments = ["--problem", str(path), "--sizes", "5,12", "--store", str(kept)]
    arguments += ["--reference", "tabu,kbest[paths=8]", "--seconds", "120"]
    assert command(*arguments) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert out.startswith("small: 3 rows, n = 12\n")
    gaps = {line[0]: list(map(float, line[-4:-1])) for line in lines[2:5]}
    for median, least, largest in gaps.values():
        assert 0 <= least <= median <= largest <= 1
    assert [line[:2] for line in lines[-2:]] == [["5", "3/3"], ["12", "3/3"]]
    before = kept.read_bytes()
    assert command(*arguments) == 0
    assert capsys.readouterr().out == out
    assert kept.read_bytes() == before


def test_rows_without_error(path, tmp_path, capsys):
    """Weights on the grid: nothing to bound, and no division by nothing."""
    problem = RoundingProblem.load(path)
    exact = replace(problem, weight=problem.decode(problem.nearest()))
    exact.save(tmp_path / "exact.npz")
    arguments = ["--problem", str(tmp_path / "exact.npz"), "--sizes", "all"]
    assert command(*arguments) == 0
    out = capsys.readouterr().out
    assert "3 rows with no error but rounding have no gap" in out
    assert out.splitlines()[-1].split()[:2] == ["12", "3/3"]


def test_first_inputs(path):
    """The error of the first inputs, the others being 0."""
    problem = RoundingProblem.load(path)
    part = proofs.first_inputs(problem, 5)
    states = problem.nearest()
    error = (problem.decode(states) - problem.weight)[:, :5]
    expected = ((error @ problem.moment[:5, :5]) * error).sum(axis=1)
    np.testing.assert_allclose(part.local_mse(states[:, :5]), expected)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("0", "--sizes must lie in 1 to 12, not 0"),
        ("5,13", "--sizes must lie in 1 to 12, not 5,13"),
        ("many", "--sizes takes numbers or all, not 'many'"),
    ],
)
def test_bad_sizes(path, capsys, sizes, message):
    assert command("--problem", str(path), "--sizes", sizes) == 2
    assert message in capsys.readouterr().err
    assert proofs.input_counts(None, 12) == [12]
