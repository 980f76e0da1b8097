"""Descents to local optima: a solver, and the polish that every solver offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import POLISHES, Solver, Task
from solvers.kernels import descent as kernels
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows
from solvers.walk import Walk

DESCENTS = {
    "one-flip": kernels.steepest,
    "cyclic": kernels.cyclic,
    "pair-flip": kernels.pairs,
}
assert ("none", *DESCENTS) == POLISHES
# Multiplications between two looks at the clock.
CHUNK = 10**8


def descend(
    qubo: QuboBatch,
    states: States,
    moves: str = "one-flip",
    threads: int = 1,
    passes: int | None = None,
    going: Callable[[Float], bool] | None = None,
) -> States:
    """Descend from states [R, n] to local optima.

    Parameters
    ----------
    moves
        ``"one-flip"``: the best flip, again and again. ``"cyclic"``: every flip that
        gains, variable after variable. ``"pair-flip"``: every variable in order, alone
        or with its best partner; the end is an optimum of flips and pairs of flips.
    passes
        Over the variables of a row, at most; default: until no move gains.
    going
        Called with the energies [R] between chunks of work; the descent ends where it
        says no.
    """
    walk = Walk.at(qubo, states, threads, np.float64)
    done = np.zeros(qubo.rows, bool)
    state = (walk.z, walk.u, walk.q, walk.energy, walk.flips, done)
    # A pass of pairs reads all of H, the others a row of it or a few.
    work = max(qubo.n * (qubo.n if moves == "pair-flip" else 2), 1)
    most = passes or 10**9
    block = max(CHUNK // work, threads) if going else max(qubo.rows, 1)
    for first in range(0, qubo.rows, block):
        rows = slice(first, first + block)
        per_row = tuple(array[rows] for array in state)
        chunk = max(CHUNK // (work * len(done[rows])), 1) if going else most
        for left in range(most, 0, -chunk):
            over_rows(DESCENTS[moves], (walk.H, min(chunk, left)), per_row, threads)
            if going and not going(walk.energy):
                return walk.states()
            if done[rows].all():
                break
    return walk.states()


@dataclass(frozen=True, kw_only=True)
class Descent(Solver):
    """Descent from the start to a local optimum. A sweep of the budget is a pass.

    Parameters
    ----------
    moves
        ``"one-flip"`` (steepest; a pass is one flip), ``"cyclic"`` or ``"pair-flip"``;
        see `descend`.
    """

    name: ClassVar[str] = "descent"
    references: ClassVar[tuple[str, ...]] = (
        "Merz, Freisleben, Greedy and Local Search Heuristics for Unconstrained Binary "
        "Quadratic Programming, 2002",
    )

    moves: str = "one-flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            self.moves in DESCENTS, f"moves must be one of {', '.join(DESCENTS)}"
        )

    def search(self, task: Task) -> States:
        """Descend."""
        return descend(
            task.qubo,
            task.start,
            self.moves,
            task.budget.threads,
            task.budget.sweeps,
            task.monitor.report,
        )
