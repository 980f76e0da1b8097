"""Rows searched by tabu runs: pools of relinked states, parts solved in turn."""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inlined, inner, jit
from solvers.kernels.streams import GOLDEN, next_uniform, to_uniform
from solvers.kernels.tabu import (
    FLOAT,
    FOREVER,
    FREE,
    NEVER,
    NONE,
    ONE,
    UNSIGNED,
    ZERO,
    begin,
    draw,
    ended,
    exact_energy,
    follow,
    forced,
    places,
    signs,
    stand,
    tabu,
    turn,
    update,
)  # fmt: skip

# Runs without a new state, per place of the pool, after which it is emptied.
STALE = 5
# Parts of an order that are shorter are sorted by insertion.
SHORT = 15
# Energies that are nearer to each other than this, in a row's unit, may be the same: of
# sums in float64, and of fields that have followed many flips.
EXACT, DRIFT = 1e-13, 1e-10


@inlined
def divide(cost, r, order, first, last):
    """Put variables cheaper than a middle one before it; where that now is in `order`.

    Of `order` from first to last, both included.
    """
    middle = (first + last) >> 1
    for _ in range(2):
        if cost[r, order[middle]] < cost[r, order[first]]:
            order[first], order[middle] = order[middle], order[first]
        if cost[r, order[last]] < cost[r, order[middle]]:
            order[last], order[middle] = order[middle], order[last]
    pivot = cost[r, order[middle]]
    order[last], order[middle] = order[middle], order[last]
    i, j = first, last - 1
    while True:
        while i < last and cost[r, order[i]] < pivot:
            i += 1
        while j >= first and pivot < cost[r, order[j]]:
            j -= 1
        if i >= j:
            break
        order[i], order[j] = order[j], order[i]
        i += 1
        j -= 1
    order[i], order[last] = order[last], order[i]
    return i


@inlined
def by_cost(cost, r, n, order):
    """The free variables of a row by the costs of their flips, cheapest first.

    Returns how many they are.
    """
    for i in range(n):
        order[i] = i
    # Quicksort; numpy's takes ten times as long to compile. Of two parts the larger
    # waits, so that 64 places are enough.
    waiting = np.empty(128, np.int64)
    waiting[0], waiting[1] = 0, n - 1
    parts = 1
    while parts > 0:
        parts -= 1
        first, last = waiting[2 * parts], waiting[2 * parts + 1]
        while last - first >= SHORT:
            i = divide(cost, r, order, first, last)
            if last - i > i - first:
                waiting[2 * parts], waiting[2 * parts + 1] = i + 1, last
                last = i - 1
            else:
                waiting[2 * parts], waiting[2 * parts + 1] = first, i - 1
                first = i + 1
            parts += 1
        for i in range(first + 1, last + 1):
            k = order[i]
            value = cost[r, k]
            j = i
            while j > first and value < cost[r, order[j - 1]]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = k
    count = 0
    while count < n and cost[r, order[count]] < NONE:
        count += 1
    return count


@inlined
def part(H, z, cost, r, chosen, part_H, part_z, part_cost):
    """The model of the chosen variables, all others clamped where they stand.

    A cost accounts for the clamped variables, so that the part needs nothing of them.
    """
    size = len(chosen)
    for a in range(part_cost.shape[1]):
        part_cost[0, a] = NEVER
    for a in range(size):
        i = chosen[a]
        part_z[0, a] = z[r, i]
        part_cost[0, a] = cost[r, i]
        for b in range(size):
            part_H[a, b] = H[i, chosen[b]]


@inner
def sweep_parts(
    H, subsize, patience, spread, r, noise, z, cost, expiry, order, rng, index, low
):  # fmt: skip
    """Search part after part of the row, from where it stands, with the rest clamped.

    Parts are the free variables in the order of their flips' costs, cheapest first,
    `subsize` at a time. The row moves to the best state of each. Returns the number of
    free variables, and the flips made.
    """
    lanes = subsize + -subsize % 16
    part_low = places(lanes)
    part_H = np.empty((subsize, lanes), FLOAT)
    part_z = np.empty((1, lanes), FLOAT)
    part_cost = np.empty((1, lanes), FLOAT)
    part_expiry = np.empty((1, lanes), FLOAT)
    for b in range(lanes):
        part_z[0, b], part_expiry[0, b] = ONE, FREE
        for a in range(subsize):
            part_H[a, b] = ZERO
    part_best = np.empty((1, subsize), np.uint8)
    clock, found = np.empty(1, np.int64), np.empty(1, np.int64)
    value, lowest = np.empty(1), np.empty(1)
    # A number that is written down would have a copy of the kernels made for itself.
    alone = np.int64(0)
    free = by_cost(cost, r, H.shape[0], order)
    made = 0
    for first in range(0, free, subsize):
        chosen = order[first : min(first + subsize, free)]
        size = len(chosen)
        half = size // 2
        tenure = min(max(1, size // 20), half)
        part(H, z, cost, r, chosen, part_H, part_z, part_cost)
        value[0] = 0.0
        begin(alone, size, part_z, part_expiry, clock, found, value, lowest, part_best)
        while not ended(clock, found, alone, patience):
            tabu(
                part_H[:size], part_z, part_cost, part_expiry, alone, patience,
                patience, tenure, min(spread, half - tenure), noise, clock, found,
                value, lowest, part_best, rng[r : r + 1], index[:lanes], part_low,
            )  # fmt: skip
        made += clock[0]
        for a in range(size):
            i = chosen[a]
            if part_best[0, a] != (z[r, i] < 0.0):
                step = turn(H, z, cost, expiry, r, i, FREE)
                update(H, z, cost, expiry, r, i, step, FREE, -NEVER, index, low)
    return free, made


@inlined
def redraw(r, order, count, size, x, rng):
    """Redraw up to `size` of the first `count` variables in `order`, at random."""
    for k in range(min(size, count)):
        other = draw(rng, r, k, count - 1)
        order[k], order[other] = order[other], order[k]
        x[r, order[k]] = next_uniform(rng, r) < 0.5


@jit
def passes(
    exact, H, index, low, count, repeats, subsize, patience, part_patience, shortest,
    longest, spread, scale, linear, offset, barred, unit, root, most, noise, here, u,
    z, cost, expiry, clock, found, value, lowest, best, rng, champion, energy, idle,
    made,
):  # fmt: skip
    """Make `count` more passes of every row, or until `repeats` in a row were idle.

    A pass begins at ``here[r]``, whose fields are ``u[r]``. An idle one, which does not
    improve on ``champion[r]`` and its ``energy[r]``, is followed by one that begins at
    the champion with `subsize` variables redrawn; any other by one from where it ended.
    ``made[r]`` counts passes.
    """
    n = H.shape[0]
    which = np.empty(n, np.int64)
    step = np.empty(n)
    order = np.empty(n, np.int64)
    for r in range(z.shape[0]):
        for _ in range(count):
            if idle[r] >= repeats or most[r] < 0:
                break
            value[r] = exact_energy(scale, linear, offset, r, here, u) / unit[r]
            stand(exact, scale, barred, unit, root, r, noise, here, u, z, cost)
            begin(r, n, z, expiry, clock, found, value, lowest, best)
            tenure = min(draw(rng, r, shortest, longest), most[r])
            while not ended(clock, found, r, patience):
                tabu(
                    H, z, cost, expiry, r, patience, patience, tenure,
                    min(spread, most[r] - tenure), noise[r], clock, found, value,
                    lowest, best, rng, index, low,
                )  # fmt: skip
            follow(exact, scale, r, best[r], here, u, which, step)
            stand(exact, scale, barred, unit, root, r, noise, here, u, z, cost)
            free, _ = sweep_parts(
                H, subsize, part_patience, spread, r, noise[r], z, cost, expiry, order,
                rng, index, low,
            )  # fmt: skip
            signs(r, z, best)
            follow(exact, scale, r, best[r], here, u, which, step)
            reached = exact_energy(scale, linear, offset, r, here, u)
            made[r] += 1
            if reached < energy[r] - EXACT * unit[r]:
                energy[r] = reached
                copy(best[r], champion[r])
                idle[r] = 0
            else:
                idle[r] += 1
                copy(champion[r], best[r])
                redraw(r, order, free, subsize, best, rng)
                follow(exact, scale, r, best[r], here, u, which, step)


@inlined
def allow_between(states, r, a, b, expiry):
    """Allow what tells state a of the pool from state b; how many variables that is."""
    count = 0
    for j in range(states.shape[2]):
        differs = states[r, a, j] != states[r, b, j]
        expiry[r, j] = FREE if differs else FOREVER
        count += differs
    return count


@inlined
def allow_some(share, r, n, expiry, rng):
    """Allow each variable with probability `share`."""
    seed = rng[r]
    for j in range(UNSIGNED(n)):
        chosen = to_uniform(seed + (j + UNSIGNED(1)) * GOLDEN) < share
        expiry[r, j] = FREE if chosen else FOREVER
    rng[r] = seed + UNSIGNED(n) * GOLDEN


@inlined
def leave(
    H, r, a, relink, share, weakest, strongest, z, cost, expiry, states, held, rng,
    index, low,
):  # fmt: skip
    """Walk away from state a of the pool, where the row stands: flips, energy change.

    With probability `relink`, once the pool is full, to between a third and two thirds
    of the way to another state of it (path relinking; Wang et al. 2012). Otherwise from
    `weakest` to `strongest` flips among a random `share` of the variables (as
    Palubeckis 2006 perturbs). Each time the least cost goes first.
    """
    if 1 < held[r] == states.shape[1] and next_uniform(rng, r) < relink:
        b = draw(rng, r, 0, held[r] - 2)
        b += b >= a
        distance = allow_between(states, r, a, b, expiry)
        steps = draw(rng, r, (distance + 2) // 3, (2 * distance + 2) // 3)
    else:
        allow_some(share, r, H.shape[0], expiry, rng)
        steps = draw(rng, r, weakest, strongest)
    return forced(H, z, cost, expiry, r, steps, index, low)


@inner
def copy(x, out):
    """The state x into `out`."""
    for j in range(len(x)):
        out[j] = x[j]


@inlined
def offer(states, energies, held, r, x, energy, noise):
    """Take x into the pool where that has a place, or x is better than its worst.

    Returns whether it was.
    """
    size, n = states.shape[1:]
    worst = 0
    for k in range(held[r]):
        if abs(energies[r, k] - energy) <= noise:
            j = 0
            while j < n and states[r, k, j] == x[j]:
                j += 1
            if j == n:
                return False
        if energies[r, k] > energies[r, worst]:
            worst = k
    if held[r] < size:
        worst = held[r]
        held[r] += 1
    elif energy >= energies[r, worst]:
        return False
    copy(x, states[r, worst])
    energies[r, worst] = energy
    return True


@inlined
def empty(states, energies, held, r):
    """Leave only the best state in the pool."""
    best = 0
    for k in range(energies.shape[1]):
        if energies[r, k] < energies[r, best]:
            best = k
    copy(states[r, best], states[r, 0])
    energies[r, 0] = energies[r, best]
    for k in range(1, energies.shape[1]):
        energies[r, k] = np.inf
    held[r] = 1


@inlined
def worst_energy(energies, r):
    """The highest energy of the pool; infinite as long as that has a place."""
    highest = energies[r, 0]
    for k in range(1, energies.shape[1]):
        highest = max(highest, energies[r, k])
    return highest


@jit
def search(
    exact, H, index, low, until, patience, relink, share, weakest, strongest, shortest,
    longest, spread, subsize, part_patience, scale, linear, offset, barred, unit, root,
    most, noise, here, u, z, cost, expiry, clock, found, value, lowest, best, rng,
    tenure, going, states, energies, held, stale, spent, runs,
):  # fmt: skip
    """Go on with every row's search until it has `spent` so many flips; counts `runs`.

    A run leaves a random state of the pool (the first one begins at ``here[r]``),
    searches with a tenure from `shortest` to `longest`, and offers its best state to
    the pool; first improved part by part, if `subsize` is not 0. A pool that stays as
    it is for long is emptied but for its best state; ``stale[r]`` counts runs since its
    last change. Where a search is cut does not change it. ``exact`` is the matrix that
    energies are computed with. A row where ``most[r]``, the longest possible tenure, is
    negative has no free variable, and is left alone.
    """
    n = H.shape[0]
    which = np.empty(n, np.int64)
    step = np.empty(n)
    order = np.empty(n, np.int64)
    for r in range(z.shape[0]):
        while spent[r] < until and most[r] >= 0:
            if not going[r]:
                a = draw(rng, r, 0, held[r] - 1) if held[r] else -1
                if a >= 0:
                    follow(exact, scale, r, states[r, a], here, u, which, step)
                value[r] = exact_energy(scale, linear, offset, r, here, u) / unit[r]
                stand(exact, scale, barred, unit, root, r, noise, here, u, z, cost)
                if a >= 0:
                    made, change = leave(
                        H, r, a, relink, share, weakest, strongest, z, cost, expiry,
                        states, held, rng, index, low,
                    )  # fmt: skip
                    spent[r] += made
                    value[r] += change
                begin(r, n, z, expiry, clock, found, value, lowest, best)
                tenure[r] = min(draw(rng, r, shortest, longest), most[r])
                going[r] = True
            spent[r] += tabu(
                H, z, cost, expiry, r, until - spent[r], patience, tenure[r],
                min(spread, most[r] - tenure[r]), noise[r], clock, found, value,
                lowest, best, rng, index, low,
            )  # fmt: skip
            if not ended(clock, found, r, patience):
                continue
            going[r] = False
            runs[r] += 1
            stale[r] += 1
            if stale[r] >= STALE * states.shape[1]:
                # States that are all alike lead nowhere new.
                empty(states, energies, held, r)
                stale[r] = 0
            # Most runs end above the pool: parts and exact energies would be wasted.
            if lowest[r] > worst_energy(energies, r) / unit[r] + 100.0 * noise[r]:
                continue
            follow(exact, scale, r, best[r], here, u, which, step)
            if subsize:
                stand(exact, scale, barred, unit, root, r, noise, here, u, z, cost)
                spent[r] += sweep_parts(
                    H, subsize, part_patience, spread, r, noise[r], z, cost, expiry,
                    order, rng, index, low,
                )[1]  # fmt: skip
                signs(r, z, best)
                follow(exact, scale, r, best[r], here, u, which, step)
            energy = exact_energy(scale, linear, offset, r, here, u)
            if offer(states, energies, held, r, best[r], energy, DRIFT * unit[r]):
                stale[r] = 0
