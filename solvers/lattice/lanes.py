"""Many walks over one library of moves, side by side in tiles of `LANES` walks."""

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
from solvers.walk import aligned, apart

# Up to this many variables the moves are one block: their fields stay in a near cache.
WHOLE = 640
# Variables of a block of a larger H, and bytes that the blocks' copies of parts of H
# may take together; if they would need more, the moves stay one block.
BLOCK, MOST_NEAR = 1024, 2**28
# M exceeds the fields by at least this factor when a walk begins.
MARGIN = 2.0
SINGLE = np.dtype(np.float32)


@dataclass(frozen=True, eq=False)
class Lanes:
    """A batch and a library in the form that `solvers.kernels.lanes` takes.

    Variables are measured in units d, powers of two near the roots of the diagonal, so
    that float32 serves weak inputs as well as strong ones, and a row's energies in
    units of its squared mean scale.

    Attributes
    ----------
    qubo
        The batch.
    H : float32 [width, width]
        ``H / (d d^T)``, padded with zeros.
    unit : float64 [n]
        The units d.
    mean : float64 [R, 1]
        Geometric mean of each row's scales.
    varies : bool
        Whether the scale may vary within a row.
    moves
        The moves of up to two, up to four and up to eight variables.
    ends : int64 [blocks + 1, 3]
        Where each block's moves begin and end in each of these three classes.
    blocks
        The blocks' variables and parts of H; None if the moves are one block.
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
        """Lanes for a library of singles, pairs, moves of up to 4 and of up to 8."""
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
        # By shape and not by values, which would make a row's arithmetic depend on
        # other rows.
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
        """Number of moves in the library."""
        return int(self.ends[-1].sum())

    def stand(self, rows: NDArray[np.intp], states: States, threads: int = 1) -> Tiles:
        """Start walks at states [W, n] of the rows with indices `rows` [W]."""
        return Tiles.at(self, rows, states, threads)


@dataclass(eq=False)
class Tiles:
    """The present and the best states of walks, in tiles of `LANES` walks.

    Attributes
    ----------
    lanes
        The batch and the library.
    walks
        Number of walks; the last tile's other lanes are idle.
    F, Z, M : [tiles, width, LANES], [tiles, width, LANES], [tiles, LANES]
        See `solvers.kernels.lanes`; M is twice the M of a lane.
    scale : float32 [tiles, width, LANES]
        Scale of every variable relative to its row's mean; [tiles, 0, LANES] if scales
        cannot vary within a row.
    energy, best : float64 [tiles, LANES]
        Energies of the present and of the best state relative to the start, in the
        rows' units.
    best_Z : int8 [tiles, width, LANES]
        Z of the best states.
    counts : int64 [tiles, 8]
        The kernels' counts, a cache line each; the first is that of accepted moves.
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
        """Walks at states [W, n] of the rows [W]; fields are summed in float64."""
        qubo, walks = lanes.qubo.take(rows), len(rows)
        full, mean = qubo.full_scale(), lanes.mean[rows]
        fields = np.empty_like(full)
        over_rows(
            energy.fields, (qubo.H,), (full, qubo.linear, states, fields), threads
        )
        fields *= full / (mean**2 * lanes.unit)
        room = np.where(qubo.free(), 1 - 2 * states.astype(np.int8), 0)
        # A variable that is coupled to nothing is in no move, however large its field.
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
            energy=aligned(tiles, LANES, np.dtype(np.float64), 0.0),
            best=aligned(tiles, LANES, np.dtype(np.float64), 0.0),
            best_Z=Z.copy(),
            counts=apart(np.zeros(tiles, np.int64)),
        )

    def anneal(
        self,
        heat: Float,
        factors: Float,
        draws: NDArray[np.float32],
        rng: NDArray[np.uint64],
        threads: int = 1,
    ) -> None:
        """Sweep over the library once for each of `factors`.

        Parameters
        ----------
        heat : float64 [W]
            Temperatures of the walks.
        factors : float64 [S]
            What the temperatures are multiplied by in each sweep; 0: a descent.
        draws : float32 [LINES, LANES]
            Thresholds of Metropolis' rule; see `thresholds`.
        rng : uint64 [tiles]
            Random streams of the tiles, which move on.
        """
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
        streams = apart(rng)
        per_tile = (
            self.scale,
            self.F,
            self.Z,
            self.M,
            temperature,
            streams,
            self.energy,
            self.best,
            self.best_Z,
            self.counts,
        )
        # Tiles pass through blocks together; otherwise each takes its own time.
        uneven = lanes.blocks is None
        over_rows(kernel, shared, per_tile, threads, uneven=uneven)
        rng[:] = streams[:, 0]

    def states(self) -> States:
        """The best states [W, n] of the walks."""
        return self._read(self.best_Z)

    def last_states(self) -> States:
        """The present states [W, n] of the walks."""
        return self._read(self.Z)

    def _read(self, room: NDArray[np.int8]) -> States:
        """States [W, n] from an array like `Z`."""
        n = self.lanes.qubo.n
        down = room.transpose(0, 2, 1).reshape(-1, room.shape[1])[: self.walks, :n]
        return (down < 0).astype(np.uint8, order="C")

    def costs(self, vectors: Vectors) -> Float:
        """Costs [W, m] of moves from the present states; infinite where infeasible.

        A scale that varies within a row is replaced by its mean.
        """
        rows = slice(self.walks)
        shape = -1, self.F.shape[1]
        Z = self.Z.transpose(0, 2, 1).reshape(shape)[rows]
        half = 0.5 * self.M.reshape(-1)[rows, None]
        fields = self.F.transpose(0, 2, 1).reshape(shape)[rows] + half * Z
        n = self.lanes.qubo.n
        moves = vectors.matrix(n)
        slope = moves @ (fields[:, :n] * self.lanes.unit).T
        room = moves @ Z[:, :n].T.astype(np.float64)
        sizes = (vectors.which >= 0).sum(axis=1, keepdims=True)
        costs = vectors.length[:, None] + 2 * np.sign(room) * slope
        costs[np.abs(room) < sizes] = np.inf
        return np.ascontiguousarray(costs.T)


def thresholds(seed: int) -> NDArray[np.float32]:
    """Random thresholds [LINES, LANES] for Metropolis' rule, in units of temperature.

    They are stratified: each lane gets one draw from every quantile of an exponential
    distribution.
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
    """Values [W, n] of walks in tiles of the given shape, padded with zeros."""
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
    """The moves of class c (up to two, four or eight variables) for the kernels."""
    # The last class often has no moves; with the width of the first one, kernels need
    # not be compiled for it.
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
            places = np.searchsorted(inside, which[rows])
            which[rows] = np.where(sign[rows] != 0, places, 0)
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
    """Divide the moves of all classes into blocks of few variables.

    Returns
    -------
    classes
        The moves of each class, those of a block together.
    ends : int64 [blocks + 1, classes]
        Where each block's moves begin and end in each class.
    blocks
        The blocks' variables and parts of H.

    None if the blocks' parts of H would take too many bytes.
    """
    all_moves = Vectors.join(*classes)
    kind = np.repeat(np.arange(len(classes)), [len(part) for part in classes])
    ascending = np.sort(np.where(all_moves.which < 0, n, all_moves.which), axis=1)
    order = np.lexsort((ascending[:, 1], ascending[:, 0]))
    block = np.empty(len(all_moves), np.int64)
    count = partition(all_moves.which, order, BLOCK, n, block)
    if count * BLOCK**2 * SINGLE.itemsize > MOST_NEAR:
        return None
    sorted_classes, ends = [], np.zeros((count + 1, len(classes)), np.int64)
    for c, part in enumerate(classes):
        block_of_move = block[kind == c]
        sorted_classes.append(part.take(np.argsort(block_of_move, kind="stable")))
        ends[1:, c] = np.cumsum(np.bincount(block_of_move, minlength=count))
    inside = [np.unique(all_moves.which[block == g]) for g in range(count)]
    inside = [variables[variables >= 0] for variables in inside]
    bounds = np.cumsum([0, *map(len, inside)]).astype(np.int64)
    near = aligned(count * BLOCK, BLOCK, SINGLE, 0.0).reshape(count, BLOCK, BLOCK)
    for g, variables in enumerate(inside):
        near[g, : len(variables), : len(variables)] = H[np.ix_(variables, variables)]
    variables = np.concatenate(inside).astype(np.int64)
    return sorted_classes, ends, Blocks(variables, bounds, near)
