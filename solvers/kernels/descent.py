"""Descents to local optima, in place.

z, u and q are float64 whatever the dtype of H. A move must gain more than their
rounding noise, so that two moves cannot undo each other for ever. Each kernel makes at
most ``passes`` passes over the variables of a row; ``done[R]`` says whether the row has
reached a local optimum. Rows that are done already `pairs` leaves alone.
"""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inlined, inner_sum, jit, minimum

# Entries of H, as many as a core's cache holds beside the fields of a row.
BLOCK = 2**15


@inlined
def noise(z, u, q, r):
    """The size up to which energy changes of row r may be rounding."""
    largest = 0.0
    for i in range(z.shape[1]):
        if q[r, i] < np.inf:
            largest = max(largest, abs(2.0 * z[r, i] * u[r, i]) + abs(q[r, i]))
    return 1e-13 * largest


@inlined
def flip(H, z, u, r, i):
    """Flip variable i of row r."""
    a = z[r, i]
    for j in range(z.shape[1]):
        u[r, j] += a * H[i, j]
    z[r, i] = -a


@jit
def steepest(H, passes, z, u, q, energy, flips, done):
    """In each pass, make the best flip of all."""
    rows, width = z.shape
    for r in range(rows):
        least = -noise(z, u, q, r)
        for _ in range(passes):
            smallest, at = least, -1
            for i in range(width):
                cost = 2.0 * z[r, i] * u[r, i] + q[r, i]
                if cost < smallest:
                    smallest, at = cost, i
            done[r] = at < 0
            if at < 0:
                break
            flip(H, z, u, r, at)
            energy[r] += smallest
            flips[r] += 1


@jit
def cyclic(H, passes, z, u, q, energy, flips, done):
    """In each pass, make every flip that gains, in the order of the variables."""
    rows, width = z.shape
    for r in range(rows):
        least = -noise(z, u, q, r)
        for _ in range(passes):
            before = flips[r]
            for i in range(width):
                cost = 2.0 * z[r, i] * u[r, i] + q[r, i]
                if cost < least:
                    flip(H, z, u, r, i)
                    energy[r] += cost
                    flips[r] += 1
            done[r] = flips[r] == before
            if done[r]:
                break


@inner_sum
def least_partner_cost(H, z, u, q, r, i):
    """Least cost of a second flip after the flip of i."""
    least = np.inf
    a = 2.0 * z[r, i]
    for j in range(np.uint64(0), np.uint64(i)):
        cost = z[r, j] * (2.0 * u[r, j] + a * H[i, j]) + q[r, j]
        least = minimum(least, cost)
    for j in range(np.uint64(i + 1), np.uint64(z.shape[1])):
        cost = z[r, j] * (2.0 * u[r, j] + a * H[i, j]) + q[r, j]
        least = minimum(least, cost)
    return least


@inlined
def improve(H, z, u, q, energy, flips, r, first, last, least):
    """Flip variables of row r, each alone or with its best partner, if that gains."""
    for i in range(first, last):
        if q[r, i] == np.inf:
            continue
        cost = 2.0 * z[r, i] * u[r, i] + q[r, i]
        partner = least_partner_cost(H, z, u, q, r, i)
        if min(cost, cost + partner) >= least:
            continue
        flip(H, z, u, r, i)
        energy[r] += cost
        flips[r] += 1
        if partner >= 0.0:
            continue
        # The fields are up to date: the partner is the best single flip now.
        smallest, at = np.inf, -1
        for j in range(z.shape[1]):
            other = 2.0 * z[r, j] * u[r, j] + q[r, j]
            if j != i and other < smallest:
                smallest, at = other, j
        flip(H, z, u, r, at)
        energy[r] += smallest
        flips[r] += 1


@jit
def pairs(H, passes, z, u, q, energy, flips, done):
    """In each pass, flip every variable, alone or with its best partner, if that gains.

    The order is that of the variables. All rows of a batch meet a block of H, which
    stays in a core's cache meanwhile, before the next: reading H takes the most time.
    """
    rows, width = z.shape
    size = max(BLOCK // width, 1)
    least, before = np.empty(rows), np.empty(rows, np.int64)
    for r in range(rows):
        least[r] = -noise(z, u, q, r)
    for _ in range(passes):
        before[:] = flips
        for first in range(0, width, size):
            last = min(first + size, width)
            for r in range(rows):
                if not done[r]:
                    improve(H, z, u, q, energy, flips, r, first, last, least[r])
        done[:] = flips == before
        if done.all():
            break


# The kernels by the names of their moves.
DESCENTS = {"one-flip": steepest, "cyclic": cyclic, "pair-flip": pairs}
