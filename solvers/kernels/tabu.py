"""Tabu search by single flips in float32: moves and runs.

What a row carries is the cost of every flip, ``cost = 2 z u + q`` in the terms of
`solvers.walk`, divided by the row's unit so that float32 always holds it. Flipping i
changes the others by ``2 z_i z_j H_ij``, so that one pass over a row of H updates all
costs and finds the next flip. Every run begins with costs that are fresh from float64,
and energies of states that are kept are computed in float64.
"""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inlined, inner, inner_sum, minimum
from solvers.kernels.streams import GOLDEN, next_uniform, to_uniform

FLOAT = np.float32
INT = np.int32
# The cost of what must not flip; anything as large means that nothing may.
NEVER = np.float32(1e30)
NONE = np.float32(1e29)
ZERO, ONE = np.float32(0.0), np.float32(1.0)
# Expiries of what may flip at once, and of what may not flip at all; in between,
# float32 counts to 2**24.
FREE = np.float32(0.0)
FOREVER = np.float32(2.0**25)
# Patiences that a run lasts at most. Rounding errors can add up in a cycle of flips to
# an energy that sinks for ever; then, the run must end and its costs be computed anew.
PATIENCES = 50
# Differences of energies below this, relative to the costs, may be rounding of float32.
NOISE = 1e-5
UNSIGNED = np.uint64


@inlined
def places(width):
    """As many low bits of a float's pattern as can tell `width` variables apart."""
    mask = 1
    while mask < width:
        mask *= 2
    return INT(mask - 1)


@inner_sum
def update(H, z, cost, expiry, r, i, step, clock, aspiration, index, low):
    """Add ``step z_j H_ij`` to every cost j; the least cost of those that may flip.

    A variable may flip where its tabu has expired, or where its cost is below the
    aspiration. The low bits of the answer's pattern are the variable's index: the least
    cost and where it is come from one vectorised pass, at the price of ties among
    costs that agree in all the other bits.
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
    """The answer of `update` without a flip."""
    i, step = np.int64(0), FLOAT(0)
    return update(H, z, cost, expiry, r, i, step, clock, aspiration, index, low)


@inner
def turn(H, z, cost, expiry, r, i, until):
    """Change the sign of i, tabu while the clock is before `until`; the step to update.

    The energy changes by ``cost[r, i]``, which the caller reads before.
    """
    a = z[r, i]
    step = a + a
    z[r, i] = -a
    # The update subtracts what is added here: i's own cost changes its sign.
    cost[r, i] = step * (a * H[i, i]) - cost[r, i]
    expiry[r, i] = until
    return step


@inlined
def signs(r, z, x):
    """The state whose signed scales are ``z[r]`` into ``x[r]``, as wide as that is."""
    for j in range(UNSIGNED(x.shape[1])):
        x[r, j] = z[r, j] < 0.0


@inlined
def ended(clock, found, r, patience):
    """Whether the run is at its end: no progress, or too long for its rounding."""
    return clock[r] - found[r] >= patience or clock[r] >= PATIENCES * patience


@inner
def tabu(matrix, run, r, iterations, patience, tenure, spread, noise, rng):
    """Flip the best variable that is not tabu: how often.

    At most `iterations` times, or until the run has `ended`. A flip is tabu for
    `tenure` iterations and up to `spread` more, drawn anew; unless it leads below the
    lowest energy of the run by more than `noise` (aspiration). ``clock[r]``, the energy
    ``value[r]``, ``lowest[r]`` and the clock ``found[r]`` of it go on from call to
    call, and ``best[r]`` keeps the state of the lowest energy.
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
        # Where all is tabu, nothing moves but the clock.
        least = update(
            H, z, cost, expiry, r, i, step, FLOAT(now), FLOAT(bottom - energy - noise),
            index, low,
        )  # fmt: skip
    rng[r] = seed
    lowest[r] = bottom
    clock[r] = now
    value[r] = energy
    found[r] = last
    return now - first


@inlined
def forced(H, z, cost, expiry, r, steps, index, low):
    """Flip the best of those whose expiry is `FREE`, none twice, at most `steps`.

    Returns how many were flipped, and the energy change.
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
    """Bring the fields u, in float64, from the state ``here[r]`` to x.

    Four rows of H a pass: u is read and written once for all of them.
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
    """Changes of energy below this may be rounding of a run's costs.

    In proportion to about the geometric mean of the costs that are not 0: a few large
    ones, as of penalties, must not hide what all the others can gain. The pattern of a
    float is nearly linear in its logarithm.
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
    """Stand at ``here[r]``, whose fields are ``u[r]``: signed scales, costs, noise.

    ``root[r]`` turns scales into such that, with the H of the walk, their products are
    costs in ``unit[r]``. ``barred`` is `NEVER` where a variable is pinned, else 0.
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
    """Begin a run where the row stands, at the energy ``value[r]``."""
    signs(r, run.z, run.best)
    for j in range(UNSIGNED(n)):
        run.expiry[r, j] = FREE
    run.clock[r] = run.found[r] = 0
    run.lowest[r] = run.value[r]


@inlined
def draw(rng, r, first, last):
    """A random whole number from first to last, both included."""
    return first + np.int64((last - first + 1) * next_uniform(rng, r))
