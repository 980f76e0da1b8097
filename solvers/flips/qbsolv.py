"""`qbsolv`: tabu search on the whole row and on parts of it, in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.flips.tabu_walk import CHUNK, SPREAD, TabuWalk, run_length, tenures
from solvers.kernels import tabu_rounds as kernels
from solvers.kernels.tabu_state import Champion, PassRules
from solvers.pace import Pace
from solvers.polish import descend
from solvers.qubo import States
from solvers.threads import over_rows

INITIALS = ("start", "random")


@dataclass(frozen=True, kw_only=True)
class Qbsolv(Solver):
    """Decomposition: parts of a row are solved with all other variables clamped.

    A pass is a tabu run on the whole row, then one on each part: the free variables in
    the order of their flips' costs, cheapest first, `subsize` at a time. A pass that
    does not improve on the best state is followed by one from that state with `subsize`
    variables redrawn at random. Written from the published description; its details
    (the perturbation, the length of tabu runs) are this project's. A sweep of the
    budget is a pass in every row.

    Parameters
    ----------
    subsize
        Number of variables of a part.
    repeats
        Number of consecutive passes without improvement that ends a row's search.
    patience
        Iterations without improvement that end a tabu run, as a multiple of the
        variables it may flip.
    initial
        Where the search begins: at the ``"start"``, or at ``"random"`` states, as in
        the original. From random states the start is ignored, and the answer may be
        worse than the start.
    """

    name: ClassVar[str] = "qbsolv"
    references: ClassVar[tuple[str, ...]] = (
        "Booth, Reinhardt, Roy, Partitioning Optimization Problems for Hybrid "
        "Classical/Quantum Execution, 2017",
    )

    subsize: int = 47
    repeats: int = 50
    patience: float = 1.0
    initial: str = "start"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.subsize >= 1, "subsize must be at least 1")
        self.require(self.repeats >= 1, "repeats must be at least 1")
        self.require(
            0 < self.patience < math.inf, "patience must be positive and finite"
        )
        self.require(
            self.initial in INITIALS, f"initial must be one of {', '.join(INITIALS)}"
        )

    @property
    def keeps_start(self) -> bool:
        """Whether rows for which nothing better is found keep their start as answer."""
        return self.initial == "start"

    def search(self, task: Task) -> States:
        """Make passes over all rows until no row improves any more."""
        qubo, threads = task.qubo, task.budget.threads
        rows, n = qubo.rows, qubo.n
        start = task.start
        rng = task.streams()
        if self.initial == "random":
            generators = [np.random.default_rng(stream) for stream in rng]
            draws = [g.integers(0, 2, n, np.uint8) for g in generators]
            start = qubo.pin(np.stack(draws))
        walk = TabuWalk.at(qubo, start, threads)
        best, lowest = start.copy(), qubo.energies(start, threads)
        idle, passes_made = np.zeros((2, rows), np.int64)
        size = min(self.subsize, max(n, 1))
        shortest, longest = tenures(0, n)
        rules = PassRules(
            repeats=self.repeats,
            subsize=size,
            patience=run_length(self.patience, n),
            part_patience=run_length(self.patience, size),
            shortest=shortest,
            longest=longest,
            spread=SPREAD,
        )
        champion = Champion(best, lowest, idle, passes_made)
        # A short pass looks at each of the n variables about 3 n times.
        pace = Pace(task.monitor, max(1, CHUNK // max(3 * rows * n * n, 1)))
        while passes := pace.next(task.budget.cap(10**9) - pace.taken):
            over_rows(
                kernels.passes,
                (walk.exact, walk.matrix, rules, passes),
                (walk.model(qubo), *walk.position(), rng, champion),
                threads,
            )
            over = (idle >= self.repeats) | (walk.most < 0)
            if not task.monitor.report(lowest, best) or over.all():
                break
        task.info["passes"] = int(passes_made.sum())
        # Passes ignore gains as small as the rounding of float32; the descent does not.
        return descend(
            qubo,
            best,
            threads=threads,
            going=lambda _: task.monitor.remaining() > 0,
        )
