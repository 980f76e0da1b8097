"""The suite's problems: the same bits on every machine.

Random numbers are whole, and H and t are multiples of powers of two, so that sums and
products are exact in whichever order a machine takes them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import QuboBatch

Float = NDArray[np.floating[Any]]

# Correlation of neighbouring pixels, and of the colours of one pixel.
CORRELATION = 0.95
# Targets are odd multiples of 1 / TARGETS, so that 0 and 1 never tie.
TARGETS = 2**9


@cache
def problem(name: str) -> QuboBatch:
    """The batch of the problem with the given name.

    ``conv27``, ``conv147``: the patches of 3 × 3 and 7 × 7 colour pixels of a first
    layer; ``conv576``: 3 × 3 pixels of 64 channels, H in float32; ``flat``,
    ``flat20``: Wishart matrices, on which single flips do well.
    """
    makers = {
        "conv27": lambda: _rounding(_colours(3), 16, 2**24, np.float64),
        "conv147": lambda: _rounding(_colours(7), 64, 2**24, np.float64),
        "conv576": lambda: _rounding(_channels(64, 3), 16, 2**20, np.float32),
        "flat": lambda: _rounding(_wishart(128), 32, 2**20, np.float64),
        "flat20": lambda: _rounding(_wishart(20), 16, 2**20, np.float64),
    }
    return makers[name]()


def _colours(side: int) -> Float:
    """Second moments of square patches of three correlated colours."""
    return _with_mean(np.kron(_autoregressive(3), _patch(side)), np.full(3, 1.0))


def _channels(count: int, side: int) -> Float:
    """Second moments of square patches of many channels with common factors."""
    rng = np.random.default_rng(1)
    loadings = rng.integers(-1, 2, (count, count // 4)).astype(np.float64)
    channels = loadings @ loadings.T / count + 0.25 * np.eye(count)
    return _with_mean(np.kron(channels, _patch(side)), rng.integers(0, 65, count) / 64)


def _wishart(n: int) -> Float:
    """A Wishart matrix of n variables."""
    factors = np.random.default_rng(2).integers(-8, 9, (n, 4 * n)).astype(np.float64)
    return factors @ factors.T / 2**13


def _patch(side: int) -> Float:
    """Covariance of the pixels of a square patch."""
    return np.kron(_autoregressive(side), _autoregressive(side))


def _autoregressive(n: int) -> Float:
    """``CORRELATION ** |i - j|``, by products, since pow differs between machines."""
    powers: Float = np.cumprod([1.0, *[CORRELATION] * (n - 1)])
    steps = np.arange(n)
    return np.take(powers, abs(steps[:, None] - steps))


def _with_mean(covariance: Float, means: Float) -> Float:
    """Second moments of inputs with a mean per channel and a deviation per input."""
    rng = np.random.default_rng(3)
    n = len(covariance)
    # Without deviations of their own, inputs that a reflection of the patch exchanges
    # would tie wherever an order is chosen, and rounding errors would decide.
    deviation = rng.integers(48, 81, n) / 64
    mean = np.repeat(means, n // len(means)) * rng.integers(60, 69, n) / 64
    return covariance * np.outer(deviation, deviation) + np.outer(mean, mean)


def _rounding(
    H: Float, rows: int, unit: int, dtype: type[np.floating[Any]]
) -> QuboBatch:
    """Random targets on a grid of 4 bits, and H in multiples of ``1 / unit``."""
    rng = np.random.default_rng(4)
    t = 2 * rng.integers(0, TARGETS // 2, (rows, len(H))) + 1
    base = rng.integers(0, 15, t.shape)
    whole = np.rint(H * unit).astype(np.int64)
    pull = t @ whole
    return QuboBatch(
        H=(whole / unit).astype(dtype),
        linear=-2 * pull / (unit * TARGETS),
        offset=(t * pull).sum(axis=1) / (unit * TARGETS**2),
        scale=np.ones((rows, 1)),
        prior=t / TARGETS,
        levels=np.stack([-base, 15 - base]).astype(np.int32),
    )
