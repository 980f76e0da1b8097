"""Recombination of two states: what they disagree about is decided anew."""

from __future__ import annotations

import math

import numpy as np

from solvers.kernels.compile import inlined, inner_sum, jit
from solvers.kernels.decode import k_best
from solvers.kernels.streams import GOLDEN, to_bits

UNSIGNED = np.uint64


@inlined
def disagreement(a, b, c, most, rng, chosen):
    """Choose a random run of at most `most` variables in which states a and b differ.

    Returns their number.
    """
    count = 0
    for i in range(a.shape[1]):
        count += a[c, i] != b[c, i]
    rng[c] += GOLDEN
    excess = UNSIGNED(max(count - most, 0) + 1)
    skip = np.int64(to_bits(rng[c]) % excess)
    at = 0
    for i in range(a.shape[1]):
        if a[c, i] != b[c, i]:
            if skip <= at < skip + most:
                chosen[at - skip] = i
            at += 1
    return min(count, most)


@inner_sum
def pull(H, i, y):
    """``H[i] . y``."""
    total = 0.0
    for j in range(UNSIGNED(len(y))):
        total += H[i, j] * y[j]
    return total


@inlined
def eliminate(A, order):
    """Cholesky in place, the least pivot first: ``A[order][:, order] = U^T U``.

    U is left in the upper triangle. Returns false if a pivot is not positive.
    """
    m = len(A)
    for k in range(m):
        p = k
        for i in range(k + 1, m):
            if A[i, i] < A[p, p]:
                p = i
        if p != k:
            order[k], order[p] = order[p], order[k]
            for j in range(m):
                A[k, j], A[p, j] = A[p, j], A[k, j]
            for j in range(m):
                A[j, k], A[j, p] = A[j, p], A[j, k]
        if not A[k, k] > 0.0:
            return False
        root = 1.0 / math.sqrt(A[k, k])
        for j in range(k, m):
            A[k, j] *= root
        for i in range(k + 1, m):
            a = A[k, i]
            for j in range(UNSIGNED(k + 1), UNSIGNED(m)):
                A[i, j] -= a * A[k, j]
    return True


@inlined
def energy_of(A, u, scale, states):
    """``y^T A y + 2 u . y`` for ``y = scale * states``."""
    total = 0.0
    for i in range(len(u)):
        if states[i]:
            row = 0.0
            for j in range(len(u)):
                if states[j]:
                    row += A[i, j] * scale[j]
            total += scale[i] * (row + 2.0 * u[i])
    return total


@jit
def recombine(H, paths, most, damping, a, b, scale, linear, rng, children):
    """Children [C, n] of states a and b [C, n], by K-best search.

    Variables in which a and b agree keep their values. The others are decided one after
    the other, the least pivot last, as in `solvers.decoders.factor`; a child is no
    worse than a.

    Parameters
    ----------
    paths
        Number of paths of the search.
    most
        Largest number of variables that are decided anew.
    damping
        Added to the diagonal, as a share of its mean; if the matrix is not positive
        definite, ten times as much is tried, and so on.
    scale, linear : float64 [C, n]
    rng : uint64 [C]
    """
    count, n = a.shape
    chosen = np.empty(most, np.int64)
    y = np.empty(n)
    for c in range(count):
        for i in range(n):
            children[c, i] = a[c, i]
            y[i] = scale[c, i] * a[c, i]
        m = disagreement(a, b, c, most, rng, chosen)
        if m < 2:
            continue
        A, u, s = np.empty((m, m)), np.empty(m), np.empty(m)
        old = np.empty(m, np.uint8)
        mean = 0.0
        for k in range(m):
            i = chosen[k]
            s[k], old[k] = scale[c, i], a[c, i]
            y[i] = 0.0
            mean += abs(H[i, i]) / m
            for l in range(m):
                A[k, l] = H[i, chosen[l]]
        if mean == 0.0:
            for k in range(m):
                for l in range(m):
                    mean += abs(A[k, l])
            mean /= m
        for k in range(m):
            i = chosen[k]
            u[k] = pull(H, i, y) + linear[c, i] / (2.0 * s[k])
        share = damping
        order, U = np.empty(m, np.int64), np.empty((m, m))
        while True:
            d = share * mean
            for k in range(m):
                order[k] = k
                for l in range(m):
                    U[k, l] = A[k, l]
                U[k, k] += d
            if eliminate(U, order):
                break
            share *= 10.0
            if share > 1e6:
                break
        if share > 1e6:
            continue
        # The variable eliminated last is decided first.
        F, v = np.empty((m, m)), np.empty((1, m))
        sorted_scale = np.empty((1, m))
        for k in range(m):
            at = order[m - 1 - k]
            sorted_scale[0, k] = s[at]
            v[0, k] = 0.5 * d * s[at] - u[at]
            for l in range(k):
                F[k, l] = 0.0
            for l in range(k, m):
                F[k, l] = U[m - 1 - l, m - 1 - k]
        for k in range(m - 1, -1, -1):
            v[0, k] /= F[k, k]
            for l in range(k):
                v[0, l] -= F[l, k] * v[0, k]
        low, high = np.empty((1, m), np.int16), np.empty((1, m), np.int16)
        for k in range(m):
            low[0, k], high[0, k] = 0, 1
        found = np.empty((1, m), np.uint8)
        k_best(F, paths, v, sorted_scale, low, high, found)
        new = np.empty(m, np.uint8)
        for k in range(m):
            new[order[m - 1 - k]] = found[0, k]
        if energy_of(A, u, s, new) < energy_of(A, u, s, old):
            for k in range(m):
                children[c, chosen[k]] = new[k]
