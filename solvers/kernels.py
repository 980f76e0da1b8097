"""Every numba kernel, and nothing else.

All kernels live in this one file because numba's disk cache watches only the file of
the outer function: kernels that call each other from two files can go stale silently.

The search state of one row of a `QuboBatch` is three vectors of the dtype of H:

- ``z = (1 - 2 x) * s``: what flipping each variable adds to ``s * x``; its sign is the
  state (negative: ``x = 1``),
- ``u = H (s * x) + c / (2 s)``: the local fields,
- ``q = s**2 * diag(H)``: infinite for pinned variables, which are so never flipped.

Flipping i changes the energy by ``2 z_i u_i + q_i`` and costs one axpy of a row of H,
whatever the granularity of the scale. Energies are carried in float64.

Kernels run over the rows they are given, one after the other, without the GIL; threads
get slices of rows (`solvers.rows.over_rows`) and every row has a random stream of
its own, so the answer cannot depend on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

jit = njit(cache=True, nogil=True, error_model="numpy")
# Reductions vectorise only where sums may be reordered; nan and inf keep their meaning.
jit_sum = njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"}
)

# The step of splitmix64: a random stream is a counter, so its draws vectorise.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Variables and rows that a sweep takes together, and columns of H that it adds at a
# time (see `anneal`); found by measuring at n = 147 and 576.
BLOCK = 96
TILE = 8
PANEL = 320
# Rows of a walk are padded to a multiple of this: one vector of float32.
LANES = 16
# States whose energies are computed together.
STATES = 64
# Loops over unsigned numbers vectorise from any start: no index can be negative.
UNSIGNED = np.uint64


# ---------------------------------------------------------------- random streams


@jit
def to_uniform(x):
    """The number in [0, 1) at place x of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.float64(np.int64(x >> np.uint64(11))) * (1.0 / 9007199254740992.0)


@jit
def next_uniform(rng, r):
    """Next number in [0, 1) of stream r."""
    rng[r] += GOLDEN
    return to_uniform(rng[r])


@jit
def bernoulli(p, rng, samples):
    """Fill ``samples[R, K, n]`` with independent draws of probability ``p[R, n]``."""
    rows, count, n = samples.shape
    for r in range(rows):
        for k in range(count):
            for i in range(n):
                samples[r, k, i] = next_uniform(rng, r) < p[r, i]


# ---------------------------------------------------------------- energies and fields


@jit_sum
def tile(h, y, i, width, out):
    """``out[k] = sum_a y[k, i + a] (h[a] . y[k])`` for four rows h and four states y.

    Sixteen sums for eight loads keep the arithmetic, not the cache, the limit.
    """
    h0, h1, h2, h3 = h[0], h[1], h[2], h[3]
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = 0.0
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = 0.0
    for j in range(width):
        a, b, c, d = h0[j], h1[j], h2[j], h3[j]
        v = y0[j]
        s00 += a * v
        s01 += b * v
        s02 += c * v
        s03 += d * v
        v = y1[j]
        s10 += a * v
        s11 += b * v
        s12 += c * v
        s13 += d * v
        v = y2[j]
        s20 += a * v
        s21 += b * v
        s22 += c * v
        s23 += d * v
        v = y3[j]
        s30 += a * v
        s31 += b * v
        s32 += c * v
        s33 += d * v
    out[0] = s00 * y0[i] + s01 * y0[i + 1] + s02 * y0[i + 2] + s03 * y0[i + 3]
    out[1] = s10 * y1[i] + s11 * y1[i + 1] + s12 * y1[i + 2] + s13 * y1[i + 3]
    out[2] = s20 * y2[i] + s21 * y2[i + 1] + s22 * y2[i + 2] + s23 * y2[i + 3]
    out[3] = s30 * y3[i] + s31 * y3[i + 1] + s32 * y3[i + 2] + s33 * y3[i + 3]


@jit_sum
def spread(states, scale, linear, r, k, y, b):
    """``y[b] = scale[r] * states[r, k]``; the linear part of the energy."""
    total = 0.0
    for i in range(states.shape[2]):
        x = np.float64(states[r, k, i])
        y[b, i] = scale[r, i] * x
        total += linear[r, i] * x
    return total


@jit
def energies(H, scale, linear, offset, states, out):
    """Energies of ``states[R, K, n]`` into ``out[R, K]``, in float64.

    Uses the symmetry of H: ``y^T H y = sum_i y_i (2 sum_{j<i} H_ij y_j + H_ii y_i)``,
    half the work of a matrix product.
    """
    rows, count, n = states.shape
    total = rows * count
    width = n + -n % 8
    y = np.zeros((STATES, width))
    h = np.zeros((4, width))
    value = np.zeros(STATES)
    part = np.zeros(4)
    for first in range(0, total, STATES):
        size = min(STATES, total - first)
        y[size:] = 0.0
        for b in range(size):
            r, k = divmod(first + b, count)
            value[b] = offset[r] + spread(states, scale, linear, r, k, y, b)
        for i in range(0, n, 4):
            stop = min(i + 4 + -(i + 4) % 8, width)
            for a in range(4):
                for j in range(stop):
                    h[a, j] = 0.0
                if i + a < n:
                    for j in range(i + a):
                        h[a, j] = 2.0 * H[i + a, j]
                    h[a, i + a] = H[i + a, i + a]
            for b in range(0, size, 4):
                tile(h, y[b : b + 4], i, stop, part)
                for k in range(4):
                    value[b + k] += part[k]
        for b in range(size):
            r, k = divmod(first + b, count)
            out[r, k] = value[b]


@jit
def fields(H, scale, linear, states, out):
    """Local fields ``H (s * x) + c / (2 s)`` of ``states[R, n]`` into ``out[R, n]``.

    Rows run in the inner loop, so that a row of H is read once for all of them.
    """
    rows, n = states.shape
    for r in range(rows):
        for i in range(n):
            out[r, i] = linear[r, i] / (2.0 * scale[r, i])
    for i in range(n):
        for r in range(rows):
            if states[r, i]:
                s = scale[r, i]
                for j in range(n):
                    out[r, j] += s * H[i, j]


# ---------------------------------------------------------------- single-flip search


@jit_sum
def draw_block(z, u, q, r, first, last, inverse, rng, draws):
    """Draw for every variable of a block; how many might flip, were each the first.

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


@jit
def sweep_block(H, z, u, q, r, first, last, inverse, draws, which, step):
    """Metropolis proposals to a block of one row: number of flips, energy change.

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
        # 1 - x <= exp(-x) <= 1 / (1 + x + x**2 / 2) decide most draws.
        # Written so that NaN, an infinite q at beta = 0, is a refusal.
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


@jit
def add_rows(H, u, r, which, step, t, count, first, last):
    """``u[r] += sum_k step[t, k] * H[which[t, k]]`` from first to last.

    Four terms a pass: u is read and written once for all of them.
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

    Continues from (z, u, energy) in place; keeps in ``best`` (the z) and
    ``best_energy`` the lowest energy seen at the end of a sweep; counts accepted flips
    in ``flips[R]``.

    Within a block of variables a flip updates the fields of that block alone. When a
    tile of rows is through the block, the other fields follow, several flips at a time
    and panel by panel of H, which so stays in the nearest cache for all of the tile.
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


@jit
def descend(H, z, u, q, energy, flips):
    """Steepest one-flip descent to a local optimum, in place.

    z, u and q are float64 whatever H is. A flip must gain more than their rounding
    noise, so that two flips cannot undo each other for ever.
    """
    rows, width = z.shape
    for r in range(rows):
        noise = 0.0
        for i in range(width):
            if q[r, i] < np.inf:
                noise = max(noise, abs(2.0 * z[r, i] * u[r, i]) + abs(q[r, i]))
        noise *= 1e-13
        while True:
            smallest, at = -noise, -1
            for i in range(width):
                cost = 2.0 * z[r, i] * u[r, i] + q[r, i]
                if cost < smallest:
                    smallest, at = cost, i
            if at < 0:
                break
            a = z[r, at]
            for j in range(width):
                u[r, j] += a * H[at, j]
            z[r, at] = -a
            energy[r] += smallest
            flips[r] += 1
