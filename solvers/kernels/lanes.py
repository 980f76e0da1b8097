"""Annealing over a library of moves, sixteen walks side by side.

A move is a vector v with entries -1, 0 and 1: the variables with 1 go up and those with
-1 go down or, in the other direction, down and up. A tile holds sixteen walks, its
lanes, variable by variable:

    F[p] = w[p] - M z[p],

where w are the local fields and z = 1 - 2 x is the room to move (0 where there is
none). With ``S = sum_k v_k F_k`` and m entries, the move costs, in its one feasible
direction,

    v^T H v + 2 (m M - |S|),

and every variable that cannot move as it should adds 4 M or 2 M. If M is larger than
the fields, a test of all sixteen lanes takes a dozen instructions, infeasible moves
fail it by themselves, and the sign of S is the direction. If a field outgrows M, the
test may be wrong; moves that pass it are therefore checked again.

Moves are tested a few at a time, and one by one only if a lane accepts one. Then the
fields follow, by one product of rows of H with the lanes' steps. A large H is walked
through in blocks of moves: within a block, only the fields of its own variables follow.
After the block's last move the other fields follow, by one product of matrices for all
the variables that have moved.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvers.kernels.compile import inlined, inner, inner_sum, jit
from solvers.kernels.streams import GOLDEN, to_bits
from solvers.kernels.vectors import LANES, add_product

# Moves tested at a time, each with its own line of the table of thresholds.
GROUP = 8
# Lines of that table.
LINES = 256
# Largest numbers of variables of a move, by class of moves.
WIDTHS = (2, 4, 8)
UNSIGNED = np.uint64
TWO = np.float32(2.0)
ZERO = np.float32(0.0)
ONE = np.float32(1.0)


class Moves(NamedTuple):
    """Moves of up to `width` variables; spare places hold a variable with entry 0.

    Attributes
    ----------
    which : uint32 [m, width]
        The moves' variables, as indices within the block.
    coef : float32 [m, width]
        Entries v, in units of the variables.
    length, reach : float32 [m]
        ``v^T H v`` and the sum of the entries' sizes.
    products : float32 [m, width (width + 1) / 2]
        The terms of ``v^T H v`` if a scale weighs them; else empty.
    places
        As many zeros as the width. Lengths of tuples are known when a kernel is
        compiled, so that its loops are unrolled.
    scaled
        One zero if the scale may vary within a row; else empty.
    """

    which: NDArray[np.uint32]
    coef: NDArray[np.float32]
    length: NDArray[np.float32]
    reach: NDArray[np.float32]
    products: NDArray[np.float32]
    places: tuple[int, ...]
    scaled: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that a pass over the moves reads."""
        return sum(array.nbytes for array in self[:5])


class Blocks(NamedTuple):
    """The variables of blocks of moves, and H among them.

    Attributes
    ----------
    variables, bounds : int64 [.], [G + 1]
        The variables of block g are ``variables[bounds[g] : bounds[g + 1]]``.
    near : float32 [G, V, V]
        H among the variables of each block.
    """

    variables: NDArray[np.int64]
    bounds: NDArray[np.int64]
    near: NDArray[np.float32]


@inlined
def take_lines(rng, t, lines):
    """Draw GROUP random lines of the table of thresholds from stream t."""
    rng[t, 0] += GOLDEN
    bits = to_bits(rng[t, 0])
    for b in range(GROUP):
        lines[b] = np.int64(bits & UNSIGNED(LINES - 1))
        bits >>= UNSIGNED(8)


@inner_sum
def total(F, moves, m, q):
    """S of move m in lane q."""
    s = moves.coef[m, 0] * F[moves.which[m, 0], q]
    for k in range(1, len(moves.places)):
        s += moves.coef[m, k] * F[moves.which[m, k], q]
    return s


@inner_sum
def price(scale, moves, m, q, s, twice_M):
    """The cost of move m in lane q if it is feasible; s is its S."""
    h = moves.length[m]
    if len(moves.scaled):
        h, c = ZERO, 0
        for l in range(len(moves.places)):
            for k in range(l + 1):
                a = scale[moves.which[m, k], q]
                b = scale[moves.which[m, l], q]
                h += moves.products[m, c] * a * b
                c += 1
    return h + (moves.reach[m] * twice_M - TWO * abs(s))


@inner_sum
def screen(F, scale, moves, first, count, twice_M, heat, t, draws, lines):
    """Number of lanes and moves, of `count` from `first` on, that might be accepted."""
    hits = np.int32(0)
    for b in range(count):
        m, line = first + b, lines[b]
        for q in range(UNSIGNED(LANES)):
            s = total(F, moves, m, q)
            cost = price(scale, moves, m, q, s, twice_M[t, q])
            hits += np.int32(cost < heat[t, q] * draws[line, q])
    return hits


@inner_sum
def look(F, scale, moves, m, twice_M, heat, t, draws, line, sums, costs):
    """S and the cost of move m in all lanes; return how many lanes might accept it."""
    hits = np.int32(0)
    for q in range(UNSIGNED(LANES)):
        s = total(F, moves, m, q)
        cost = price(scale, moves, m, q, s, twice_M[t, q])
        sums[q] = s
        costs[q] = cost
        hits += np.int32(cost < heat[t, q] * draws[line, q])
    return hits


@inner
def feasible(Z, moves, m, q, up):
    """Whether all variables of move m can move in direction `up` in lane q."""
    for k in range(len(moves.places)):
        a = moves.coef[m, k] * up
        if a > ZERO and Z[moves.which[m, k], q] <= 0:
            return False
        if a < ZERO and Z[moves.which[m, k], q] >= 0:
            return False
    return True


@inner
def sweep(
    H, F, Z, scale, moves, first, last, twice_M, heat, t, draws, rng, energy, moved
):
    """Propose moves first to before last to a tile.

    The steps of the variables are added to `moved` [variables, LANES] unless it is
    None. Returns the numbers of moves accepted and of products made.
    """
    width = len(moves.places)
    lines = np.empty(GROUP, np.int64)
    sums, costs = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    steps = np.empty((width, LANES), np.float32)
    which = np.empty(width, np.int64)
    accepted = 0
    products = 0
    for start in range(first, last, GROUP):
        count = min(GROUP, last - start)
        take_lines(rng, t, lines)
        if not screen(F, scale, moves, start, count, twice_M, heat, t, draws, lines):
            continue
        for b in range(count):
            m, line = start + b, lines[b]
            if not look(F, scale, moves, m, twice_M, heat, t, draws, line, sums, costs):
                continue
            before = accepted
            for q in range(LANES):
                steps[0, q] = ZERO
                if costs[q] < heat[t, q] * draws[line, q]:
                    up = ONE if sums[q] < ZERO else -ONE
                    if feasible(Z, moves, m, q, up):
                        steps[0, q] = up
                        energy[t, q] += costs[q]
                        accepted += 1
            if accepted == before:
                continue
            products += 1
            used = 0
            for k in range(width - 1, -1, -1):
                a = moves.coef[m, k]
                if a == ZERO:
                    continue
                i = moves.which[m, k]
                which[k] = i
                used = max(used, k + 1)
                sign = ONE if a > ZERO else -ONE
                for q in range(LANES):
                    up = steps[0, q]
                    if up != ZERO:
                        Z[i, q] = -Z[i, q]
                        F[i, q] += twice_M[t, q] * (up * sign)
                    steps[k, q] = a * up
                    if len(moves.scaled):
                        steps[k, q] *= scale[i, q]
                    if moved is not None:
                        moved[i, q] += steps[k, q]
            if len(moves.scaled):
                add_product(F, H, which, steps, used, scale)
            else:
                add_product(F, H, which, steps, used, None)
    return accepted, products


@inlined
def keep_best(Z, energy, t, best, best_Z):
    """Keep the states of the lanes of tile t whose energy is the lowest so far."""
    for q in range(LANES):
        if energy[t, q] < best[t, q]:
            best[t, q] = energy[t, q]
            for p in range(Z.shape[1]):
                best_Z[t, p, q] = Z[t, p, q]


@inlined
def sweep_block(
    H,
    F,
    Z,
    scale,
    pairs,
    quads,
    longer,
    ends,
    g,
    M,
    heat,
    t,
    draws,
    rng,
    energy,
    moved,
):
    """Propose all moves of block g; return moves accepted, products made."""
    # The three calls differ in the class of moves alone.
    a, b = sweep(
        H, F, Z, scale, pairs, ends[g, 0], ends[g + 1, 0], M, heat, t, draws, rng,
        energy, moved,
    )  # fmt: skip
    c, d = sweep(
        H, F, Z, scale, quads, ends[g, 1], ends[g + 1, 1], M, heat, t, draws, rng,
        energy, moved,
    )  # fmt: skip
    e, f = sweep(
        H, F, Z, scale, longer, ends[g, 2], ends[g + 1, 2], M, heat, t, draws, rng,
        energy, moved,
    )  # fmt: skip
    return a + c + e, b + d + f


@jit
def anneal(
    H,
    pairs,
    quads,
    longer,
    ends,
    factors,
    draws,
    scale,
    F,
    Z,
    M,
    heat,
    rng,
    energy,
    best,
    best_Z,
    counts,
):
    """Sweeps over the whole library, one per factor of the lanes' temperatures.

    Parameters
    ----------
    H : float32 [width, width]
    pairs, quads, longer : Moves
    ends : int64 [2, 3]
        Where the moves of the only block begin and end, by class of moves.
    factors : float32 [B]
        Temperatures of the sweeps, in units of the lanes' own.
    draws : float32 [LINES, LANES]
        Random thresholds, exponentially distributed.
    scale : float32 [tiles, width, LANES]
        [tiles, 0, LANES] if it does not vary within a row.
    F, Z : float32 and int8 [tiles, width, LANES]
    M, heat : float32 [tiles, LANES]
        Twice the M of each lane, and its temperature.
    rng : uint64 [tiles, 8]
        Random streams, in the first column.
    energy, best : float64 [tiles, LANES]
        Present and lowest energies, relative to those where the lanes began.
    best_Z : int8 [tiles, width, LANES]
    counts : int64 [tiles, 8]
        Moves accepted; products made; nothing.
    """
    now = np.empty_like(heat)
    for factor in factors:
        for t in range(len(F)):
            for q in range(LANES):
                now[t, q] = heat[t, q] * factor
            a, b = sweep_block(
                H,
                F[t],
                Z[t],
                scale[t],
                pairs,
                quads,
                longer,
                ends,
                0,
                M,
                now,
                t,
                draws,
                rng,
                energy,
                None,
            )
            counts[t, 0] += a
            counts[t, 1] += b
            keep_best(Z, energy, t, best, best_Z)


@jit
def anneal_blocks(
    H,
    pairs,
    quads,
    longer,
    ends,
    factors,
    draws,
    blocks,
    scale,
    F,
    Z,
    M,
    heat,
    rng,
    energy,
    best,
    best_Z,
    counts,
):
    """As `anneal`, with the moves in `Blocks`."""
    variables, bounds, near = blocks.variables, blocks.bounds, blocks.near
    V = near.shape[1]
    now = np.empty_like(heat)
    f, z = np.empty((V, LANES), np.float32), np.empty((V, LANES), np.int8)
    s = np.empty((V if len(pairs.scaled) else 0, LANES), np.float32)
    moved = np.empty((V, LANES), np.float32)
    packed, which = np.empty((V, LANES), np.float32), np.empty(V, np.int64)
    for v in range(V):
        for q in range(LANES):
            f[v, q] = moved[v, q] = ZERO
            if len(pairs.scaled):
                s[v, q] = ZERO
    for factor in factors:
        for t in range(len(F)):
            for q in range(LANES):
                now[t, q] = heat[t, q] * factor
        for g in range(len(near)):
            first, size = bounds[g], bounds[g + 1] - bounds[g]
            for t in range(len(F)):
                for v in range(size):
                    p = variables[first + v]
                    for q in range(UNSIGNED(LANES)):
                        f[v, q] = F[t, p, q]
                        z[v, q] = Z[t, p, q]
                        moved[v, q] = ZERO
                        if len(pairs.scaled):
                            s[v, q] = scale[t, p, q]
                a, _ = sweep_block(
                    near[g],
                    f,
                    z,
                    s,
                    pairs,
                    quads,
                    longer,
                    ends,
                    g,
                    M,
                    now,
                    t,
                    draws,
                    rng,
                    energy,
                    moved,
                )
                if a == 0:
                    continue
                counts[t, 0] += a
                count = 0
                for v in range(size):
                    changed = False
                    for q in range(LANES):
                        changed |= moved[v, q] != ZERO
                    if changed:
                        which[count] = variables[first + v]
                        for q in range(LANES):
                            packed[count, q] = moved[v, q]
                        count += 1
                counts[t, 1] += count
                if len(pairs.scaled):
                    add_product(F[t], H, which, packed, count, scale[t])
                else:
                    add_product(F[t], H, which, packed, count, None)
                for v in range(size):
                    p = variables[first + v]
                    for q in range(UNSIGNED(LANES)):
                        F[t, p, q] = f[v, q]
                        Z[t, p, q] = z[v, q]
        for t in range(len(F)):
            keep_best(Z, energy, t, best, best_Z)
