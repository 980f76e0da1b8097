"""Metropolis sweeps of single flips."""

from __future__ import annotations

import math

import numpy as np

from solvers.kernels.compile import inner, inner_sum, jit
from solvers.kernels.streams import GOLDEN, to_uniform

# Variables (BLOCK) and rows (TILE) that a sweep takes together, and columns of H that
# it adds at a time (PANEL; see `anneal`); found by measuring at n = 147 and 576.
BLOCK = 96
TILE = 8
PANEL = 320
# Rows of a walk are padded to a multiple of this: one vector of float32.
LANES = 16
# Loops over unsigned numbers vectorise from any start: no index can be negative.
UNSIGNED = np.uint64


@inner_sum
def draw_block(z, u, q, r, first, last, inverse, rng, draws):
    """Draw for every variable of a block; return how many might flip as the first one.

    Vectorised: most blocks of a cold sweep end here.
    """
    seed = rng[r]
    hits = 0
    for k in range(UNSIGNED(0), last - first):
        i = first + k
        draws[k] = to_uniform(seed + (k + UNSIGNED(1)) * GOLDEN)
        x = np.float64((z[r, i] + z[r, i]) * u[r, i] + q[r, i]) * inverse
        x = max(x, 0.0)
        hits += draws[k] * (1.0 + x + 0.5 * x * x) <= 1.0
    rng[r] = seed + (last - first) * GOLDEN
    return hits


@inner
def sweep_block(H, z, u, q, r, first, last, inverse, draws, which, step):
    """Metropolis proposals to a block of one row; return flips made, energy change.

    Only the block's own fields follow the flips, which are listed in (which, step).
    """
    count = 0
    change = 0.0
    for k in range(UNSIGNED(0), last - first):
        i = first + k
        a = z[r, i]
        cost = np.float64((a + a) * u[r, i] + q[r, i])
        x = cost * inverse
        v = draws[k]
        # The bounds 1 - x <= exp(-x) <= 1 / (1 + x + x**2 / 2) decide most draws.
        # Written so that NaN, which an infinite q gives at beta = 0, is a refusal.
        if not (
            v < 1.0 - x or (v * (1.0 + x + 0.5 * x * x) <= 1.0 and v < math.exp(-x))
        ):
            continue
        for j in range(first, last):
            u[r, j] += a * H[i, j]
        z[r, i] = -a
        which[count] = i
        step[count] = a
        count += 1
        change += cost
    return count, change


@inner
def add_rows(H, u, r, which, step, t, count, first, last):
    """``u[r] += sum_k step[t, k] * H[which[t, k]]`` in columns first to before last.

    Four terms are added per pass: u is read and written once for all of them.
    """
    k = 0
    while k + 4 <= count:
        i0, i1, i2, i3 = which[t, k], which[t, k + 1], which[t, k + 2], which[t, k + 3]
        a0, a1, a2, a3 = step[t, k], step[t, k + 1], step[t, k + 2], step[t, k + 3]
        for j in range(first, last):
            u[r, j] += (a0 * H[i0, j] + a1 * H[i1, j]) + (a2 * H[i2, j] + a3 * H[i3, j])
        k += 4
    if k + 2 <= count:
        i0, i1 = which[t, k], which[t, k + 1]
        a0, a1 = step[t, k], step[t, k + 1]
        for j in range(first, last):
            u[r, j] += a0 * H[i0, j] + a1 * H[i1, j]
        k += 2
    if k < count:
        i0, a0 = which[t, k], step[t, k]
        for j in range(first, last):
            u[r, j] += a0 * H[i0, j]


@jit
def anneal(H, z, u, q, energy, best, best_energy, beta, rng, flips):
    """Metropolis sweeps over every variable in order, one per column of ``beta[R, B]``.

    Continues from (z, u, energy) in place. The lowest energy at the end of a sweep is
    kept in ``best_energy``, its z in ``best``; accepted flips are counted in
    ``flips[R]``.

    Within a block of variables, a flip updates the fields of that block alone. When all
    rows of a tile are through the block, the other fields follow, several flips at a
    time and panel by panel of H, so that a panel stays in the nearest cache for all
    rows of the tile.
    """
    rows, width = z.shape
    draws = np.empty(BLOCK)
    counts = np.zeros(TILE, np.int64)
    which = np.empty((TILE, BLOCK), np.uint64)
    step = np.empty((TILE, BLOCK), u.dtype)
    for tile in range(0, rows, TILE):
        bottom = min(tile + TILE, rows)
        for b in range(beta.shape[1]):
            for first in range(UNSIGNED(0), UNSIGNED(width), UNSIGNED(BLOCK)):
                last = min(first + UNSIGNED(BLOCK), UNSIGNED(width))
                for r in range(tile, bottom):
                    counts[r - tile] = 0
                    if draw_block(z, u, q, r, first, last, beta[r, b], rng, draws) == 0:
                        continue
                    count, change = sweep_block(
                        H,
                        z,
                        u,
                        q,
                        r,
                        first,
                        last,
                        beta[r, b],
                        draws,
                        which[r - tile],
                        step[r - tile],
                    )
                    energy[r] += change
                    flips[r] += count
                    counts[r - tile] = count
                for left in range(UNSIGNED(0), UNSIGNED(width), UNSIGNED(PANEL)):
                    right = min(left + UNSIGNED(PANEL), UNSIGNED(width))
                    for r in range(tile, bottom):
                        t = r - tile
                        if counts[t]:
                            add_rows(
                                H,
                                u,
                                r,
                                which,
                                step,
                                t,
                                counts[t],
                                left,
                                min(right, first),
                            )
                            add_rows(
                                H,
                                u,
                                r,
                                which,
                                step,
                                t,
                                counts[t],
                                max(left, last),
                                right,
                            )
            for r in range(tile, bottom):
                if energy[r] < best_energy[r]:
                    best_energy[r] = energy[r]
                    for i in range(width):
                        best[r, i] = z[r, i]
