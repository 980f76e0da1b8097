"""Lattice points in an ellipsoid: reduction of the basis, depth-first search.

Vectors are rows. A basis of Z^n is kept as its integer rows ``U`` and as ``B``, the
same vectors in coordinates in which the quadratic form is the Euclidean norm.
"""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inner_min, jit, jit_sum

# Lovasz's factor of LLL with deep insertions and of BKZ.
DELTA = 0.99
# Nodes after which the search of a block for a shorter vector is given up.
BLOCK_NODES = 200_000
# Rows of `state`, which holds for every level: the cost from that level up, and the
# next values to try on either side.
COST, LEFT, RIGHT = range(3)
# Tolerances, for float32, of the test whether a variable can reach 0 or 1: the share of
# the squared distance that counts, and the amount that may be missing.
NEARLY, MISSED = np.float32(0.999), np.float32(1e-3)
ZERO, HALF = np.float32(0.0), np.float32(0.5)
# Points are padded to a multiple of this: one vector of float32.
LANES = 16


@jit_sum
def dot(a, i, b, j):
    """``a[i] . b[j]``."""
    total = 0.0
    for k in range(a.shape[1]):
        total += a[i, k] * b[j, k]
    return total


@jit
def add(A, k, a, j):
    """``A[k] += a * A[j]``."""
    for i in range(A.shape[1]):
        A[k, i] += a * A[j, i]


@jit
def orthogonalise(B, mu, norms, ortho, k):
    """Compute row k of the Gram-Schmidt factor, given the rows before it."""
    for i in range(B.shape[1]):
        ortho[k, i] = B[k, i]
    for j in range(k):
        mu[k, j] = dot(ortho, k, ortho, j) / norms[j]
        add(ortho, k, -mu[k, j], j)
    norms[k] = max(dot(ortho, k, ortho, k), 1e-300)
    mu[k, k] = 1.0


@jit
def size_reduce(U, B, mu, norms, ortho, k):
    """Subtract earlier vectors from vector k until its coefficients are small."""
    # The coefficients of badly reduced vectors are rounded themselves, so that it takes
    # a few rounds.
    for _ in range(20):
        orthogonalise(B, mu, norms, ortho, k)
        changed = False
        for j in range(k - 1, -1, -1):
            a = np.round(mu[k, j])
            if abs(mu[k, j]) > 0.501 and a != 0.0:
                changed = True
                add(B, k, -a, j)
                add(U, k, -a, j)
                for i in range(j + 1):
                    mu[k, i] -= a * mu[j, i]
        if not changed:
            break


@jit
def insert(A, k, i):
    """Move row k up to place i < k."""
    for c in range(A.shape[1]):
        last = A[k, c]
        for j in range(k, i, -1):
            A[j, c] = A[j - 1, c]
        A[i, c] = last


@jit
def reduce_deep(U, B, mu, norms, ortho, first, last):
    """LLL with deep insertions (Schnorr, Euchner 1994) of the vectors before `last`.

    The vectors before `first` are reduced already.
    """
    k = first
    for _ in range(200 * len(U) * len(U)):
        if k >= last:
            break
        size_reduce(U, B, mu, norms, ortho, k)
        length = dot(B, k, B, k)
        for i in range(k):
            if length < DELTA * norms[i]:
                insert(U, k, i)
                insert(B, k, i)
                k = i - 1
                break
            length -= mu[k, i] * mu[k, i] * norms[i]
        k += 1


@jit
def shortest_in_block(mu, norms, first, last, z):
    """Find coefficients z of a shorter vector than the block's first one, projected.

    Schnorr-Euchner enumeration of one half of the vectors, since z and -z are alike.
    Returns whether there is such a vector.
    """
    size = last - first
    best = DELTA * norms[first]
    found = False
    x, centre, cost = np.zeros(size), np.zeros(size), np.zeros(size + 1)
    step, turn = np.zeros(size), np.zeros(size)
    k = top = 0
    x[0] = 1.0
    for _ in range(BLOCK_NODES):
        value = cost[k + 1] + (x[k] - centre[k]) ** 2 * norms[first + k]
        if value < best and k > 0:
            cost[k] = value
            k -= 1
            total = 0.0
            for j in range(k + 1, top + 1):
                total -= x[j] * mu[first + j, first + k]
            centre[k] = total
            x[k] = np.round(total)
            step[k] = 0.0
            turn[k] = 1.0 if total < x[k] else -1.0
            continue
        if value < best:
            best, found = value, True
            for j in range(size):
                z[j] = x[j]
        else:
            k += 1
            if k == size:
                break
        if k >= top:
            top = k
            x[k] += 1.0
        else:
            turn[k] = -turn[k]
            step[k] = turn[k] - step[k]
            x[k] += step[k]
    return found


@jit
def reduce_blocks(U, B, mu, norms, ortho, size, first, last):
    """Part of a tour of BKZ (Schnorr, Euchner 1994): blocks `first` to before `last`.

    The basis has been reduced by `reduce_deep`. The first vector of each block becomes
    a shortest one. Returns whether the basis has changed.
    """
    n = len(U)
    z = np.zeros(size)
    changed = False
    for k in range(first, last):
        end = min(k + size, n)
        if not shortest_in_block(mu, norms, k, end, z):
            continue
        # The new vector can replace a vector whose coefficient is 1 or -1.
        at = -1
        for j in range(end - k):
            if abs(z[j]) == 1.0:
                at = j
        if at < 0:
            continue
        sign = z[at]
        for j in range(end - k):
            if j != at and z[j] != 0.0:
                add(B, k + at, sign * z[j], k + j)
                add(U, k + at, sign * z[j], k + j)
        insert(U, k + at, k)
        insert(B, k + at, k)
        reduce_deep(U, B, mu, norms, ortho, k, n)
        changed = True
    return changed


@inner_min
def move(near, k, away, steps, reach, room):
    """Move the point of level k; return by how much variables miss 0 and 1, squared.

    Computed in float32, whose rounding the tolerances cover.
    """
    missed = ZERO
    for i in range(near.shape[1]):
        a = near[k + 1, i] + away * steps[k, i]
        near[k, i] = a
        b = abs(a - HALF) - HALF
        excess = NEARLY * b * b - room * reach[k, i]
        # A sum vectorises, a maximum does not.
        missed += excess if excess > MISSED else ZERO
    return missed


@jit
def energy_of(Q, c, offset, x):
    """Energy of the state that is nearest to the point x."""
    total = offset
    for i in range(len(c)):
        if x[i] > 0.5:
            total += c[i]
            for j in range(len(c)):
                if x[j] > 0.5:
                    total += Q[i, j]
    return total


@jit
def search(
    norms,
    shifts,
    steps,
    reach,
    Q,
    c,
    offset,
    noise,
    unit,
    limit,
    state,
    centres,
    near,
    place,
    energy,
    best,
):
    """Continue a depth-first search for states with an energy below ``energy[1]``.

    Schnorr-Euchner enumeration of lattice points, whose coefficients z are chosen from
    the last to the first: ``cost + norms_k (z_k - centre_k)^2`` is a lower bound of the
    energies below level k. At every level ``near`` is the real point of least cost;
    below that level, variable i moves away from this point by no more than the square
    root of ``room reach_i / unit``, where `room` is what the bound leaves. A point is
    left as soon as some variable cannot reach 0 or 1.

    Stops after `limit` nodes; the next call continues there.

    Parameters
    ----------
    norms : [m]
        Squared Gram-Schmidt lengths.
    shifts, steps, reach : [m, m], float32 [m, width], float32 [m, width]
        The Gram-Schmidt vectors in coefficients (shifts) and in variables (steps); for
        each level the sum of ``unit steps**2 / norms`` over the levels below (reach).
        Padded with zeros.
    Q, c, offset
        The model, for energies of the states found.
    noise
        Largest error of a bound by rounding.
    unit
        The energy in whose units `reach` is.
    state, centres, near : [3, m + 1], [m + 1, m], float32 [m + 1, width]
        The search's working space. At first, ``state[COST, m]`` holds the cost at the
        centre, ``centres[m]`` and ``near[m]`` the centre in coefficients and in
        variables.
    place : int64 [3]
        Level, which is m at first and in the end; nodes so far; whether the next step
        is one level down, at first 1.
    energy : [2]
        The best energy, whose state is ``best`` [m], and the bound of the search.
    """
    m = len(norms)
    k, nodes, down = place[0], 0, place[2] == 1
    while nodes < limit:
        if down:
            k -= 1
            centre = centres[k + 1, k]
            z = np.round(centre)
            state[LEFT, k], state[RIGHT, k] = z - 1.0, z + 1.0
        elif k == m:
            break
        else:
            centre = centres[k + 1, k]
            if centre - state[LEFT, k] <= state[RIGHT, k] - centre:
                z = state[LEFT, k]
                state[LEFT, k] -= 1.0
            else:
                z = state[RIGHT, k]
                state[RIGHT, k] += 1.0
        nodes += 1
        down = False
        away = z - centre
        cost = state[COST, k + 1] + norms[k] * away * away
        room = energy[1] + noise - cost
        if room < 0.0:
            # Values of this level that would be tried later cost more.
            k += 1
            continue
        if (
            move(near, k, np.float32(away), steps, reach, np.float32(room / unit))
            > ZERO
        ):
            continue
        if k > 0:
            state[COST, k] = cost
            for j in range(k):
                centres[k, j] = centres[k + 1, j] + away * shifts[k, j]
            down = True
            continue
        value = energy_of(Q, c, offset, near[0])
        if value < energy[0]:
            energy[0] = value
            energy[1] = min(energy[1], value)
            for i in range(m):
                best[i] = near[0, i] > 0.5
    place[0] = k
    place[1] += nodes
    place[2] = down
