"""Ranges of activations: the integers of a tensor, and the rules that choose them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.checks import is_number, is_whole
from solvers.errors import InputError, UnknownNameError, shown

Array = NDArray[np.float64]
Loss = Callable[["Histogram", "ActivationRange"], float]
RULES = ("minmax", "percentile", "mse", "kl")
DEFAULT_PERCENTILE = 99.99

# A step of 8 bits spans 32 bins, so that the mean error of a bin's centre is its own.
BINS = 8192
# The histogram of Migacz (2017): few enough for every bin to hold values.
KL_BINS = 2048
# Shares of the observed range that are tried.
_SHARES = np.arange(1, 101) / 100


@dataclass(frozen=True)
class ActivationRange:
    """What the numbers of a tensor are rounded to: ``scale * (q - zero_point)``.

    Attributes
    ----------
    bits
        2 to 8; the integers q run from `lo` to `hi`.
    scale
        Step between two values, positive and a float32.
    zero_point
        The integer of zero, from `lo` to `hi`.
    signed
        Whether the integers are those of int8 (of `bits`) instead of uint8.

    Raises
    ------
    InputError
        A field is of another kind or out of range.
    """

    bits: int
    scale: float
    zero_point: int
    signed: bool

    def __post_init__(self) -> None:
        if not (is_whole(self.bits) and 2 <= self.bits <= 8):
            raise InputError(
                f"activations take 2 to 8 bits, a whole number, not {shown(self.bits)}"
            )
        if type(self.signed) is not bool:
            raise InputError(f"signed must be true or false, not {shown(self.signed)}")
        if not (is_whole(self.zero_point) and self.lo <= self.zero_point <= self.hi):
            raise InputError(
                f"the zero point must be a whole number from {self.lo} to {self.hi}, "
                f"not {shown(self.zero_point)}"
            )
        if not (
            is_number(self.scale)
            and 0 < self.scale < math.inf
            and float(np.float32(self.scale)) == self.scale
        ):
            raise InputError(
                f"the scale must be a positive float32, not {shown(self.scale)}"
            )

    @property
    def lo(self) -> int:
        """The lowest integer."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def hi(self) -> int:
        """The highest integer."""
        return self.lo + (1 << self.bits) - 1

    @classmethod
    def cover(
        cls, low: float, high: float, bits: int, symmetric: bool
    ) -> ActivationRange:
        """The range of zero and all from `low` to `high`.

        Symmetric ranges are signed, with zero as the integer 0. Others are unsigned,
        and what starts at zero, as after a ReLU, has the zero point 0.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if symmetric:
            steps = 2 ** (bits - 1) - 1
            return cls(bits, _step(max(-low, high) / steps), 0, True)
        scale = _step((high - low) / (2**bits - 1))
        return cls(bits, scale, min(round(-low / scale), 2**bits - 1), False)

    def integers(self, values: Array) -> Array:
        """The integers of the nearest steps, before those outside are clipped."""
        return np.rint(values / self.scale) + self.zero_point

    def nearest(self, values: Array) -> Array:
        """What `values` are rounded to."""
        q = np.clip(self.integers(values), self.lo, self.hi)
        return np.asarray(self.scale * (q - self.zero_point))


def _step(scale: float) -> float:
    """The scale as a float32; 1 for what is always zero."""
    single = np.float32(scale)
    return float(single) if single >= np.finfo(np.float32).tiny else 1.0


@dataclass(frozen=True, eq=False)
class Histogram:
    """Numbers of a tensor, counted.

    Attributes
    ----------
    low, high
        Ends of the bins, of equal width; ``low <= 0 <= high``.
    counts : float64 [BINS]
        How many numbers are in each bin.
    zeros
        How many of them are exactly zero.
    """

    low: float
    high: float
    counts: Array
    zeros: float

    def centres(self, bins: int) -> Array:
        """Middles of that many bins."""
        return self.low + (self.high - self.low) * (np.arange(bins) + 0.5) / bins

    def percentile(self, share: float) -> float:
        """The number below which `share` percent lie, linear within a bin."""
        below = np.concatenate([[0], np.cumsum(self.counts)])
        edges = np.linspace(self.low, self.high, len(below))
        return float(np.interp(share / 100 * below[-1], below, edges))

    def without_zeros(self, bins: int) -> Array:
        """The counts of fewer bins, less what is exactly zero."""
        counts = self.counts.reshape(bins, -1).sum(1)
        at = int(-self.low / (self.high - self.low) * bins)
        counts[min(at, bins - 1)] -= self.zeros
        return np.asarray(np.maximum(counts, 0))


def parse_rule(rule: str) -> tuple[str, float]:
    """A rule's name and its percentile, which only ``"percentile"`` reads.

    Raises
    ------
    InputError
        Unknown rule, or a percentile that is none.
    """
    name, colon, given = str(rule).partition(":")
    if name not in RULES:
        raise UnknownNameError("rule for activations", name, RULES)
    if not colon:
        return name, DEFAULT_PERCENTILE
    try:
        share = float(given)
    except ValueError:
        share = math.nan
    if name != "percentile" or not 50 < share <= 100:
        raise InputError(
            f"{shown(rule)} is no rule for activations: after a colon stands what "
            "percentile takes, over 50 and at most 100, as in percentile:99.99"
        )
    return name, share


def choose(
    rule: str, histogram: Histogram, bits: int, symmetric: bool
) -> ActivationRange:
    """The range of a tensor by a rule.

    Parameters
    ----------
    rule
        ``"minmax"``: all that was seen. ``"percentile:99.99"``: what is between this
        percentile and the one as far from the other end. ``"mse"``: least mean squared
        error of what was seen. ``"kl"``: least Kullback-Leibler divergence from the
        distribution that was seen, see `divergence`. The latter two search the shares
        of the observed range: of both ends at once, then of the upper end, then of
        the lower.
    """
    name, share = parse_rule(rule)
    low, high = histogram.low, histogram.high
    if low == high:
        name = "minmax"
    if name in ("mse", "kl"):
        loss = squared_error if name == "mse" else divergence
        return _search(loss, histogram, bits, symmetric)
    if name == "percentile":
        low, high = (histogram.percentile(p) for p in (100 - share, share))
    return ActivationRange.cover(low, high, bits, symmetric)


def squared_error(histogram: Histogram, candidate: ActivationRange) -> float:
    """Sum of squared errors of the rounded numbers."""
    centres = histogram.centres(BINS)
    return float(histogram.counts @ (centres - candidate.nearest(centres)) ** 2)


def divergence(histogram: Histogram, candidate: ActivationRange) -> float:
    """Kullback-Leibler divergence of the rounded numbers from the original ones.

    TensorRT's calibration (Migacz, *8-bit Inference with TensorRT*, GTC 2017): P is the
    histogram within the range, with what is outside added to its outermost bins that
    hold numbers; Q gives all bins of an integer that hold numbers the same share. Exact
    zeros count for neither, since every range has them.
    """
    counts = histogram.without_zeros(KL_BINS)
    q = candidate.integers(histogram.centres(KL_BINS)) - candidate.lo
    inside = (q >= 0) & (q < 2**candidate.bits)
    held = inside & (counts > 0)
    # Where fewer bins than integers hold numbers, rounding would seem to lose nothing.
    if held.sum() < 2**candidate.bits:
        return math.inf
    codes = q[held].astype(np.int64)
    mass = counts[held]
    Q = (np.bincount(codes, mass) / np.maximum(np.bincount(codes), 1))[codes]
    P = mass.copy()
    P[0] += counts[q < 0].sum()
    P[-1] += counts[q >= 2**candidate.bits].sum()
    P, Q = P / P.sum(), Q / Q.sum()
    return float(P @ np.log(P / Q))


def _search(
    loss: Loss, histogram: Histogram, bits: int, symmetric: bool
) -> ActivationRange:
    low, high = histogram.low, histogram.high

    def best(ends: list[tuple[float, float]]) -> tuple[float, float]:
        ranges = [ActivationRange.cover(a, b, bits, symmetric) for a, b in ends]
        # Of equally good ranges the widest, which is the last.
        return ends[-1 - int(np.argmin([loss(histogram, r) for r in ranges[::-1]]))]

    lower, upper = best([(t * low, t * high) for t in _SHARES])
    if low < 0 < high and not symmetric:
        lower, upper = best([(lower, t * high) for t in _SHARES])
        lower, upper = best([(t * low, upper) for t in _SHARES])
    return ActivationRange.cover(lower, upper, bits, symmetric)
