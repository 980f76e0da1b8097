"""`lattice`: annealing along short vectors of the lattice that all rows share."""

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

    If a limit in seconds is too short for that, the decoding has fewer paths, the
    library no moves longer than pairs, and one long anneal takes the place of the pool.

    Parameters
    ----------
    num_sweeps
        Sweeps over the library in one anneal. A budget's ``sweeps`` caps those of all
        anneals together, descents included.
    moves
        The longest moves of the library: ``"singles"``, ``"pairs"``, ``"quads"`` (up to
        four variables) or ``"longer"`` (up to eight); ``"auto"``: quads, but pairs if
        the spectrum of H is flat.
    max_moves
        Largest number of moves, not counting the singles; 0: 60 per variable and at
        most 150 000.
    start
        How the first states are found: ``"nearest"``, ``"babai"`` or ``"kbest"``; not
        used if the caller gives initial states.
    paths
        Number of paths of K-best searches.
    elites
        Number of states in a row's pool; 1: a single anneal.
    rounds
        Largest number of rounds of recombination.
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
        """Compile by solving one row with a pool of two states and one round.

        Walks over a large H go in blocks or not, depending on the library, and the
        library on the time there is: a row is then solved with each.
        """
        least = replace(
            self, num_sweeps=1, elites=min(self.elites, 2), rounds=min(self.rounds, 1)
        )
        row = freest_row(qubo)
        least.solve(row)
        if self.moves == "auto" and qubo.n > WHOLE:
            replace(least, moves="pairs", elites=1).solve(row)

    def search(self, task: Task) -> States:
        """Decode, anneal, then improve the pool until time or rounds end."""
        if not task.qubo.free().any():
            return task.start
        search = Search(self, task)
        search.first()
        if search.more() and search.build():
            search.cool()
            if (elites := search.elites()) == 1:
                search.go_on()
            else:
                search.fill(elites - 1)
                search.improve()
        task.info["sweeps"] = search.swept
        task.info["accepted"] = search.accepted
        return search.pool.best()
