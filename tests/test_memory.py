"""What is said where memory does not suffice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from benchmarks.harness.command import exit_code
from qubo_rounding.problem import Moments, RoundingProblem
from qubo_rounding.problem import fields as problem_fields
from solvers import Budget, QuboBatch, Solver
from solvers import qubo as qubo_module
from solvers.base import Task
from solvers.memory import allocating
from solvers.qubo import States
from solvers.testing import example_batch


def exhausted(*_: object, **__: object) -> None:
    raise MemoryError("Unable to allocate\n9 TiB")


@dataclass(frozen=True, kw_only=True)
class Greedy(Solver):
    name: ClassVar[str] = "greedy"

    def search(self, task: Task) -> States:
        exhausted()
        return task.start


def moments() -> None:
    Moments(2**24)


def batch() -> None:
    QuboBatch.from_matrix(np.eye(2))


def solving() -> None:
    Greedy().solve(example_batch(2, 3), budget=Budget(sweeps=1))


def posing() -> None:
    RoundingProblem(np.ones((2, 3)), 0.5, -4, 3, np.eye(3)).to_qubos()


@pytest.mark.parametrize(
    ("work", "what"),
    [
        (moments, "the second moments of a layer's inputs: Unable to allocate"),
        (batch, "a batch from a dense matrix: a batch of binary problems: Unable to"),
        (solving, "solver greedy on 2 rows of 3 variables: Unable to allocate 9 TiB"),
        (posing, "the binary problems of a rounding problem: a batch of binary prob"),
    ],
)
def test_lack_of_memory_says_what_for(work, what, monkeypatch, capsys):
    if work in (batch, posing):
        monkeypatch.setattr(qubo_module, "require_symmetric", exhausted)
    with pytest.raises(MemoryError, match=f"^{what}") as caught:
        work()
    assert "\n" not in str(caught.value)
    assert exit_code(lambda: work() or 0) == 2
    assert capsys.readouterr().err.startswith(f"error: out of memory: {what}")


def test_a_problem_too_large_to_check(monkeypatch):
    monkeypatch.setattr(problem_fields, "require_semidefinite", exhausted)
    with pytest.raises(MemoryError, match=r"^a rounding problem: Unable to allocate 9"):
        posing()


def test_without_a_reason():
    with pytest.raises(MemoryError, match=r"^the work$"), allocating("the work"):
        raise MemoryError


def test_other_errors_pass():
    qubo = example_batch(2, 3)
    with pytest.raises(ValueError, match="not symmetric"):
        replace(qubo, H=qubo.H + np.triu(np.ones((3, 3))))
