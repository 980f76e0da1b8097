"""What the kernels of tabu search are given, in groups of arrays and numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Matrix(NamedTuple):
    """The matrix as runs read it (see `solvers.flips.tabu_walk.TabuWalk`).

    Attributes
    ----------
    H : float32 [n, width]
    labels : int32 [width]
        0, 1, 2, …
    low : int32
        The bits of a cost's pattern that hold a variable's index.
    """

    H: NDArray[np.float32]
    labels: NDArray[np.int32]
    low: np.int32


class Run(NamedTuple):
    """Where the runs of rows stand (see `solvers.flips.tabu_walk.TabuWalk`).

    Attributes
    ----------
    z, cost, expiry : float32 [R, width]
        Signed scales, costs of flips, iterations at which they cease to be tabu.
    clock, found : int64 [R]
        Iterations of the run, and those at its best state.
    value, lowest : float64 [R]
        Energies where the row stands and of the run's best state, in the row's unit.
    best : uint8 [R, n]
        The run's best state.
    """

    z: NDArray[np.float32]
    cost: NDArray[np.float32]
    expiry: NDArray[np.float32]
    clock: NDArray[np.int64]
    found: NDArray[np.int64]
    value: NDArray[np.float64]
    lowest: NDArray[np.float64]
    best: NDArray[np.uint8]


class Model(NamedTuple):
    """What runs know of each row (see `solvers.flips.tabu_walk.TabuWalk`).

    Attributes
    ----------
    scale, linear : float64 [R, n]
    offset : float64 [R]
    barred : float32 [R, n]
        `NEVER` where a variable is pinned, else 0.
    unit, root : float64 [R]
        A row's unit of energy; what turns its scales into such whose products with the
        H of runs are costs in that unit.
    most : int64 [R]
        The longest possible tenure; negative where nothing is free.
    """

    scale: NDArray[np.float64]
    linear: NDArray[np.float64]
    offset: NDArray[np.float64]
    barred: NDArray[np.float32]
    unit: NDArray[np.float64]
    root: NDArray[np.float64]
    most: NDArray[np.int64]


class Place(NamedTuple):
    """States ``here``, uint8 [R, n], that are followed in float64.

    Attributes
    ----------
    noise : float64 [R]
        Changes of energy, in the row's unit, that may be rounding of a run's costs.
    u : float64 [R, n]
        Local fields of ``here``.
    """

    noise: NDArray[np.float64]
    here: NDArray[np.uint8]
    u: NDArray[np.float64]


class Rules(NamedTuple):
    """How a row is searched with a pool: iterations, shares, probabilities.

    ``patience`` ends a run and ``part_patience`` that of a part; other names are those
    of the options of `solvers.flips.tabu.Tabu`, with tenures from `shortest` to
    `longest` and up to `spread` more.
    """

    patience: int
    relink: float
    share: float
    weakest: int
    strongest: int
    shortest: int
    longest: int
    spread: int
    subsize: int
    part_patience: int


class PassRules(NamedTuple):
    """How passes are made: as `Rules`, and after how many idle ones a row rests."""

    repeats: int
    subsize: int
    patience: int
    part_patience: int
    shortest: int
    longest: int
    spread: int


class Pool(NamedTuple):
    """The best states of each row, and how far its search is.

    Attributes
    ----------
    states, energies : uint8 [R, P, n], float64 [R, P]
        Infinite where there is no state yet.
    held, stale : int64 [R]
        States of the pool; runs since it last changed.
    tenure, going : int64 and bool [R]
        Of the run that is under way, if one is.
    spent, runs : int64 [R]
        Flips, and runs that have ended.
    """

    states: NDArray[np.uint8]
    energies: NDArray[np.float64]
    held: NDArray[np.int64]
    stale: NDArray[np.int64]
    tenure: NDArray[np.int64]
    going: NDArray[np.bool_]
    spent: NDArray[np.int64]
    runs: NDArray[np.int64]


class Champion(NamedTuple):
    """The best state of each row, and its passes.

    Attributes
    ----------
    states, energy : uint8 [R, n], float64 [R]
    idle, made : int64 [R]
        Passes since it was found, and in all.
    """

    states: NDArray[np.uint8]
    energy: NDArray[np.float64]
    idle: NDArray[np.int64]
    made: NDArray[np.int64]
