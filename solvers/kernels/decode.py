"""Lattice decoding: one variable after the other, in the coordinates of a factor.

With ``H' = F F^T``, F upper triangular, the energy of ``y = s * x`` is
``|F^T y - v|^2`` up to a constant. Term j depends on ``y[0] .. y[j]`` alone: variables
are decided in their order, and each decision moves the centres of the later ones.

Variables are decided in blocks: a row's residuals of a block are computed when the
block's turn comes, by one product of the row's earlier decisions with a panel of F that
all rows share, instead of being kept up to date over the whole row. Rows are
independent and each sum has one order, so an answer does not depend on what else is
decoded.
"""

from __future__ import annotations

import math

import numpy as np

from solvers.kernels.compile import inlined, inner, inner_sum, jit, minimum
from solvers.kernels.streams import GOLDEN, to_uniform

# Variables of a block: as many as a word has bits.
BLOCK = 64
# Loops over unsigned numbers vectorise from any start: no index can be negative.
UNSIGNED = np.uint64
ONE = np.uint64(1)


@inner
def take_panel(M, first, last, left, panel):
    """``panel[first:last] = M[first:last, left : left + BLOCK]``, cut at M's end."""
    width = min(BLOCK, M.shape[1] - left)
    for j in range(first, last):
        for i in range(width):
            panel[j, i] = M[j, left + i]


@inner
def look_back(panel, y, r, first, last, residual):
    """``residual -= sum_j y[r, j] * panel[j]`` for j from first to last."""
    j = first
    while j + 4 <= last:
        a, b, c, d = y[r, j], y[r, j + 1], y[r, j + 2], y[r, j + 3]
        for i in range(BLOCK):
            residual[i] -= (a * panel[j, i] + b * panel[j + 1, i]) + (
                c * panel[j + 2, i] + d * panel[j + 3, i]
            )
        j += 4
    while j < last:
        a = y[r, j]
        for i in range(BLOCK):
            residual[i] -= a * panel[j, i]
        j += 1


@jit
def solve_upper(lower, b, v):
    """Solve ``F v[r] = b[r]`` for every row; `lower` is F^T."""
    rows, n = b.shape
    panel = np.zeros((n, BLOCK))
    residual = np.zeros(BLOCK)
    for first in range((n - 1) // BLOCK * BLOCK, -1, -BLOCK):
        last = min(first + BLOCK, n)
        take_panel(lower, first, n, first, panel)
        for r in range(rows):
            for i in range(last - first):
                residual[i] = b[r, first + i]
            look_back(panel, v, r, last, n, residual)
            for j in range(last - 1, first - 1, -1):
                a = residual[j - first] / panel[j, j - first]
                v[r, j] = a
                for i in range(j - first):
                    residual[i] -= a * panel[j, i]


@jit
def nearest_plane(F, v, scale, low, high, beta, rng, states):
    """Decide each variable by its centre, given earlier decisions: ``states[R, n]``.

    x is one of the two grid points in [low, high] about the centre, with probabilities
    proportional to ``exp(-beta * cost)``: the nearer one if beta is infinite (a tie
    goes down).
    """
    rows, n = v.shape
    panel = np.zeros((n, BLOCK))
    residual = np.zeros(BLOCK)
    y = np.zeros((rows, n))
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        take_panel(F, 0, last, first, panel)
        for r in range(rows):
            for i in range(last - first):
                residual[i] = v[r, first + i]
            look_back(panel, y, r, 0, first, residual)
            for j in range(first, last):
                x = np.float64(low[r, j])
                if low[r, j] < high[r, j]:
                    step = panel[j, j - first] * scale[r, j]
                    centre = residual[j - first] / step
                    x = max(min(math.floor(centre), high[r, j] - 1.0), x)
                    # A tie at an infinite beta is NaN here, and goes down.
                    gain = beta[r] * (step * step * (1.0 - 2.0 * (centre - x)))
                    u = to_uniform(rng[r] + UNSIGNED(j + 1) * GOLDEN)
                    x += u * (1.0 + math.exp(gain)) < 1.0
                states[r, j] = x
                y[r, j] = scale[r, j] * x
                for i in range(UNSIGNED(j - first + 1), UNSIGNED(last - first)):
                    residual[i] -= y[r, j] * panel[j, i]
    for r in range(rows):
        rng[r] += UNSIGNED(n) * GOLDEN


@inlined
def open_block(panel, residual, words, parents, scale, r, block, count, u):
    """Residuals ``u[count, BLOCK]`` of a block for every path.

    `residual` is that of path 0. Other paths differ from path 0 in a few decisions, and
    in none before the block in which they part.
    """
    for k in range(count):
        for i in range(BLOCK):
            u[k, i] = residual[i]
        parents[r, block, k] = k
        words[r, block, k] = UNSIGNED(0)
        p, q = k, 0
        for b in range(block - 1, -1, -1):
            if p == q:
                break
            word = words[r, b, p]
            other = word ^ words[r, b, q]
            j = b * BLOCK
            while other:
                if other & ONE:
                    a = scale[r, j]
                    if word & ONE:
                        a = -a
                    for i in range(BLOCK):
                        u[k, i] += a * panel[j, i]
                other >>= ONE
                word >>= ONE
                j += 1
            p, q = parents[r, b, p], parents[r, b, q]


@inner
def write_line(words, parents, r, block, k, n, bits):
    """Write the decisions before `block` of the block's path k into ``bits[r, :n]``."""
    for b in range(block - 1, -1, -1):
        word = words[r, b, k]
        for j in range(b * BLOCK, min((b + 1) * BLOCK, n)):
            bits[r, j] = word & ONE
            word >>= ONE
        k = parents[r, b, k]


@inner_sum
def branch(u, cost, r, i, step, count, near, far, up):
    """Costs of both children of every path, by variable i; range of the nearer ones'.

    ``near[k]`` and ``far[k]`` are the costs of path k's children with the nearer and
    the farther value, ``up[k]`` is whether the nearer value is 1. Returns the least and
    the greatest of ``near``.
    """
    least, worst = np.inf, np.inf
    for k in range(count):
        a = u[k, i]
        b = a - step
        up[k] = a + a > step
        a *= a
        b *= b
        lower = minimum(a, b)
        x = cost[r, k] + lower
        near[k] = x
        far[k] = cost[r, k] + (a + b - lower)
        least = minimum(least, x)
        worst = minimum(worst, -x)
    return least, -worst


@inlined
def select(near, far, count, paths, least, most):
    """Make all costs infinite but the `paths` lowest, which lie in [least, most].

    The highest cost that is kept is found by bisection: counting vectorises, sorting
    does not. Of equal costs, those of nearer children are kept first.
    """
    # The lower end is below every cost.
    low, high = min(least - (most - least), np.nextafter(least, -np.inf)), most
    below = 0
    while True:
        middle = low + 0.5 * (high - low)
        if not low < middle < high:
            break
        total = 0
        for k in range(count):
            total += near[k] <= middle
            total += far[k] <= middle
        if total > paths:
            high = middle
        else:
            low, below = middle, total
            if total == paths:
                break
    # All costs up to `low` are kept; no cost lies strictly between `low` and `high`.
    left = paths - below
    for costs in (near, far):
        for k in range(count):
            if costs[k] > low:
                if costs[k] == high and left > 0:
                    left -= 1
                else:
                    costs[k] = np.inf


@inlined
def extend(u, cost, words, parents, near, far, up, vacant, r, block, i, count, s, row):
    """Replace the paths by the children of finite cost; return how many there are.

    A far child goes where a path has ended, or to a new place, before the near child
    takes its parent's place. `row` is the variable's row of F in the block, s the
    variable's scale.
    """
    empty = 0
    for k in range(count):
        if near[k] == np.inf:
            vacant[empty] = k
            empty += 1
    first, total = UNSIGNED(i + 1), count
    on = ONE << UNSIGNED(i)
    for k in range(count):
        if far[k] < np.inf:
            target = total
            if empty > 0:
                empty -= 1
                target = vacant[empty]
            else:
                total += 1
            cost[r, target] = far[k]
            parents[r, block, target] = parents[r, block, k]
            word = words[r, block, k]
            words[r, block, target] = word if up[k] else word | on
            a = 0.0 if up[k] else s
            for l in range(first, UNSIGNED(BLOCK)):
                u[target, l] = u[k, l] - a * row[l]
        if near[k] < np.inf:
            cost[r, k] = near[k]
            if up[k]:
                words[r, block, k] |= on
                for l in range(first, UNSIGNED(BLOCK)):
                    u[k, l] -= s * row[l]
    return total


@jit
def k_best(F, paths, v, scale, low, high, states):
    """K-best search: keep `paths` paths per variable; the best into ``states[R, n]``.

    A path's decisions within a block are the bits of a word. The words, and the parents
    of the paths at the end of each block, make up the tree.
    """
    rows, n = v.shape
    blocks = (n + BLOCK - 1) // BLOCK
    panel = np.zeros((n, BLOCK))
    residual = np.zeros(BLOCK)
    words = np.zeros((rows, blocks, paths), np.uint64)
    parents = np.zeros((rows, blocks, paths), np.int32)
    counts = np.ones(rows, np.int64)
    cost = np.zeros((rows, paths))
    y = np.zeros((rows, n))
    u = np.zeros((paths, BLOCK))
    near, far = np.zeros(paths), np.zeros(paths)
    up = np.zeros(paths, np.bool_)
    vacant = np.zeros(paths, np.int64)
    for block in range(blocks):
        first = block * BLOCK
        last = min(first + BLOCK, n)
        take_panel(F, 0, last, first, panel)
        for r in range(rows):
            write_line(words, parents, r, block, 0, n, y)
            for j in range(first):
                y[r, j] *= scale[r, j]
            for j in range(first, last):
                residual[j - first] = v[r, j]
            look_back(panel, y, r, 0, first, residual)
            count = counts[r]
            open_block(panel, residual, words, parents, scale, r, block, count, u)
            for j in range(first, last):
                i = j - first
                least, most = branch(
                    u, cost, r, i, panel[j, i] * scale[r, j], count, near, far, up
                )
                if low[r, j] == high[r, j]:
                    for k in range(count):
                        if up[k] != low[r, j]:
                            near[k], up[k] = far[k], low[r, j]
                        far[k] = np.inf
                elif 2 * count > paths:
                    if count < paths:
                        most = far[0]
                        for k in range(1, count):
                            most = max(most, far[k])
                    select(near, far, count, paths, least, most)
                s = scale[r, j]
                count = extend(
                    u,
                    cost,
                    words,
                    parents,
                    near,
                    far,
                    up,
                    vacant,
                    r,
                    block,
                    i,
                    count,
                    s,
                    panel[j],
                )
            counts[r] = count
    for r in range(rows):
        best = cost[r, : counts[r]].argmin()
        write_line(words, parents, r, blocks, best, n, states)


@inlined
def exchange(A, W, diagonal, order, k, p):
    """Exchange variables k < p, not yet eliminated, in the upper triangle of A."""
    n = len(order)
    for i in range(k + 1, p):
        A[k, i], A[i, p] = A[i, p], A[k, i]
    for i in range(p + 1, n):
        A[k, i], A[p, i] = A[p, i], A[k, i]
    for m in range(len(W)):
        W[m, k], W[m, p] = W[m, p], W[m, k]
    diagonal[k], diagonal[p] = diagonal[p], diagonal[k]
    order[k], order[p] = order[p], order[k]


@jit
def pivot_block(A, first, last, diagonal, order, W):
    """Eliminate rows first to last of A by Cholesky, the least pivot first.

    Row m of ``W[BLOCK, n]`` becomes row first + m of the factor. Only the upper
    triangle of A is read, which lacks the updates of this block. Returns false if a
    pivot is not positive.
    """
    n = len(order)
    for k in range(first, last):
        p = k + diagonal[k:].argmin()
        if p > k:
            exchange(A, W, diagonal, order, k, p)
        if not diagonal[k] > 0.0:
            return False
        m = k - first
        start, stop = UNSIGNED(k + 1), UNSIGNED(n)
        for i in range(start, stop):
            W[m, i] = A[k, i]
        for l in range(m):
            a = W[l, k]
            for i in range(start, stop):
                W[m, i] -= a * W[l, i]
        a = 1.0 / math.sqrt(diagonal[k])
        for i in range(start, stop):
            W[m, i] *= a
            diagonal[i] -= W[m, i] * W[m, i]
    return True
