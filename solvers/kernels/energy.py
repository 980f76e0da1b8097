"""Energies and local fields of given states."""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inner_sum, jit

# States whose energies are computed together.
STATES = 64


@inner_sum
def tile(h, y, i, width, out):
    """``out[k] = sum_a y[k, i + a] (h[a] . y[k])`` for four rows h and four states y.

    With sixteen sums for eight loads, arithmetic is the limit and not the cache.
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


@inner_sum
def spread(states, scale, linear, r, k, y, b):
    """``y[b] = scale[r] * states[r, k]``; returns the linear part of the energy."""
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
    y, h = np.empty((STATES, width)), np.empty((4, width))
    value, part = np.empty(STATES), np.empty(4)
    for b in range(STATES):
        for i in range(n, width):
            y[b, i] = 0.0
    for first in range(0, total, STATES):
        size = min(STATES, total - first)
        for b in range(size, STATES):
            for i in range(n):
                y[b, i] = 0.0
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
