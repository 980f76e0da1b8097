"""Gradient descent on relaxed states, in float32.

Matrix products are computed as dot products in tiles of four rows by four variables: a
row's sums are in the same order whatever rows stand beside it, so its bits depend on no
other row and not on the number of threads, which no BLAS promises. On matrices of the
sizes of layers this takes about as long as BLAS.

Positions are relative to a point ``p``: with ``y = s (x - p)`` the gradient of the
energy is ``2 s (H y) + c``, where c is the gradient at p. Padded columns hold zeros.
"""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import jit, jit_sum

# Rows that stay in the second-level cache while the matrix streams by.
ROWS = 16
# Columns of the arrays are padded to multiples of this, the widest vector of float32.
LANES = 16

F = np.float32
ZERO, HALF, ONE, TWO = F(0), F(0.5), F(1), F(2)
LOG2_E = F(np.log2(np.e))
ADAM_FIRST, ADAM_SECOND, ADAM_EPS = F(1 - 0.9), F(1 - 0.999), F(1e-8)
TINY = F(1e-30)
# The pattern of sqrt(1/2), where the logarithm's polynomial changes to the next power
# of two.
ROOT_HALF = np.int32(0x3F3504F3)


@jit_sum
def exp2(x):
    """``2**x``, with a relative error of 1e-7; Cephes' polynomial, which vectorises."""
    x = min(max(x, F(-126)), F(126))
    whole = np.int32(np.floor(x + HALF))
    f = x - F(whole)
    p = F(1.535336188319500e-4)
    p = p * f + F(1.339887440266574e-3)
    p = p * f + F(9.618437357674640e-3)
    p = p * f + F(5.550332471162809e-2)
    p = p * f + F(2.402264791363012e-1)
    p = p * f + F(6.931472028550421e-1)
    p = p * f + ONE
    return p * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@jit_sum
def log2(x):
    """Base-2 logarithm of a positive normal number, to 4e-7; Cephes' polynomial."""
    bits = F(x).view(np.int32)
    power = (bits - ROOT_HALF) >> np.int32(23)
    f = np.int32(bits - (power << np.int32(23))).view(np.float32) - ONE
    p = F(7.0376836292e-2)
    p = p * f - F(1.1514610310e-1)
    p = p * f + F(1.1676998740e-1)
    p = p * f - F(1.2420140846e-1)
    p = p * f + F(1.4249322787e-1)
    p = p * f - F(1.6668057665e-1)
    p = p * f + F(2.0000714765e-1)
    p = p * f - F(2.4999993993e-1)
    p = p * f + F(3.3333331174e-1)
    square = f * f
    return F(power) + (f - HALF * square + f * square * p) * LOG2_E


@jit_sum
def tile(H, y, i, k, last, out):
    """``out[k + b, i + a] = H[i + a] . y[k + b]`` for a, b < 4, rows up to `last`.

    With sixteen sums for eight loads, arithmetic is the limit and not the cache. Past
    the end, the last row is computed again.
    """
    n = len(H)
    i1, i2, i3 = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
    k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = H.dtype.type(0)
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = H.dtype.type(0)
    for j in range(H.shape[1]):
        a, b, c, d = H[i, j], H[i1, j], H[i2, j], H[i3, j]
        v = y[k, j]
        s00 += a * v
        s01 += b * v
        s02 += c * v
        s03 += d * v
        v = y[k1, j]
        s10 += a * v
        s11 += b * v
        s12 += c * v
        s13 += d * v
        v = y[k2, j]
        s20 += a * v
        s21 += b * v
        s22 += c * v
        s23 += d * v
        v = y[k3, j]
        s30 += a * v
        s31 += b * v
        s32 += c * v
        s33 += d * v
    out[k, i], out[k, i1], out[k, i2], out[k, i3] = s00, s01, s02, s03
    out[k1, i], out[k1, i1], out[k1, i2], out[k1, i3] = s10, s11, s12, s13
    out[k2, i], out[k2, i1], out[k2, i2], out[k2, i3] = s20, s21, s22, s23
    out[k3, i], out[k3, i1], out[k3, i2], out[k3, i3] = s30, s31, s32, s33


@jit
def product(H, y, first, stop, out):
    """``out[r] = H y[r]`` for the rows `first` to before `stop`."""
    for i in range(0, len(H), 4):
        for k in range(first, stop, 4):
            tile(H, y, i, k, stop - 1, out)


@jit
def gradients(H, scale, linear, x, out):
    """Gradients ``out = 2 s (H (s x)) + c`` at points ``x[R, n]``, in float64."""
    rows, n = x.shape
    y = scale * x
    for first in range(0, rows, ROWS):
        product(H, y, first, min(first + ROWS, rows), out)
    for r in range(rows):
        for i in range(n):
            out[r, i] = 2.0 * scale[r, i] * out[r, i] + linear[r, i]


@jit_sum
def soften(V, r, inverse_temperature, low, span, s, p, h, slope, y):
    """Relaxed states ``h = clip(span * sigmoid(V / T) + low, 0, 1)`` of row r.

    Writes h, its derivative `slope` by V, and y.
    """
    steep = -inverse_temperature * LOG2_E
    for i in range(V.shape[1]):
        sigma = ONE / (ONE + exp2(steep * V[r, i]))
        raw = span * sigma + low
        clipped = min(max(raw, ZERO), ONE)
        inside = span * inverse_temperature * sigma * (ONE - sigma)
        h[r, i] = clipped
        slope[r, i] = inside if raw == clipped else ZERO
        y[r, i] = s[r, i] * (clipped - p[r, i])


@jit_sum
def adam(V, r, rate, root, beta, weight, s, c, h, slope, g, m, v):
    """A step of Adam in row r on ``E(h) + weight * sum(1 - |2 h - 1|**beta)``.

    `rate` and `root` hold the corrections of the two moments for their start at zero.
    """
    push = TWO * beta * weight
    for i in range(V.shape[1]):
        d = TWO * s[r, i] * g[r, i] + c[r, i]
        if push != ZERO:
            u = TWO * h[r, i] - ONE
            size = push * exp2((beta - ONE) * log2(max(abs(u), TINY)))
            d -= size if u > ZERO else -size
        d *= slope[r, i]
        m[r, i] += ADAM_FIRST * (d - m[r, i])
        v[r, i] += ADAM_SECOND * (d * d - v[r, i])
        V[r, i] -= rate * m[r, i] / (root * np.sqrt(v[r, i]) + ADAM_EPS)


@jit
def relax(H, low, span, plan, V, m, v, h, slope, y, g, s, c, p, weight):
    """Take the steps of ``plan[K, 6]`` in all rows; h is left at the last V.

    Columns of the plan: rate, root (see `adam`), beta, 1 if f_reg acts and 0 if not,
    inverse temperature before and after the step.
    """
    rows = len(V)
    for first in range(0, rows, ROWS):
        stop = min(first + ROWS, rows)
        for r in range(first, stop):
            soften(V, r, plan[0, 4], low, span, s, p, h, slope, y)
        for k in range(len(plan)):
            rate, root, beta, on, after = (
                plan[k, 0],
                plan[k, 1],
                plan[k, 2],
                plan[k, 3],
                plan[k, 5],
            )
            product(H, y, first, stop, g)
            for r in range(first, stop):
                adam(V, r, rate, root, beta, on * weight[r], s, c, h, slope, g, m, v)
                soften(V, r, after, low, span, s, p, h, slope, y)


@jit_sum
def snap(z, r, s, p, y):
    """``y = s (x - p)`` of row r, where x is z rounded to the nearest whole number."""
    for i in range(z.shape[1]):
        y[r, i] = s[r, i] * (np.floor(z[r, i] + HALF) - p[r, i])


@jit_sum
def excess(z, r, c, p, y, g):
    """``E(x) - E(p)`` of row r, where x is z rounded to the nearest whole number."""
    total = ZERO
    for i in range(z.shape[1]):
        x = np.floor(z[r, i] + HALF)
        total += y[r, i] * g[r, i] + c[r, i] * (x - p[r, i])
    return total


@jit_sum
def straight_through(z, r, rate, root, s, c, g, m, v, lowest, highest):
    """A step of Adam of z, in row r, with the gradient at the rounding of z."""
    for i in range(z.shape[1]):
        d = TWO * s[r, i] * g[r, i] + c[r, i]
        m[r, i] += ADAM_FIRST * (d - m[r, i])
        v[r, i] += ADAM_SECOND * (d * d - v[r, i])
        new = z[r, i] - rate * m[r, i] / (root * np.sqrt(v[r, i]) + ADAM_EPS)
        z[r, i] = min(max(new, lowest[r, i]), highest[r, i])


@jit_sum
def signed(z, r, rate, s, c, g, lowest, highest):
    """A step of z, in row r, against the sign of the gradient at the rounding of z."""
    for i in range(z.shape[1]):
        d = TWO * s[r, i] * g[r, i] + c[r, i]
        new = z[r, i] - rate * np.sign(d)
        z[r, i] = min(max(new, lowest[r, i]), highest[r, i])


@jit
def descend_rounded(
    H, by_sign, plan, z, m, v, y, g, s, c, p, lowest, highest, best, best_excess
):
    """Take the steps of ``plan[K, 2]`` (rate, root) in all rows.

    The z of the best rounding that a step began at is kept in ``best``.
    """
    rows = len(z)
    for first in range(0, rows, ROWS):
        stop = min(first + ROWS, rows)
        for k in range(len(plan)):
            for r in range(first, stop):
                snap(z, r, s, p, y)
            product(H, y, first, stop, g)
            for r in range(first, stop):
                value = excess(z, r, c, p, y, g)
                if value < best_excess[r]:
                    best_excess[r] = value
                    best[r] = z[r]
                rate, root = plan[k, 0], plan[k, 1]
                if by_sign:
                    signed(z, r, rate, s, c, g, lowest, highest)
                else:
                    straight_through(z, r, rate, root, s, c, g, m, v, lowest, highest)
