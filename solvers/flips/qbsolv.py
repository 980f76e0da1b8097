"""qbsolv: tabu on the whole row and on its parts, in turn."""

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
    """Decompose: parts of a row are solved with everything else clamped.

    A pass is a tabu run on the whole row, then one on each part: the free variables in
    the order of their flips' costs, cheapest first, `subsize` at a time. A pass that
    does not improve on the best state is followed by one from that state with `subsize`
    variables redrawn at random. Written from the published description; its details
    (the perturbation, the length of tabu runs) are this project's. A sweep of the
    budget is a pass in every row.

    Parameters
    ----------
    subsize
        Variables of a part.
    repeats
        Passes without improvement, one after the other, that end a row's search.
    patience
        Iterations without improvement that end a tabu run, as a multiple of the
        variables it may flip.
    initial
        ``"start"``, or ``"random"``: the search begins at random states, as the
        original does, and does not know of the start. Its answer then is its own, even
        where the start is better.
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
        """Whether the start is an answer where nothing better is found."""
        return self.initial == "start"

    def search(self, task: Task) -> States:
        """Make passes over all rows until none improves any more."""
        qubo, threads = task.qubo, task.budget.threads
        rows, n = qubo.rows, qubo.n
        begin = task.start
        rng = task.streams()
        if self.initial == "random":
            generators = [np.random.default_rng(stream) for stream in rng]
            draws = [g.integers(0, 2, n, np.uint8) for g in generators]
            begin = qubo.pin(np.stack(draws))
        walk = TabuWalk.at(qubo, begin, threads)
        champion, energy = begin.copy(), qubo.energies(begin, threads)
        idle, made = np.zeros((2, rows), np.int64)
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
        best = Champion(champion, energy, idle, made)
        # A pass looks at every variable about three times n, if it is short.
        pace = Pace(task.monitor, max(1, CHUNK // max(3 * rows * n * n, 1)))
        while passes := pace.next(task.budget.cap(10**9) - pace.taken):
            over_rows(
                kernels.passes,
                (walk.exact, walk.matrix, rules, passes),
                (walk.model(qubo), *walk.position(), rng, best),
                threads,
            )
            over = (idle >= self.repeats) | (walk.most < 0)
            if not task.monitor.report(energy) or over.all():
                break
        task.info["passes"] = int(made.sum())
        # Passes ignore gains as small as the rounding of float32.
        return descend(
            qubo,
            champion,
            threads=threads,
            going=lambda _: task.monitor.remaining() > 0,
        )
