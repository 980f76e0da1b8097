"""Fixed rounding rules on the prior: nearest, floor, ceil."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.qubo import States


@dataclass(frozen=True, kw_only=True)
class Nearest(Solver):
    """Every prior rounded to the nearer of 0 and 1 (0.5 goes to 0)."""

    name: ClassVar[str] = "nearest"
    rule: ClassVar[bool] = True

    def search(self, task: Task) -> States:
        """Round the prior."""
        return task.qubo.nearest()


@dataclass(frozen=True, kw_only=True)
class Floor(Solver):
    """Every variable 0: the lower grid point."""

    name: ClassVar[str] = "floor"
    rule: ClassVar[bool] = True

    def search(self, task: Task) -> States:
        """All zeros."""
        return np.zeros((task.qubo.rows, task.qubo.n), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Ceil(Solver):
    """Every variable 1: the upper grid point."""

    name: ClassVar[str] = "ceil"
    rule: ClassVar[bool] = True

    def search(self, task: Task) -> States:
        """All ones."""
        return np.ones((task.qubo.rows, task.qubo.n), np.uint8)
