"""What the tests of walks side by side share."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from solvers.lattice import lanes as module
from solvers.lattice.lanes import Lanes, Tiles, thresholds
from solvers.lattice.moves import Vectors, short_vectors
from solvers.qubo import QuboBatch
from solvers.testing import example_batch, reference_energies

KINDS = ("one block", "blocks", "one block, scaled", "blocks, scaled")


class Case(NamedTuple):
    qubo: QuboBatch
    library: list[Vectors]
    lanes: Lanes


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    """Each of the four kernels, on small problems."""
    blocks = request.param.startswith("blocks")
    monkeypatch.setattr(module, "WHOLE", 2 if blocks else 256)
    monkeypatch.setattr(module, "BLOCK", 16)
    return request.param


def problem(kind: str, rows: int, n: int, seed: int = 0, definite: bool = True):
    """Rows of one problem, of the scale that `kind` says."""
    rng = np.random.default_rng(seed)
    each = n if kind.endswith("scaled") else 1
    scale = rng.uniform(0.5, 2, (rows, each))
    return example_batch(rows, n, seed, definite, scale=scale)


def case(qubo: QuboBatch, kinds: str = "longer", most: int = 800) -> Case:
    library = short_vectors(qubo.H, kinds, most)
    return Case(qubo, library, Lanes.over(qubo, library))


def some_pinned(qubo: QuboBatch, seed: int = 5) -> QuboBatch:
    rng = np.random.default_rng(seed)
    pins = rng.integers(0, 2, qubo.linear.shape)
    pins[rng.random(qubo.linear.shape) < 0.8] = -1
    return replace(qubo, fixed=pins.astype(np.int8))


def streams(tiles: Tiles, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, len(tiles.F), np.uint64)


def anneal(tiles: Tiles, heat: float, sweeps: int = 5, seed: int = 0, threads: int = 1):
    tiles.anneal(
        np.full(tiles.walks, heat),
        np.ones(sweeps),
        thresholds(seed),
        streams(tiles, seed),
        threads,
    )


def mean_square(lanes: Lanes, rows: np.ndarray) -> np.ndarray:
    """The unit of a row's energies."""
    scale = lanes.qubo.full_scale()[rows]
    return np.exp(2 * np.log(scale).mean(axis=1))


def by_walk(array: np.ndarray, walks: int) -> np.ndarray:
    """Lanes [tiles, width, LANES] as walks [W, width]."""
    return array.transpose(0, 2, 1).reshape(-1, array.shape[1])[:walks]


def check_fields(tiles: Tiles, rows: np.ndarray, tolerance: float = 1e-5) -> None:
    """Fields by the definition, in the units of the variables."""
    lanes, qubo = tiles.lanes, tiles.lanes.qubo
    n, s = qubo.n, qubo.full_scale()[rows]
    x = qubo.take(rows).pin(tiles.last_states())
    exact = (s * x) @ qubo.H.astype(np.float64) + qubo.linear[rows] / (2 * s)
    exact *= s / mean_square(lanes, rows)[:, None] / lanes.unit
    half = 0.5 * tiles.M.reshape(-1)[: tiles.walks, None].astype(np.float64)
    found = by_walk(tiles.F, tiles.walks) + half * by_walk(tiles.Z, tiles.walks)
    largest = np.maximum(half, np.abs(exact).max(axis=1, keepdims=True))
    assert (np.abs(found[:, :n] - exact) <= tolerance * largest).all()


def check_room(tiles: Tiles, rows: np.ndarray) -> None:
    """Rooms are -1 and 1, and 0 of what cannot move."""
    n = tiles.lanes.qubo.n
    room = by_walk(tiles.Z, tiles.walks)
    np.testing.assert_array_equal(np.abs(room[:, :n]), tiles.lanes.qubo.free()[rows])
    assert not room[:, n:].any()
    assert (
        not tiles.Z.transpose(0, 2, 1).reshape(-1, room.shape[1])[tiles.walks :].any()
    )


def gains(tiles: Tiles, rows: np.ndarray, start: np.ndarray, states: np.ndarray):
    """Energies of states against those at the start, in the rows' units."""
    qubo = tiles.lanes.qubo.take(rows)
    change = reference_energies(qubo, states) - reference_energies(qubo, start)
    return change / mean_square(tiles.lanes, rows)


def check(tiles: Tiles, rows: np.ndarray, start: np.ndarray, tolerance: float = 1e-5):
    """Everything that holds of walks wherever they stand."""
    check_room(tiles, rows)
    check_fields(tiles, rows, tolerance)
    qubo, walks = tiles.lanes.qubo.take(rows), tiles.walks
    half = 0.5 * tiles.M.reshape(-1)[:walks].astype(np.float64)
    noise = tolerance * qubo.n * half * tiles.lanes.unit.max()
    here, best = qubo.pin(tiles.last_states()), qubo.pin(tiles.states())
    energy, lowest = (array.reshape(-1)[:walks] for array in (tiles.energy, tiles.best))
    assert (np.abs(energy - gains(tiles, rows, start, here)) <= noise).all()
    assert (np.abs(lowest - gains(tiles, rows, start, best)) <= noise).all()
    assert (lowest <= np.minimum(energy, 0)).all()


def brute_costs(qubo: QuboBatch, states: np.ndarray, vectors: Vectors) -> np.ndarray:
    """Costs [W, m] of the moves in their feasible directions, else infinite."""
    V = np.zeros((len(vectors), qubo.n), int)
    for v, which, sign in zip(V, vectors.which, vectors.sign, strict=True):
        v[which[which >= 0]] = sign[which >= 0]
    costs = np.full((qubo.rows, len(V)), np.inf)
    before = reference_energies(qubo, states)[:, None]
    for way in (1, -1):
        there = states[:, None].astype(int) + way * V
        feasible = np.isin(there, (0, 1)).all(axis=2)
        if qubo.fixed is not None:
            feasible &= ~((qubo.fixed >= 0)[:, None] & (V != 0)).any(axis=2)
        change = reference_energies(qubo, there) - before
        costs = np.where(feasible, change, costs)
    return costs
