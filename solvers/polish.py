"""Descents to local optima, with which every solver can polish its answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from solvers.checks import require_count, require_kind
from solvers.errors import UnknownNameError
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows

# Kinds of descent, and the values of a solver's option `polish`.
MOVES = ("one-flip", "cyclic", "pair-flip")
POLISHES = ("none", *MOVES)
# Multiplications between two looks at the clock.
CHUNK = 10**7
# Least number of rows of a thread that descend together.
TOGETHER = 8
# More passes than any descent takes.
ALL = 10**9


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
        Largest number of passes over the variables of a row; default: until no move
        gains.
    going
        Called with the energies [R] between chunks of work; the descent ends once it
        returns False.

    Raises
    ------
    InputError
        States of another shape or with other values, unknown moves, no threads or
        passes.
    """
    from solvers.kernels.descent import DESCENTS
    from solvers.walk import Walk

    require_kind("qubo", qubo, QuboBatch)
    require_kind("moves", moves, str)
    if moves not in MOVES:
        raise UnknownNameError("moves", moves, MOVES)
    require_count("threads", threads)
    if passes is not None:
        require_count("passes", passes)
    states = qubo.require_states("states", states)
    walk = Walk.at(qubo, states, threads, np.float64)
    done = np.zeros(qubo.rows, bool)
    state = (walk.z, walk.u, walk.q, walk.energy, walk.flips, done)
    # Multiplications per row: a pass of pair flips reads all of H, other passes read
    # one row of it or a few.
    pass_work = max(qubo.n * (qubo.n if moves == "pair-flip" else 2), 1)
    max_passes = ALL if passes is None else min(int(passes), ALL)
    # A few rows at least, since pair flips of several read H at once.
    block = max(CHUNK // pass_work, TOGETHER * threads) if going else max(qubo.rows, 1)
    for first in range(0, qubo.rows, block):
        rows = slice(first, first + block)
        per_row = tuple(array[rows] for array in state)
        chunk = max(CHUNK // (pass_work * len(done[rows])), 1) if going else max_passes
        for passes_left in range(max_passes, 0, -chunk):
            over_rows(
                DESCENTS[moves], (walk.H, min(chunk, passes_left)), per_row, threads
            )
            if going and not going(walk.energy):
                return walk.states()
            if done[rows].all():
                break
    return walk.states()
