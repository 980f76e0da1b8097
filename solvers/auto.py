"""The solver for whatever batch there is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from solvers.base import Solver, Task
from solvers.exact import Exact
from solvers.lattice import Lattice
from solvers.moves import flatness
from solvers.qubo import QuboBatch, States
from solvers.tabu import Tabu

# Up to so many free variables a row is solved exactly in milliseconds.
EXACT = 28
# Beyond this flatness there are no short vectors to move along.
FLAT = 0.45
# Rows times squared variables up to which a pool of states costs seconds.
SMALL = 5 * 10**7


@dataclass(frozen=True, kw_only=True)
class Auto(Solver):
    """Exact search for the smallest rows, tabu for flat spectra, else `lattice`.

    Rows of up to 28 free variables are solved exactly. Where H is indefinite or its
    spectrum is flat (`solvers.moves.flatness`), single flips are the best moves there
    are, and tabu search makes the most of them. In between lies rounding: short vectors
    decide. With a limit of seconds, a search that ends before it begins again from
    other random numbers, and the best states are kept.
    """

    name: ClassVar[str] = "auto"

    polish: str = "pair-flip"

    def search(self, task: Task) -> States:
        """Choose, and search."""
        solver = choose(task.qubo, task.budget.seconds is not None)
        task.info["method"] = solver.name
        best = solver.search(task)
        threads = task.budget.threads
        lowest = task.qubo.energies(task.qubo.pin(best), threads)
        runs = 1
        while solver.name != "exact" and task.budget.seconds is not None:
            if not task.monitor.report(lowest):
                break
            again = replace(task, seed=task.seed + (runs << 40), info={})
            found = solver.search(again)
            energies = task.qubo.energies(task.qubo.pin(found), threads)
            best = np.where((energies < lowest)[:, None], found, best)
            lowest = np.minimum(energies, lowest)
            runs += 1
        task.info["runs"] = runs
        return best


def choose(qubo: QuboBatch, timed: bool) -> Solver:
    """The solver for a batch, with the effort that its size allows.

    Parameters
    ----------
    timed
        Whether seconds end the search; if not, its own limits do.
    """
    if qubo.free().sum(axis=1).max(initial=0) <= EXACT:
        return Exact()
    flat = flatness(qubo.H)
    if flat is None or flat > FLAT:
        return Tabu()
    if timed or qubo.rows * qubo.n**2 <= SMALL:
        return Lattice()
    return Lattice(elites=1, num_sweeps=100)
