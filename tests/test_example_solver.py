"""Solvers in files: the one that the documentation shows, and broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from solvers import (
    InputError,
    as_sampler,
    label,
    parse_solver,
    parse_solvers,
    solve,
)
from solvers.testing import brute_force, check_solver, example_batch

PATH = Path(__file__).resolve().parent.parent / "docs" / "example_solver.py"
TEXT = f"{PATH}:MultiStart"

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from solvers import Solver, Task
from solvers.flips.annealing import SimulatedAnnealing
{before}
@dataclass(frozen=True, kw_only=True)
class Mine(Solver):
    name: ClassVar[str] = "mine"
    samples: int = 3
    def search(self, task: Task):
        return task.start
"""


def test_conforms():
    assert check_solver(parse_solver(f"{TEXT}[starts=3]")) == []


def test_finds_optima():
    qubo = example_batch(8, 10, definite=False)
    found = solve(qubo, solver=TEXT)
    _, lowest = brute_force(qubo)
    assert np.isclose(found.energies, lowest).sum() >= 6


def test_improves_with_starts():
    qubo = example_batch(20, 40, definite=False)
    many = solve(qubo, solver=TEXT).energies.sum()
    assert many < solve(qubo, solver=f"{TEXT}[starts=1]").energies.sum()


def test_is_used_like_any_other():
    sampler = as_sampler(f"{TEXT}[starts=2]")
    assert sampler.sample_qubo({("a", "a"): -1.0}).first.energy == -1
    assert label(parse_solver(TEXT)) == TEXT


def test_is_as_short_as_the_page_says():
    assert PATH.read_text("utf-8").count("\n") <= 31


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine.py").write_text(SOURCE.format(before=""))
        return tmp_path

    @pytest.mark.parametrize(
        "path",
        ["mine.py", "./mine.py", "some dir/mine.py", "runs[1]/mine.py", "a.py:b/x.py"],
    )
    def test_label_reads_back(self, folder, path):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(SOURCE.format(before=""))
        for options, samples in (("", 3), ("[samples=5]", 5)):
            solver = parse_solver(f" {path}:Mine{options} ")
            assert solver.samples == samples
            assert label(solver) == f"{path}:Mine{options}"
            assert parse_solver(label(solver)) == solver
        qubo = example_batch(2, 3)
        assert (solver.solve(qubo).states == qubo.nearest()).all()

    def test_absolute_path(self, folder):
        solver = parse_solver(f"{folder}/mine.py:Mine")
        assert label(solver) == f"{folder}/mine.py:Mine"

    def test_among_others(self, folder):
        found = parse_solvers("nearest,mine.py:Mine[samples=5,polish=one-flip], cem")
        assert list(map(label, found)) == [
            "nearest",
            "mine.py:Mine[polish=one-flip,samples=5]",
            "cem",
        ]

    def test_a_changed_file_is_read_again(self, folder):
        first = parse_solver("mine.py:Mine")
        (folder / "mine.py").write_text(SOURCE.format(before="").replace("= 3", "= 4"))
        second = parse_solver("mine.py:Mine")
        assert (first.samples, second.samples) == (3, 4)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("absent.py:Mine", "absent.py:Mine: cannot read absent.py: No such file"),
            ("mine.py:Yours", "solver mine.py:Yours: .*it has no class Yours"),
            ("mine.py:dataclass", "solver mine.py:dataclass is not a Solver class"),
            ("mine.py:Solver", "solver mine.py:Solver has no method search"),
            (
                "mine.py:SimulatedAnnealing",
                "is defined elsewhere: solvers.flips.annealing",
            ),
            (
                "mine.py:Mine[sample=2]",
                "unknown option .* 'sample'; did you .* samples",
            ),
            ("mine.py:", "cannot read solver 'mine.py:'"),
            ("mine.py:3", "cannot read solver"),
        ],
    )
    def test_refused(self, folder, text, message):
        with pytest.raises(InputError, match=message) as caught:
            parse_solver(text)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("before", "message"),
        [
            ("def f(:", r"SyntaxError: .*line 7"),
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("import no_such_package", "ModuleNotFoundError"),
            ("raise SystemExit(3)", "SystemExit: 3"),
        ],
    )
    def test_broken_file(self, folder, before, message):
        (folder / "mine.py").write_text(SOURCE.format(before=before))
        for _ in range(2):
            with pytest.raises(InputError, match=message) as caught:
                parse_solver("mine.py:Mine")
            assert "\n" not in str(caught.value)

    def test_not_text(self, folder):
        (folder / "mine.py").write_bytes(b"\0\xff")
        with pytest.raises(InputError, match=r"solver mine.py:Mine: (Syntax|Value)Err"):
            parse_solver("mine.py:Mine")
