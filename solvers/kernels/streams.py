"""Random streams: splitmix64 (Steele, Lea, Flood 2014)."""

from __future__ import annotations

import numpy as np

from solvers.kernels.compile import inner, jit

# The step of splitmix64: a random stream is a counter, so its draws vectorise.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inner
def to_bits(x):
    """The 64 bits of splitmix64 (Steele, Lea, Flood 2014) for the counter x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inner
def to_uniform(x):
    """The number in [0, 1) of splitmix64 for the counter x."""
    x = to_bits(x)
    return np.float64(np.int64(x >> np.uint64(11))) * (1.0 / 9007199254740992.0)


@jit
def next_uniform(rng, r):
    """The next number in [0, 1) of stream r."""
    rng[r] += GOLDEN
    return to_uniform(rng[r])


@jit
def bernoulli(p, rng, samples):
    """Fill ``samples[R, K, n]`` with independent draws of probability ``p[R, n]``."""
    rows, count, n = samples.shape
    for r in range(rows):
        for k in range(count):
            for i in range(n):
                samples[r, k, i] = next_uniform(rng, r) < p[r, i]
