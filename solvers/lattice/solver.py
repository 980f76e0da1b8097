"""Annealing along short vectors of the lattice that all rows share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from solvers.base import Solver, Task
from solvers.lattice.lanes import WHOLE
from solvers.lattice.moves import KINDS
from solvers.lattice.search import Search
from solvers.qubo import QuboBatch, States
from solvers.warming import freest_row

MOVES = ("auto", *KINDS)
STARTS = ("nearest", "babai", "kbest")


@dataclass(frozen=True, kw_only=True)
class Lattice(Solver):
    """Anneal all rows over one library of short vectors; recombine the best states.

    Metropolis proposals are moves of up to four (or eight) variables along vectors v
    with small ``v^T H v``, found once for all rows (`solvers.lattice.moves`). The start
    is a K-best decoding. A pool of states per row, each decoded in another order and
    annealed, is then improved by children: what two states of the pool agree about
    stays, the rest is decoded anew, and the result is annealed.

    Under a limit of seconds that is too short for that, the decoding has fewer paths,
    the library no more than pairs, and one long anneal takes the place of the pool.

    Parameters
    ----------
    num_sweeps
        Sweeps over the library of one anneal. A budget's ``sweeps`` caps those of all
        anneals together, descents included.
    moves
        The library: ``"singles"``, ``"pairs"`` too, moves of up to four (``"quads"``)
        or of up to eight variables (``"longer"``); ``"auto"``: quads, but pairs where
        the spectrum of H is flat.
    max_moves
        Beside the singles; 0: 60 per variable, 150 000 at most.
    start
        ``"nearest"``, ``"babai"`` or ``"kbest"``; states that are given come first.
    paths
        Of K-best searches.
    elites
        States of a row's pool; 1: one anneal and no more.
    rounds
        Of recombination, at most.
    """

    name: ClassVar[str] = "lattice"
    references: ClassVar[tuple[str, ...]] = (
        "Kirkpatrick, Gelatt, Vecchi, Optimization by Simulated Annealing, 1983",
        "Agrell et al., Closest Point Search in Lattices, 2002",
        "Micciancio, Voulgaris, Faster Exponential Time Algorithms for the Shortest "
        "Vector Problem, 2010 (sums of short vectors)",
        "Danna, Rothberg, Le Pape, Exploring Relaxation Induced Neighborhoods, 2005 "
        "(search where solutions disagree)",
    )

    num_sweeps: int = 30
    moves: str = "auto"
    max_moves: int = 0
    start: str = "kbest"
    paths: int = 128
    elites: int = 8
    rounds: int = 16
    polish: str = "pair-flip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.moves in MOVES, f"moves must be one of {', '.join(MOVES)}")
        self.require(self.start in STARTS, f"start must be one of {', '.join(STARTS)}")
        for name in ("num_sweeps", "paths", "elites"):
            self.require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("max_moves", "rounds"):
            self.require(getattr(self, name) >= 0, f"{name} must be at least 0")

    def compile_for(self, qubo: QuboBatch) -> None:
        """By a pool of two states and a round, for a row.

        A large H may be walked through in blocks or not, as the library has it; how
        large that is may depend on time.
        """
        least = replace(
            self, num_sweeps=1, elites=min(self.elites, 2), rounds=min(self.rounds, 1)
        )
        row = freest_row(qubo)
        least.solve(row)
        if self.moves == "auto" and qubo.n > WHOLE:
            replace(least, moves="pairs", elites=1).solve(row)

    def search(self, task: Task) -> States:
        """Decode, anneal, and improve the pool while time lasts."""
        if not task.qubo.free().any():
            return task.start
        search = Search(self, task)
        if not search.lanes.count:
            return task.start
        search.first()
        if (elites := search.elites()) == 1:
            search.go_on()
        else:
            search.fill(elites - 1)
            search.improve()
        task.info["moves"] = search.lanes.count
        task.info["sweeps"] = search.swept
        task.info["accepted"] = search.accepted
        return search.pool.best()
