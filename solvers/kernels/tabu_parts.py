"""Parts of a row searched by tabu runs, in turn, with all other variables clamped."""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inlined, inner
from solvers.kernels.tabu import (
    FLOAT,
    FREE,
    NEVER,
    NONE,
    ONE,
    ZERO,
    begin,
    ended,
    places,
    tabu,
    turn,
    update,
)
from solvers.kernels.tabu_state import Matrix, Run

# Parts of an order that are no longer than this are sorted by insertion.
SHORT = 15


@inlined
def divide(cost, r, order, first, last):
    """Divide ``order[first : last + 1]`` into variables cheaper than one, and the rest.

    Returns the place in `order` of the variable between them.
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
    """Sort row r's variables into `order` by the costs of their flips, cheapest first.

    Returns the number of free variables, which come first.
    """
    for i in range(n):
        order[i] = i
    # Quicksort; numpy's takes ten times as long to compile. The larger of two parts
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
    """The model of the chosen variables, with all others clamped at their values.

    The costs account for the clamped variables, so that a part needs nothing else.
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
def sweep_parts(matrix, run, r, subsize, patience, spread, noise, order, rng):
    """Search part after part of the row from its present state, the others clamped.

    Parts are the free variables in the order of their flips' costs, cheapest first,
    `subsize` at a time. The row moves to the best state of each part. Returns the
    number of free variables, and the number of iterations.
    """
    H, index, low = matrix.H, matrix.labels, matrix.low
    z, cost, expiry = run.z, run.cost, run.expiry
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
    clock, found = np.empty(1, np.int64), np.empty(1, np.int64)
    value, lowest = np.empty(1), np.empty(1)
    best = np.empty((1, subsize), np.uint8)
    inside = Run(part_z, part_cost, part_expiry, clock, found, value, lowest, best)
    # A number that is written down has a copy of the kernels made for itself: a third
    # of a second to compile, and parts are searched 5 % faster.
    alone = 0
    free = by_cost(cost, r, H.shape[0], order)
    made = 0
    for first in range(0, free, subsize):
        chosen = order[first : min(first + subsize, free)]
        size = len(chosen)
        half = size // 2
        tenure = min(max(1, size // 20), half)
        part(H, z, cost, r, chosen, part_H, part_z, part_cost)
        value[0] = 0.0
        begin(alone, size, inside)
        model = Matrix(part_H[:size], index[:lanes], part_low)
        more = min(spread, half - tenure)
        while not ended(clock, found, alone, patience):
            tabu(
                model,
                inside,
                alone,
                patience,
                patience,
                tenure,
                more,
                noise,
                rng[r : r + 1],
            )
        made += clock[0]
        for a in range(size):
            i = chosen[a]
            if best[0, a] != (z[r, i] < 0.0):
                step = turn(H, z, cost, expiry, r, i, FREE)
                update(H, z, cost, expiry, r, i, step, FREE, -NEVER, index, low)
    return free, made
