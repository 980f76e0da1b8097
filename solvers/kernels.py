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
# Variables, and rows, that a sweep takes together (see `anneal`).
BLOCK = 32
TILE = 8


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
def tile(H, y, i, out):
    """``out[a, k] = H[i+a, :i] . y[k, :i]`` for four rows of H and four states.

    Sixteen sums for eight loads keep the arithmetic, not the cache, the limit.
    """
    h0, h1, h2, h3 = H[i], H[i + 1], H[i + 2], H[i + 3]
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = 0.0
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = 0.0
    for j in range(i):
        a, b, c, d = h0[j], h1[j], h2[j], h3[j]
        v = y0[j]
        s00 += a * v
        s10 += b * v
        s20 += c * v
        s30 += d * v
        v = y1[j]
        s01 += a * v
        s11 += b * v
        s21 += c * v
        s31 += d * v
        v = y2[j]
        s02 += a * v
        s12 += b * v
        s22 += c * v
        s32 += d * v
        v = y3[j]
        s03 += a * v
        s13 += b * v
        s23 += c * v
        s33 += d * v
    out[0, 0], out[0, 1], out[0, 2], out[0, 3] = s00, s01, s02, s03
    out[1, 0], out[1, 1], out[1, 2], out[1, 3] = s10, s11, s12, s13
    out[2, 0], out[2, 1], out[2, 2], out[2, 3] = s20, s21, s22, s23
    out[3, 0], out[3, 1], out[3, 2], out[3, 3] = s30, s31, s32, s33


@jit
def energies(H, scale, linear, offset, states, out):
    """Energies of ``states[R, K, n]`` into ``out[R, K]``, in float64.

    Uses the symmetry of H: ``y^T H y = sum_i y_i (2 sum_{j<i} H_ij y_j + H_ii y_i)``,
    half the work of a matrix product, in tiles of four rows of H by four states, a row
    of H being read once for a block of states.
    """
    rows, count, n = states.shape
    total = rows * count
    # A block of states of half a MiB stays in the second-level cache.
    width = max(4, min(128, 4 * (65536 // max(n, 1) // 4)))
    y = np.zeros((width, n))
    value = np.zeros(width)
    sums = np.zeros((4, 4))
    whole = n - n % 4
    for first in range(0, total, width):
        size = min(width, total - first)
        y[:] = 0.0
        for b in range(size):
            r, k = divmod(first + b, count)
            e = offset[r]
            for i in range(n):
                if states[r, k, i]:
                    y[b, i] = scale[r, i]
                    e += linear[r, i] + y[b, i] * y[b, i] * H[i, i]
            value[b] = e
        for i in range(0, whole, 4):
            for b in range(0, size, 4):
                tile(H, y[b : b + 4], i, sums)
                for k in range(4):
                    v = y[b + k]
                    for a in range(4):
                        s = sums[a, k]
                        for j in range(a):
                            s += H[i + a, i + j] * v[i + j]
                        value[b + k] += 2.0 * v[i + a] * s
        for b in range(size):
            for i in range(whole, n):
                s = 0.0
                for j in range(i):
                    s += H[i, j] * y[b, j]
                value[b] += 2.0 * y[b, i] * s
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
def draw_block(z, u, q, r, block, inverse, rng, draws):
    """Draw for every variable of a block; how many might flip, were each the first.

    Vectorised: most blocks of a cold sweep end here.
    """
    seed = rng[r]
    hits = 0
    for k in range(BLOCK):
        draws[k] = to_uniform(seed + np.uint64(k + 1) * GOLDEN)
        cost = (z[r, block, k] + z[r, block, k]) * u[r, block, k] + q[r, block, k]
        x = np.float64(cost) * inverse
        hits += draws[k] * (1.0 + x + 0.5 * x * x) <= 1.0
    rng[r] = seed + np.uint64(BLOCK) * GOLDEN
    return hits


@jit
def add_rows(H, u, r, which, step, count):
    """``u[r] += sum_k step[k] * H[which[k]]``, four terms a pass."""
    width = u.shape[1]
    k = 0
    while k + 4 <= count:
        i0, i1, i2, i3 = which[k], which[k + 1], which[k + 2], which[k + 3]
        a0, a1, a2, a3 = step[k], step[k + 1], step[k + 2], step[k + 3]
        for j in range(width):
            u[r, j] += (a0 * H[i0, j] + a1 * H[i1, j]) + (a2 * H[i2, j] + a3 * H[i3, j])
        k += 4
    if k + 2 <= count:
        i0, i1 = which[k], which[k + 1]
        a0, a1 = step[k], step[k + 1]
        for j in range(width):
            u[r, j] += a0 * H[i0, j] + a1 * H[i1, j]
        k += 2
    if k < count:
        i0, a0 = which[k], step[k]
        for j in range(width):
            u[r, j] += a0 * H[i0, j]


@jit
def sweep_block(H, z, u, q, r, block, inverse, draws, local, which, step):
    """Metropolis proposals to a block of one row: number of flips, energy change.

    Only the local copy of the block's fields follows the flips, which are listed in
    (which, step).
    """
    size = local.shape[0]
    for j in range(size):
        local[j] = u[r, block, j]
    count = 0
    change = 0.0
    for k in range(size):
        a = z[r, block, k]
        cost = np.float64((a + a) * local[k] + q[r, block, k])
        x = cost * inverse
        v = draws[k]
        # 1 - x <= exp(-x) <= 1 / (1 + x + x**2 / 2) decide most draws.
        if v >= 1.0 - x and (v * (1.0 + x + 0.5 * x * x) > 1.0 or v >= math.exp(-x)):
            continue
        i = block * size + k
        for j in range(size):
            local[j] += a * H[i, block, j]
        z[r, block, k] = -a
        which[count] = i
        step[count] = a
        count += 1
        change += cost
    return count, change


@jit
def anneal(H, z, u, q, energy, best, best_energy, beta, rng, flips):
    """Metropolis sweeps over every variable in order, one per column of ``beta[R, B]``.

    Continues from (z, u, energy) in place; keeps in ``best`` (the z) and
    ``best_energy`` the lowest energy seen at the end of a sweep; counts accepted flips
    in ``flips[R]``.

    Within a block of variables a flip updates the fields of that block alone; the other
    fields follow when the block is done, several flips at a time. A tile of rows goes
    through a block together, so that its rows of H are read from the nearest cache.
    """
    rows, width = z.shape
    blocks = width // BLOCK
    H3 = H.reshape(H.shape[0], blocks, BLOCK)
    z3 = z.reshape(rows, blocks, BLOCK)
    u3 = u.reshape(rows, blocks, BLOCK)
    q3 = q.reshape(rows, blocks, BLOCK)
    draws = np.empty(BLOCK)
    local = np.empty(BLOCK, u.dtype)
    which = np.empty(BLOCK, np.int64)
    step = np.empty(BLOCK, u.dtype)
    for tile in range(0, rows, TILE):
        bottom = min(tile + TILE, rows)
        for b in range(beta.shape[1]):
            for k in range(blocks):
                for r in range(tile, bottom):
                    inverse = beta[r, b]
                    if draw_block(z3, u3, q3, r, k, inverse, rng, draws) == 0:
                        continue
                    count, change = sweep_block(
                        H3, z3, u3, q3, r, k, inverse, draws, local, which, step
                    )
                    add_rows(H, u, r, which, step, count)
                    energy[r] += change
                    flips[r] += count
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
