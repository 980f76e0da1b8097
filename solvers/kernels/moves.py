"""Short vectors with entries -1, 0 and 1 in the lattice with Gram matrix H."""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inner, jit

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


@inner
def open_vector(H, which, sign, a, product, inside):
    """``product = H v`` for vector a; mark the vector's variables in `inside`."""
    for p in range(len(H)):
        product[p] = 0.0
    for k in range(which.shape[1]):
        i = which[a, k]
        if i < 0:
            break
        inside[i] = True
        s = float(sign[a, k])
        for p in range(UNSIGNED(len(H))):
            product[p] += s * H[i, p]


@inner
def overlap(product, inside, which, sign, b):
    """``v_a^T H v_b``; NaN if the two vectors share a variable."""
    total = 0.0
    for k in range(which.shape[1]):
        j = which[b, k]
        if j < 0:
            break
        if inside[j]:
            return np.nan
        total += sign[b, k] * product[j]
    return total


@jit
def sum_lengths(H, which, sign, length, rows, others, signs, lengths, out):
    """Lengths of the shorter of ``v_a +- v_b``, for a in `rows` and b among the others.

    Returns their number; the first entries of `out` hold them.
    """
    product, inside = np.zeros(len(H)), np.zeros(len(H), np.bool_)
    count = 0
    for a in rows:
        open_vector(H, which, sign, a, product, inside)
        for b in range(len(others)):
            x = overlap(product, inside, others, signs, b)
            if x == x:
                out[count] = length[a] + lengths[b] - 2.0 * abs(x)
                count += 1
        for k in range(which.shape[1]):
            if which[a, k] >= 0:
                inside[which[a, k]] = False
    return count


@jit
def sums_below(
    H,
    which,
    sign,
    length,
    others,
    signs,
    lengths,
    same,
    limit,
    found,
    found_sign,
    found_length,
):
    """Find sums and differences up to `limit` long of vectors with no common variable.

    `same` says that the others are the vectors themselves: each two are taken once.
    Returns the number found, at most ``len(found)``.
    """
    product, inside = np.zeros(len(H)), np.zeros(len(H), np.bool_)
    count = 0
    for a in range(len(which)):
        open_vector(H, which, sign, a, product, inside)
        for b in range(a + 1 if same else 0, len(others)):
            x = overlap(product, inside, others, signs, b)
            h = length[a] + lengths[b] - 2.0 * abs(x)
            # Written so that NaN is refused.
            if not h <= limit or count == len(found):
                continue
            way = -1 if x > 0.0 else 1
            at = 0
            for k in range(which.shape[1]):
                if which[a, k] >= 0:
                    found[count, at], found_sign[count, at] = which[a, k], sign[a, k]
                    at += 1
            for k in range(others.shape[1]):
                if others[b, k] >= 0:
                    found[count, at] = others[b, k]
                    found_sign[count, at] = way * signs[b, k]
                    at += 1
            found_length[count] = h
            count += 1
        for k in range(which.shape[1]):
            if which[a, k] >= 0:
                inside[which[a, k]] = False
    return count


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
