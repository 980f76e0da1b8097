"""Enumeration of all states of small models, in blocks of states."""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inner, inner_min, jit

# Variables of the lower and the upper half of a block's bits. The energies of all
# 2^(LOW + MIDDLE) states of a block, without what the variables outside add, are one
# table that stays in the nearest cache; a pass over it costs two additions and a
# minimum per state.
LOW, MIDDLE = 5, 6


@inner
def sums_of_subsets(values, first, count, out):
    """``out[a]``: the sum of ``values[first + j]`` over the bits j set in a."""
    out[0] = 0.0
    for j in range(count):
        size = 1 << j
        for a in range(size):
            out[size + a] = out[a] + values[first + j]


@inner_min
def least(table, low, middle, smallest):
    """Least of ``table[b, a] + low[a] + middle[b]``; `smallest` is working space."""
    for a in range(table.shape[1]):
        smallest[a] = np.inf
    for b in range(table.shape[0]):
        extra = middle[b]
        for a in range(table.shape[1]):
            smallest[a] = min(smallest[a], table[b, a] + (low[a] + extra))
    result = np.inf
    for a in range(table.shape[1]):
        result = min(result, smallest[a])
    return result


@jit
def blocks(count):
    """Number of blocks of all states of `count` variables."""
    return 1 << max(count - LOW - MIDDLE, 0)


@jit
def enumerate_states(Q, c, first, last, energy, best):
    """Least ``x^T Q x + c.x`` over the states of blocks `first` to before `last`.

    A block's number is the upper bits of its states. What these variables add to the
    linear terms of the others is kept for every prefix of bits, so that counting up
    costs two vectors a step and rounding does not build up. Improves ``energy``, of
    shape [1], and ``best[m]``.
    """
    inside = LOW + MIDDLE
    m = max(len(c), inside)
    if len(c) < m:
        # Variables without effect fill the block up.
        small_Q, small_c = Q, c
        Q, c = np.zeros((m, m)), np.zeros(m)
        Q[: len(small_c), : len(small_c)] = small_Q
        c[: len(small_c)] = small_c
    high = m - inside
    table = np.zeros((1 << MIDDLE, 1 << LOW))
    low, middle = np.zeros(1 << LOW), np.zeros(1 << MIDDLE)
    for state in range(1 << inside):
        total = 0.0
        for i in range(inside):
            if state >> i & 1:
                for j in range(inside):
                    if state >> j & 1:
                        total += Q[i, j]
        table[state >> LOW, state & ((1 << LOW) - 1)] = total
    # pull[h]: linear terms of all variables, given the upper variables from h on.
    pull, value = np.zeros((high + 1, m)), np.zeros(high + 1)
    pull[high] = c
    smallest = np.zeros(1 << LOW)
    changed = high
    for number in range(first, last):
        for h in range(changed - 1, -1, -1):
            i = inside + h
            if number >> h & 1:
                value[h] = value[h + 1] + pull[h + 1, i] + Q[i, i]
                for j in range(m):
                    pull[h, j] = pull[h + 1, j] + 2.0 * Q[i, j]
            else:
                value[h] = value[h + 1]
                for j in range(m):
                    pull[h, j] = pull[h + 1, j]
        # Counting up changes the trailing 1 bits and the 0 bit above them.
        changed = 1
        while number >> (changed - 1) & 1:
            changed += 1
        changed = min(changed, high)
        sums_of_subsets(pull[0], 0, LOW, low)
        sums_of_subsets(pull[0], LOW, MIDDLE, middle)
        here = value[0] + least(table, low, middle, smallest)
        if here >= energy[0]:
            continue
        energy[0] = np.inf
        for state in range(1 << inside):
            b, a = state >> LOW, state & ((1 << LOW) - 1)
            total = value[0] + (table[b, a] + (low[a] + middle[b]))
            if total < energy[0]:
                energy[0] = total
                for i in range(min(inside, len(best))):
                    best[i] = state >> i & 1
                for h in range(high):
                    best[inside + h] = number >> h & 1
