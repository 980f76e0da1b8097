"""Many walks over one library of moves, sixteen to a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.kernels import energy
from solvers.kernels import lanes as kernels
from solvers.kernels.lanes import LINES, WIDTHS, Blocks, Moves
from solvers.kernels.moves import partition
from solvers.kernels.vectors import LANES
from solvers.lattice.moves import Vectors
from solvers.qubo import Float, QuboBatch, States
from solvers.threads import over_rows
from solvers.walk import aligned

# Up to so many variables the moves are one block: their fields stay in a near cache.
WHOLE = 640
# Variables of a block of a larger H, and bytes of H that all blocks may repeat; where
# they would need more, the moves stay one block.
BLOCK, MOST_NEAR = 1024, 2**28
# M exceeds the fields by at least this factor where a walk begins.
MARGIN = 2.0
SINGLE = np.dtype(np.float32)


@dataclass(frozen=True, eq=False)
class Lanes:
    """A batch and a library as the kernels want them (see `solvers.kernels.lanes`).

    Variables are measured in units d, powers of two near the roots of the diagonal, so
    that float32 serves weak inputs as well as strong ones, and a row's energies in
    units of its mean squared scale.

    Attributes
    ----------
    H : float32 [width, width]
        ``H / (d d^T)``, padded with zeros.
    unit : float64 [n]
        d.
    mean : float64 [R, 1]
        The rows' mean scales (geometric).
    varies : bool
        Whether the scale may vary within a row.
    moves, ends
        Of up to two, four and eight variables; where each block's moves begin.
    blocks
        None where the moves are one block.
    """

    qubo: QuboBatch
    H: NDArray[np.float32]
    unit: Float
    mean: Float
    varies: bool
    moves: tuple[Moves, Moves, Moves]
    ends: NDArray[np.int64]
    blocks: Blocks | None

    @classmethod
    def over(cls, qubo: QuboBatch, library: Sequence[Vectors]) -> Lanes:
        """For singles, pairs, moves of up to four and of up to eight variables."""
        n = qubo.n
        diagonal = np.abs(qubo.H.diagonal().astype(np.float64))
        size = np.where(diagonal > 0, diagonal, 1.0)
        unit = np.exp2(np.round(0.5 * np.log2(size)))
        width = max(n + -n % LANES, LANES)
        H = aligned(width, width, SINGLE, 0.0)
        for i in range(n):
            H[i, :n] = qubo.H[i] / (unit[i] * unit)
        classes = [Vectors.join(*library[:2]), *library[2:]]
        ends = np.array([[0] * 3, [len(part) for part in classes]], np.int64)
        blocks = None
        if n > WHOLE and (cut := _cut(classes, H, n)) is not None:
            classes, ends, blocks = cut
        scale = qubo.scale
        # Not whether it does vary: then a row's arithmetic would depend on the others.
        varies = scale.shape[1] > 1
        mean = np.exp(np.log(scale).mean(axis=1, keepdims=True))
        pairs, quads, longer = (
            _moves(part, c, qubo.H, unit, varies, blocks, ends)
            for c, part in enumerate(classes)
        )
        moves = pairs, quads, longer
        return cls(qubo, H, unit, mean, varies, moves, ends, blocks)

    @property
    def count(self) -> int:
        """Moves of the library."""
        return int(self.ends[-1].sum())

    def stand(self, rows: NDArray[np.intp], states: States, threads: int = 1) -> Tiles:
        """Walks at states [W, n] of the given rows [W]."""
        return Tiles.at(self, rows, states, threads)


@dataclass(eq=False)
class Tiles:
    """Where walks stand.

    Attributes
    ----------
    F, Z, M : [tiles, width, LANES], [tiles, width, LANES], [tiles, LANES]
        See the kernels; M is twice the M of a lane.
    scale
        Of every variable against its row's mean, as F; empty where it does not vary.
    energy, best : float64 [tiles, LANES]
        Relative to the start, in the rows' units.
    """

    lanes: Lanes
    walks: int
    F: NDArray[np.float32]
    Z: NDArray[np.int8]
    M: NDArray[np.float32]
    scale: NDArray[np.float32]
    energy: Float
    best: Float
    best_Z: NDArray[np.int8]
    counts: NDArray[np.int64]

    @classmethod
    def at(
        cls, lanes: Lanes, rows: NDArray[np.intp], states: States, threads: int
    ) -> Tiles:
        """Fields come from sums in float64."""
        qubo, walks = lanes.qubo.take(rows), len(rows)
        full, mean = qubo.full_scale(), lanes.mean[rows]
        fields = np.empty_like(full)
        over_rows(
            energy.fields, (qubo.H,), (full, qubo.linear, states, fields), threads
        )
        fields *= full / (mean**2 * lanes.unit)
        room = np.where(qubo.free(), 1 - 2 * states.astype(np.int8), 0)
        # What is coupled to nothing is in no move, however large its field.
        mobile = (room != 0) & lanes.H[: qubo.n].any(axis=1)
        largest = np.abs(np.where(mobile, fields, 0.0)).max(axis=1, initial=0.0)
        half = np.exp2(np.ceil(np.log2(np.where(largest > 0, MARGIN * largest, 1.0))))
        tiles = -(-walks // LANES)
        shape = tiles, len(lanes.H), LANES
        empty = tiles, 0, LANES
        Z = _tiled(room, shape, np.dtype(np.int8))
        return cls(
            lanes=lanes,
            walks=walks,
            F=_tiled(fields - half[:, None] * room, shape, SINGLE),
            Z=Z,
            M=_tiled(2 * half[:, None], (tiles, 1, LANES), SINGLE)[:, 0],
            scale=_tiled(full / mean, shape if lanes.varies else empty, SINGLE),
            energy=np.zeros((tiles, LANES)),
            best=np.zeros((tiles, LANES)),
            best_Z=Z.copy(),
            counts=np.zeros((tiles, 2), np.int64),
        )

    def anneal(
        self,
        heat: Float,
        factors: Float,
        draws: NDArray[np.float32],
        rng: NDArray[np.uint64],
        threads: int = 1,
    ) -> None:
        """Sweep over the library, once per factor of the temperatures `heat` [W]."""
        lanes = self.lanes
        temperature = np.zeros(self.energy.shape, np.float32)
        temperature.reshape(-1)[: self.walks] = heat
        shared: tuple[object, ...] = (
            lanes.H,
            *lanes.moves,
            lanes.ends,
            factors.astype(np.float32),
            draws,
        )
        kernel = kernels.anneal
        if lanes.blocks is not None:
            kernel, shared = kernels.anneal_blocks, (*shared, lanes.blocks)
        per_tile = (
            self.scale,
            self.F,
            self.Z,
            self.M,
            temperature,
            rng,
            self.energy,
            self.best,
            self.best_Z,
            self.counts,
        )
        over_rows(kernel, shared, per_tile, threads)

    def states(self) -> States:
        """The best states [W, n] of the walks."""
        return self._read(self.best_Z)

    def last_states(self) -> States:
        """The states [W, n] where the walks stand."""
        return self._read(self.Z)

    def _read(self, room: NDArray[np.int8]) -> States:
        n = self.lanes.qubo.n
        down = room.transpose(0, 2, 1).reshape(-1, room.shape[1])[: self.walks, :n]
        return (down < 0).astype(np.uint8, order="C")

    def costs(self, vectors: Vectors) -> Float:
        """Costs [W, m] of moves where the walks stand; infinite where infeasible.

        A scale that varies within a row is taken for its mean.
        """
        rows = slice(self.walks)
        shape = -1, self.F.shape[1]
        Z = self.Z.transpose(0, 2, 1).reshape(shape)[rows]
        half = 0.5 * self.M.reshape(-1)[rows, None]
        fields = self.F.transpose(0, 2, 1).reshape(shape)[rows] + half * Z
        n = self.lanes.qubo.n
        fields = fields[:, :n] * self.lanes.unit
        spare = vectors.which < 0
        which = np.where(spare, 0, vectors.which)
        slope = np.zeros((self.walks, len(vectors)))
        room = np.zeros((self.walks, len(vectors)))
        for k in range(which.shape[1]):
            v = np.where(spare[:, k], 0, vectors.sign[:, k])
            slope += fields[:, which[:, k]] * v
            room += Z[:, which[:, k]] * v
        count = (~spare).sum(axis=1)
        costs = vectors.length + 2 * np.sign(room) * slope
        return np.where(np.abs(room) == count, costs, np.inf)


def thresholds(seed: int) -> NDArray[np.float32]:
    """Random thresholds [LINES, LANES] of Metropolis' rule, in units of a temperature.

    Stratified: each lane's are the quantiles of an exponential distribution.
    """
    rng = np.random.default_rng(seed)
    strata = rng.permuted(np.tile(np.arange(LINES), (LANES, 1)), axis=1)
    uniform = (strata + rng.random((LANES, LINES))) / LINES
    draws = aligned(LINES, LANES, SINGLE, 0.0)
    draws[:] = -np.log1p(-uniform).T
    return draws


def _tiled(
    values: NDArray[Any], shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Rows [W, n] as the lanes of tiles, the rest zero."""
    tiles, width, lanes = shape
    out = aligned(tiles * width, lanes, dtype, 0).reshape(shape)
    for t in range(tiles):
        part = values[t * lanes : (t + 1) * lanes, :width]
        out[t, : part.shape[1], : len(part)] = part.T
    return out


def _moves(
    vectors: Vectors,
    c: int,
    H: NDArray[np.floating[Any]],
    unit: Float,
    varies: bool,
    blocks: Blocks | None,
    ends: NDArray[np.int64],
) -> Moves:
    # Without moves of the last class, which is rare, none of its kind is compiled.
    width = WIDTHS[c if c < 2 or len(vectors) else 0]
    which, sign = vectors.which[:, :width], vectors.sign[:, :width]
    more = ((0, 0), (0, width - which.shape[1]))
    spare = which < 0
    which = np.pad(np.where(spare, 0, which), more)
    sign = np.pad(np.where(spare, 0, sign), more)
    coef = sign * unit[which]
    products = np.empty((len(which) if varies else 0, width * (width + 1) // 2))
    if varies:
        terms = [(k, l) for l in range(width) for k in range(l + 1)]
        for at, (k, l) in enumerate(terms):
            term = sign[:, k] * sign[:, l] * H[which[:, k], which[:, l]]
            products[:, at] = term if k == l else 2 * term
    if blocks is not None:
        for g, inside in enumerate(np.split(blocks.variables, blocks.bounds[1:-1])):
            rows = slice(ends[g, c], ends[g + 1, c])
            found = np.searchsorted(inside, which[rows])
            which[rows] = np.where(sign[rows] != 0, found, 0)
    return Moves(
        which.astype(np.uint32),
        coef.astype(np.float32),
        vectors.length.astype(np.float32),
        np.abs(coef).sum(axis=1).astype(np.float32),
        products.astype(np.float32),
        (0,) * width,
        (0,) * varies,
    )


def _cut(
    classes: Sequence[Vectors], H: NDArray[np.float32], n: int
) -> tuple[list[Vectors], NDArray[np.int64], Blocks] | None:
    """Classes in the order of blocks, where each block's moves begin, the blocks.

    None where there would be too many blocks.
    """
    all_moves = Vectors.join(*classes)
    kind = np.repeat(np.arange(len(classes)), [len(part) for part in classes])
    spread = np.sort(np.where(all_moves.which < 0, n, all_moves.which), axis=1)
    order = np.lexsort((spread[:, 1], spread[:, 0]))
    block = np.empty(len(all_moves), np.int64)
    count = partition(all_moves.which, order, BLOCK, n, block)
    if count * BLOCK**2 * SINGLE.itemsize > MOST_NEAR:
        return None
    sorted_classes, ends = [], np.zeros((count + 1, len(classes)), np.int64)
    for c, part in enumerate(classes):
        mine = block[kind == c]
        sorted_classes.append(part.take(np.argsort(mine, kind="stable")))
        ends[1:, c] = np.cumsum(np.bincount(mine, minlength=count))
    inside = [np.unique(all_moves.which[block == g]) for g in range(count)]
    inside = [variables[variables >= 0] for variables in inside]
    bounds = np.cumsum([0, *map(len, inside)]).astype(np.int64)
    near = aligned(count * BLOCK, BLOCK, SINGLE, 0.0).reshape(count, BLOCK, BLOCK)
    for g, variables in enumerate(inside):
        near[g, : len(variables), : len(variables)] = H[np.ix_(variables, variables)]
    variables = np.concatenate(inside).astype(np.int64)
    return sorted_classes, ends, Blocks(variables, bounds, near)
