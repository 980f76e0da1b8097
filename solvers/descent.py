"""Steepest one-flip descent, the polish that every solver offers."""

from __future__ import annotations

import numpy as np

from solvers import kernels
from solvers.qubo import QuboBatch, States
from solvers.rows import over_rows
from solvers.walk import Walk


def one_flip(qubo: QuboBatch, states: States, threads: int = 1) -> States:
    """Descend from states [R, n] by the best flip until no flip gains."""
    walk = Walk.at(qubo, states, threads, np.float64)
    over_rows(
        kernels.descend,
        (walk.H,),
        (walk.z, walk.u, walk.q, walk.energy, walk.flips),
        threads,
    )
    return walk.states()
