"""Tabu search by single flips in float32: moves and runs.

The state of a row is the cost of every flip, ``cost = 2 z u + q`` in the terms of
`solvers.walk`, divided by the row's unit so that it is always in the range of float32.
Flipping i changes the cost of every other j by ``2 z_i z_j H_ij``, so that one pass
over a row of H updates all costs and finds the next flip. Every run begins with costs
computed anew in float64, and so are the energies of states that are kept.
"""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inlined, inner, inner_sum, minimum
from solvers.kernels.streams import GOLDEN, next_uniform, to_uniform

FLOAT = np.float32
INT = np.int32
# The cost of variables that must not flip.
NEVER = np.float32(1e30)
# A least cost of this size or more means that no variable may flip.
NONE = np.float32(1e29)
ZERO, ONE = np.float32(0.0), np.float32(1.0)
# Expiries of variables that may flip at once, and of those that may not flip at all; in
# between, float32 counts exactly up to 2**24.
FREE = np.float32(0.0)
FOREVER = np.float32(2.0**25)
# Greatest length of a run, in patiences. In a cycle of flips rounding errors can add up
# to an energy that sinks for ever; the run must then end and its costs be computed
# anew.
PATIENCES = 50
# Differences of energies below this, relative to the costs, may be rounding of float32.
NOISE = 1e-5
UNSIGNED = np.uint64


@inlined
def places(width):
    """A mask of as many low bits of a float's pattern as index `width` variables."""
    mask = 1
    while mask < width:
        mask *= 2
    return INT(mask - 1)


@inner_sum
def update(H, z, cost, expiry, r, i, step, clock, aspiration, index, low):
    """Add ``step z_j H_ij`` to every cost j; return the least cost that may flip.

    A variable may flip if its tabu has expired, or if its cost is below the aspiration.
    The low bits of the result's pattern are the variable's index: the least cost and
    its variable come from one vectorised pass, at the price of ties among costs that
    agree in all the other bits.
    """
    least = NEVER
    high = ~low
    for j in range(UNSIGNED(z.shape[1])):
        c = cost[r, j] + step * (z[r, j] * H[i, j])
        cost[r, j] = c
        marked = INT((FLOAT(c).view(INT) & high) | index[j]).view(FLOAT)
        may = (expiry[r, j] <= clock) | (c < aspiration)
        least = minimum(least, marked if may else NEVER)
    return least


@inlined
def look(H, z, cost, expiry, r, clock, aspiration, index, low):
    """The least cost that may flip, as from `update`, without changing any cost."""
    i, step = np.int64(0), FLOAT(0)
    return update(H, z, cost, expiry, r, i, step, clock, aspiration, index, low)


@inner
def turn(H, z, cost, expiry, r, i, until):
    """Flip i, which is then tabu while the clock is before `until`.

    Returns the step for `update`. The energy changes by ``cost[r, i]``, which the
    caller reads before the call.
    """
    a = z[r, i]
    step = a + a
    z[r, i] = -a
    # The update subtracts what is added here, so that i's own cost just changes sign.
    cost[r, i] = step * (a * H[i, i]) - cost[r, i]
    expiry[r, i] = until
    return step


@inlined
def signs(r, z, x):
    """Write the state whose signed scales are ``z[r]`` into ``x[r]``, as wide as x."""
    for j in range(UNSIGNED(x.shape[1])):
        x[r, j] = z[r, j] < 0.0


@inlined
def ended(clock, found, r, patience):
    """Whether row r's run has ended: without progress, or too long for its rounding."""
    return clock[r] - found[r] >= patience or clock[r] >= PATIENCES * patience


@inner
def tabu(matrix, run, r, iterations, patience, tenure, spread, noise, rng):
    """Flip the best variable that is not tabu, again and again.

    At most `iterations` times, or until the run has `ended`; returns how often. A
    variable is tabu after its flip for `tenure` iterations and up to `spread` more,
    drawn for each flip, unless its flip leads below the lowest energy of the run by
    more than `noise` (aspiration). The run's ``clock[r]``, its energy ``value[r]``, its
    lowest energy ``lowest[r]``, the clock ``found[r]`` at that energy and its state
    ``best[r]`` go on from call to call.
    """
    H, index, low = matrix.H, matrix.labels, matrix.low
    z, cost, expiry, best = run.z, run.cost, run.expiry, run.best
    clock, found, value, lowest = run.clock, run.found, run.value, run.lowest
    first = now = clock[r]
    energy, bottom = value[r], lowest[r]
    last = found[r]
    end = PATIENCES * patience
    seed = rng[r]
    least = look(
        H, z, cost, expiry, r, FLOAT(now), FLOAT(bottom - energy - noise), index, low
    )
    while now < min(first + iterations, last + patience, end):
        now += 1
        i = np.int64(0)
        step = FLOAT(0)
        if least < NONE:
            i = np.int64(FLOAT(least).view(INT) & low)
            energy += np.float64(cost[r, i])
            seed += GOLDEN
            until = now + tenure + np.int64((spread + 1) * to_uniform(seed))
            step = turn(H, z, cost, expiry, r, i, FLOAT(until))
            if energy < bottom - noise:
                bottom = energy
                last = now
                signs(r, z, best)
        # If all variables are tabu, only the clock advances.
        least = update(
            H,
            z,
            cost,
            expiry,
            r,
            i,
            step,
            FLOAT(now),
            FLOAT(bottom - energy - noise),
            index,
            low,
        )
    rng[r] = seed
    lowest[r] = bottom
    clock[r] = now
    value[r] = energy
    found[r] = last
    return now - first


@inlined
def forced(H, z, cost, expiry, r, steps, index, low):
    """Flip up to `steps` variables whose expiry is `FREE`, the best first, none twice.

    Returns how many were flipped, and the change of the energy.
    """
    made, change = 0, 0.0
    least = look(H, z, cost, expiry, r, FLOAT(0), -NEVER, index, low)
    while made < steps and least < NONE:
        made += 1
        i = np.int64(FLOAT(least).view(INT) & low)
        change += np.float64(cost[r, i])
        step = turn(H, z, cost, expiry, r, i, FOREVER)
        least = update(H, z, cost, expiry, r, i, step, FLOAT(0), -NEVER, index, low)
    return made, change


@inner
def follow(H, scale, r, x, here, u, which, step):
    """Change the state ``here[r]`` to x, and its fields u, in float64, with it.

    Four rows of H are added per pass: u is read and written once for all of them.
    """
    n = len(x)
    count = 0
    for i in range(n):
        if x[i] != here[r, i]:
            which[count] = i
            step[count] = scale[r, i] if x[i] else -scale[r, i]
            here[r, i] = x[i]
            count += 1
    k = 0
    while k + 4 <= count:
        i0, i1, i2, i3 = which[k], which[k + 1], which[k + 2], which[k + 3]
        a0, a1, a2, a3 = step[k], step[k + 1], step[k + 2], step[k + 3]
        for j in range(UNSIGNED(n)):
            u[r, j] += (a0 * H[i0, j] + a1 * H[i1, j]) + (a2 * H[i2, j] + a3 * H[i3, j])
        k += 4
    while k < count:
        i0, a0 = which[k], step[k]
        for j in range(UNSIGNED(n)):
            u[r, j] += a0 * H[i0, j]
        k += 1


@inner_sum
def exact_energy(scale, linear, offset, r, here, u):
    """Energy of the state ``here[r]``, whose fields are ``u[r]``."""
    energy = 0.0
    for i in range(UNSIGNED(here.shape[1])):
        energy += here[r, i] * (scale[r, i] * u[r, i] + 0.5 * linear[r, i])
    return offset[r] + energy


@inlined
def rounding(cost, r, n):
    """The size up to which changes of energy may be rounding of a run's costs.

    It is proportional to about the geometric mean of the costs that are not 0: a few
    large costs, as of penalties, must not hide what all the others can gain. The mean
    is taken of the floats' patterns, which are nearly linear in their logarithms.
    """
    total = count = np.int64(0)
    for j in range(UNSIGNED(n)):
        pattern = np.int64(FLOAT(abs(cost[r, j])).view(INT))
        typical = (cost[r, j] != 0.0) & (cost[r, j] < NONE)
        total += pattern if typical else 0
        count += typical
    return NOISE * np.float64(INT(total // (count or 1)).view(FLOAT))


@inner
def stand(H, scale, barred, unit, root, r, noise, here, u, z, cost):
    """Compute signed scales, costs and noise at ``here[r]``, whose fields are ``u[r]``.

    Scales are multiplied by ``root[r]``, so that their products with the H of the walk
    are costs in ``unit[r]``. ``barred`` is `NEVER` for pinned variables, else 0.
    """
    inverse = 1.0 / unit[r]
    for i in range(UNSIGNED(here.shape[1])):
        s = scale[r, i] * (1.0 - 2.0 * here[r, i])
        z[r, i] = FLOAT(s * root[r])
        whole = (2.0 * s * u[r, i] + s * s * H[i, i]) * inverse
        cost[r, i] = FLOAT(whole) + barred[r, i]
    noise[r] = rounding(cost, r, here.shape[1])


@inlined
def begin(r, n, run):
    """Begin a run at the row's present state, of energy ``value[r]``."""
    signs(r, run.z, run.best)
    for j in range(UNSIGNED(n)):
        run.expiry[r, j] = FREE
    run.clock[r] = run.found[r] = 0
    run.lowest[r] = run.value[r]


@inlined
def draw(rng, r, first, last):
    """A random whole number from first to last, both included."""
    return first + np.int64((last - first + 1) * next_uniform(rng, r))
