"""Groups of arrays and numbers that the kernels of tabu search take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Matrix(NamedTuple):
    """The matrix as runs read it (see `solvers.flips.tabu_walk.TabuWalk`).

    Attributes
    ----------
    H : float32 [n, width]
        The matrix in units of a power of 2, its rows padded with zeros.
    labels : int32 [width]
        The numbers 0 to width - 1.
    low : int32
        The bits of a cost's pattern that hold a variable's index.
    """

    H: NDArray[np.float32]
    labels: NDArray[np.int32]
    low: np.int32


class Run(NamedTuple):
    """The state of each row's run (see `solvers.flips.tabu_walk.TabuWalk`).

    Attributes
    ----------
    z, cost, expiry : float32 [R, width]
        Signed scales, costs of flips, iterations at which flips cease to be tabu.
    clock, found : int64 [R]
        Iterations of the run so far, and up to its best state.
    value, lowest : float64 [R]
        Energies of the present state and of the run's best one, in the row's unit.
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
    """The model of each row (see `solvers.flips.tabu_walk.TabuWalk`).

    Attributes
    ----------
    scale, linear : float64 [R, n]
    offset : float64 [R]
    barred : float32 [R, n]
        `NEVER` where a variable is pinned, else 0.
    unit : float64 [R]
        Each row's unit of energy.
    root : float64 [R]
        Factor of each row's scales that makes their products with the H of runs costs
        in `unit`.
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
    """States that runs begin with, and their fields in float64.

    Attributes
    ----------
    noise : float64 [R]
        Changes of energy, in the row's unit, that may be rounding of a run's costs.
    here : uint8 [R, n]
        The states.
    u : float64 [R, n]
        Local fields of ``here``.
    """

    noise: NDArray[np.float64]
    here: NDArray[np.uint8]
    u: NDArray[np.float64]


class Rules(NamedTuple):
    """How a row is searched with a pool: iterations, shares, probabilities.

    `patience` and `part_patience` are the iterations without improvement that end a
    run, and a run on a part. Tenures are drawn from `shortest` to `longest`, with up to
    `spread` more for each flip. Other names are those of the options of
    `solvers.flips.tabu.Tabu`.
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
    """How passes are made: as in `Rules`; `repeats` idle passes end a row's search."""

    repeats: int
    subsize: int
    patience: int
    part_patience: int
    shortest: int
    longest: int
    spread: int


class Pool(NamedTuple):
    """The best states of each row, and the progress of its search.

    Attributes
    ----------
    states, energies : uint8 [R, P, n], float64 [R, P]
        The pool; energies are infinite where there is no state yet.
    held, stale : int64 [R]
        Number of states in the pool; runs since it last changed.
    tenure, going : int64 and bool [R]
        Tenure of the present run; whether there is one.
    spent, runs : int64 [R]
        Flips made, and runs that have ended.
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
    """The best state of each row, and the passes made.

    Attributes
    ----------
    states, energy : uint8 [R, n], float64 [R]
        The best state, and its energy.
    idle, made : int64 [R]
        Passes since the best state was found, and in all.
    """

    states: NDArray[np.uint8]
    energy: NDArray[np.float64]
    idle: NDArray[np.int64]
    made: NDArray[np.int64]
