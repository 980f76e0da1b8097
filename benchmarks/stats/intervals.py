"""Estimates with intervals, by drawing layers anew, and of each layer its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.stats.checks import groups, numbers
from solvers.checks import require_count
from solvers.errors import InputError
from solvers.qubo import Float

Statistic = Callable[[Float], Float]
"""From weights [B, N], how often each of N values was drawn, to figures [B, ...]."""

RESAMPLES = 2000
"""How often values are drawn anew, unless said otherwise."""

# Most weights held at a time.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its interval, of 95 % unless it says otherwise."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Band:
    """A curve with the ends of its interval, point by point: float64 [M] each."""

    value: Float
    low: Float
    high: Float

    def estimates(self) -> list[Estimate]:
        """The points, one by one."""
        points = zip(self.value, self.low, self.high, strict=True)
        return [Estimate(*map(float, point)) for point in points]


def bootstrap(
    statistic: Statistic,
    size: int,
    clusters: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic with its bootstrap interval, clusters and their values drawn anew.

    Each resample draws as many clusters as there are, with replacement, and of each
    drawn cluster as many of its values as it has, with replacement (Davison and
    Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8). The interval
    lies between percentiles of the resampled figures. With few clusters (below about
    ten) it is too short; with many values in each that vary much, slightly too long.

    What is paired stays paired, since one draw decides over all that a statistic reads:
    ``ratio(mean(a, w), mean(b, w))`` compares two solvers on the same runs.

    Parameters
    ----------
    statistic
        Computes the figures from the weights of the values, as the functions of
        `benchmarks.stats.weighted` do.
    size
        Number N of values.
    clusters : [N], optional
        Labels of the clusters, such as the layers. Without them all values are one
        sample, and drawn one by one.
    resamples
        How many.
    level
        Probability that the interval is to hold.
    seed
        Seed of the draws.

    Returns
    -------
    Estimate
        The statistic of the values themselves, with its interval.
    """
    value, low, high = _resampled(statistic, size, clusters, resamples, level, seed)
    if value.ndim:
        raise InputError("the statistic is a curve: use bootstrap_band")
    return Estimate(float(value), float(low), float(high))


def bootstrap_band(
    statistic: Statistic,
    size: int,
    clusters: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Band:
    """As `bootstrap`, for statistics that give curves: figures ``[B, M]``.

    The interval holds at each point by itself, not for the whole curve at once.
    """
    value, low, high = _resampled(statistic, size, clusters, resamples, level, seed)
    if value.ndim != 1:
        raise InputError("the statistic is no curve: use bootstrap")
    return Band(value, low, high)


def quartile_band(gaps: ArrayLike) -> Band:
    """The median of N runs and their quartiles, at each of M times.

    How much runs differ, where `bootstrap_band` says how well their median is known.

    Parameters
    ----------
    gaps : [N, M]
        Such as `GapTraces.at` gives.
    """
    low, middle, high = np.quantile(numbers("gaps", gaps, 2), (0.25, 0.5, 0.75), axis=0)
    return Band(middle, low, high)


def _resampled(
    statistic: Statistic,
    size: int,
    clusters: ArrayLike | None,
    resamples: int,
    level: float,
    seed: int,
) -> tuple[Float, Float, Float]:
    """The statistic, and the ends of its interval."""
    require_count("size", size)
    require_count("resamples", resamples)
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, not {level}")
    owner = groups(clusters, size)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // size)
    figures = np.concatenate(
        [
            statistic(_weights(owner, min(rows, resamples - done), generator))
            for done in range(0, resamples, rows)
        ]
    )
    figures.sort(axis=0)
    # Whole ranks, outwards: between a finite and an infinite figure there is nothing.
    tail = (1 - level) / 2 * (resamples - 1)
    low, high = figures[int(tail)], figures[resamples - 1 - int(tail)]
    return statistic(np.ones((1, size)))[0], low, high


def _weights(
    owner: NDArray[np.intp], rows: int, generator: np.random.Generator
) -> Float:
    """How often each value is drawn in each of `rows` resamples, [rows, N]."""
    size = len(owner)
    members = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner)
    begins = np.cumsum(sizes) - sizes
    drawn = generator.integers(len(sizes), size=(rows, len(sizes)))
    lengths = sizes[drawn].ravel()
    places = np.repeat(begins[drawn].ravel(), lengths)
    places += generator.integers(np.repeat(lengths, lengths))
    row = np.repeat(np.arange(rows), sizes[drawn].sum(axis=1))
    counts = np.bincount(row * size + members[places], minlength=rows * size)
    return counts.reshape(rows, size).astype(np.float64)
