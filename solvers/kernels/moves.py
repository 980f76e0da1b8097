"""Short vectors with entries -1, 0 and 1 in the lattice with Gram matrix H."""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import jit

UNSIGNED = np.uint64


@jit
def pair_lengths(H, rows, live, out):
    """Length of the shorter of each row's two pairs with every other live variable.

    Returns their number; the first entries of `out` hold them.
    """
    count = 0
    for i in rows:
        for j in range(len(H)):
            if live[i] and live[j] and j != i:
                out[count] = H[i, i] + H[j, j] - 2.0 * abs(H[i, j])
                count += 1
    return count


@jit
def pairs_below(H, live, limit, which, sign, length):
    """Find pairs ``e_i -+ e_j`` no longer than `limit`, at most ``len(which)``.

    Returns their number.
    """
    count = 0
    for i in range(len(H)):
        if not live[i]:
            continue
        for j in range(i + 1, len(H)):
            h = H[i, i] + H[j, j] - 2.0 * abs(H[i, j])
            if h <= limit and live[j] and count < len(which):
                which[count, 0], which[count, 1] = i, j
                sign[count, 0] = 1
                sign[count, 1] = -1 if H[i, j] > 0.0 else 1
                length[count] = h
                count += 1
    return count


@jit
def shortest_sums(H, others, signs, lengths, which, sign, length, partner, way, sums):
    """Find, for each vector a, its shortest sums and differences with the others.

    Vectors that share a variable with a are left out.

    Parameters
    ----------
    H : [n, n]
        The Gram matrix.
    others : int32 [width, m]
        The variables of the other vectors, padded with n.
    signs : float64 [width, m]
        Their entries, padded with 0.
    lengths : float64 [m]
        Their lengths.
    which, sign, length : int32 [A, width], int8 [A, width], float64 [A]
        The vectors a, padded with -1.
    partner : int32 [A, count]
        For the indices of the others in the `count` shortest sums of each vector, the
        shortest first; what is not found stays as it is.
    way : int8 [A, count]
        For 1 where the sum is short, and -1 where the difference is.
    sums : float64 [A, count]
        For the lengths of the sums.
    """
    n, m, most = len(H), len(lengths), sums.shape[1]
    product, overlap = np.zeros(n + 1), np.empty(m)
    for a in range(len(which)):
        product[:n] = 0.0
        for k in range(which.shape[1]):
            if which[a, k] >= 0:
                s = float(sign[a, k])
                for p in range(UNSIGNED(n)):
                    product[p] += s * H[which[a, k], p]
        # Vectors with a common variable get NaN, which no comparison lets pass.
        for k in range(which.shape[1]):
            if which[a, k] >= 0:
                product[which[a, k]] = np.nan
        for b in range(UNSIGNED(m)):
            overlap[b] = signs[0, b] * product[others[0, b]]
        for k in range(1, len(others)):
            for b in range(UNSIGNED(m)):
                overlap[b] += signs[k, b] * product[others[k, b]]
        found, limit = 0, np.inf
        for b in range(m):
            h = length[a] + lengths[b] - 2.0 * abs(overlap[b])
            if not h < limit:
                continue
            place = min(found, most - 1)
            while place > 0 and sums[a, place - 1] > h:
                sums[a, place] = sums[a, place - 1]
                partner[a, place] = partner[a, place - 1]
                way[a, place] = way[a, place - 1]
                place -= 1
            sums[a, place], partner[a, place] = h, b
            way[a, place] = -1 if overlap[b] > 0.0 else 1
            found = min(found + 1, most)
            if found == most:
                limit = sums[a, most - 1]


@jit
def partition(which, order, most, n, block):
    """Cut the moves, in the given order, into blocks of at most `most` variables.

    Move m's block is ``block[m]``; returns the number of blocks.
    """
    seen = np.full(n, -1)
    g, size = 0, 0
    for m in order:
        count, new = 0, 0
        for i in which[m]:
            if i >= 0:
                count += 1
                new += seen[i] != g
        if size + new > most:
            g += 1
            size, new = 0, count
        size += new
        for i in which[m]:
            if i >= 0:
                seen[i] = g
        block[m] = g
    return g + 1


@jit
def depths(which, n, depth):
    """``depth[m]``: the least number of earlier moves of any variable of move m."""
    count = np.zeros(n, np.int64)
    for m in range(len(which)):
        depth[m] = len(which)
        for i in which[m]:
            if i >= 0:
                depth[m] = min(depth[m], count[i])
                count[i] += 1
