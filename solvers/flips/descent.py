"""`descent`: local search from the start to a local optimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from solvers.base import Solver, Task
from solvers.polish import MOVES, descend
from solvers.qubo import States


@dataclass(frozen=True, kw_only=True)
class Descent(Solver):
    """Descent from the start to a local optimum.

    A sweep of the budget is a pass over the moves.

    Parameters
    ----------
    moves
        ``"one-flip"`` (steepest; a pass is one flip), ``"cyclic"`` or ``"pair-flip"``;
        see `solvers.polish.descend`.
    """

    name: ClassVar[str] = "descent"
    references: ClassVar[tuple[str, ...]] = (
        "Merz, Freisleben, Greedy and Local Search Heuristics for Unconstrained Binary "
        "Quadratic Programming, 2002",
    )

    moves: str = "one-flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.moves in MOVES, f"moves must be one of {', '.join(MOVES)}")

    def search(self, task: Task) -> States:
        """Descend from the start, reporting after every pass."""
        return descend(
            task.qubo,
            task.start,
            self.moves,
            task.budget.threads,
            task.budget.sweeps,
            task.monitor.report,
        )
