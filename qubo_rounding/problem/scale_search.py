"""The search for the scale and zero point of a quantization grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Fit = tuple[Array, Array]
"""Scale and zero point: ``[R, 1]``, or ``[1, 1]`` when the rows share them."""
Objective = Callable[[Array, Array], Array]
"""Scale and zero point -> error, of the same shape."""

WEIGHT_SHARES = np.geomspace(0.02, 1.2, 32)
"""Coarse candidate scales for the weight MSE, in min-max scales."""
OUTPUT_SHARES = np.geomspace(0.4, 2.0, 16)
"""Coarse candidate scales for the output MSE, in scales of the weight MSE."""
FINE_SHARES = (np.geomspace(0.75, 4 / 3, 48), np.geomspace(0.985, 1.015, 48))
"""Candidates around the best scale so far: the objectives have many local minima."""
ZERO_POINTS = 16
"""Candidate zero points of an asymmetric grid, evenly spaced; all up to 4 bits."""
NEAR = (-2, -1, 0, 1, 2)
"""Zero points tried for the output MSE, relative to that of the weight MSE."""
MOVES = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]
"""Moves of the lower and the upper end of an asymmetric range."""
MOVE = 0.05
"""Length of `MOVES` in the first round, as a share of the range; halved every round."""
ZOOMS = 6
"""Rounds of `MOVES`."""
POLISHES = 20
"""Largest number of rounds that alternate rounding and scale after the search."""
OUTPUT_PASSES = 2
"""Passes over the groups of a row for the output MSE."""
BLOCK = 65536
"""Weights whose errors are computed at a time: 512 KiB, about a core's cache."""


@dataclass(frozen=True)
class Integers:
    """The integers of a grid, ``−z .. levels − z``, and whether rows share its scale.

    Attributes
    ----------
    levels
        Steps from the lowest to the highest value.
    zero
        The zero point z of a symmetric grid; None where it is fitted.
    shared
        Whether all rows have one scale and zero point.
    """

    levels: int
    zero: int | None
    shared: bool

    def cover(self, low: Array, high: Array) -> Fit:
        """Return the fit whose range just covers ``[low, high]`` and 0."""
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        if self.zero is None:
            scale = (high - low) / self.levels
            scale[scale == 0] = 1.0
            return scale, np.clip(np.rint(-low / scale), 0, self.levels)
        scale = np.maximum(-low / self.zero, high / (self.levels - self.zero))
        scale[scale == 0] = 1.0
        return scale, np.full_like(scale, self.zero)

    def pool(self, per_row: Array) -> Array:
        """``[R]`` -> ``[R, 1]``, or the ``[1, 1]`` sum when the rows share a scale."""
        return per_row.sum().reshape(1, 1) if self.shared else per_row[:, None]

    def error(self, block: Array, scale: Array, zero: Array) -> Array:
        """Return the rounded minus the exact weights."""
        error = nearest(block, scale, -zero, self.levels - zero)
        error -= block
        return error


def nearest(
    weight: Array,
    scale: Array,
    lo: Array | NDArray[np.int32],
    hi: Array | NDArray[np.int32],
) -> Array:
    """Round each weight to ``scale · q`` with an integer ``q`` in ``[lo, hi]``."""
    q: Array = weight / scale
    np.rint(q, out=q)
    np.clip(q, lo, hi, out=q)
    q *= scale
    return q


def least_weight_mse(integers: Integers, block: Array, start: Fit) -> Fit:
    """Minimise ``‖W − RTN(W)‖²`` over a block of columns ``[R, m]``.

    ``start`` is the min-max fit, from which the candidates are derived.
    """

    def errors(scale: Array, zero: Array) -> Array:
        return integers.pool(_row_errors(integers, block, scale, zero))

    zeros = [start[1]]
    if integers.zero is None:
        tried = np.unique(np.rint(np.linspace(0, integers.levels, ZERO_POINTS)))
        zeros = [np.full_like(start[1], z) for z in tried]
    scales = WEIGHT_SHARES[:, None, None] * start[0]
    fit = _search(integers, errors, start, scales, zeros)
    return _polish(integers, errors, block, fit)


def least_output_mse(
    integers: Integers,
    weight: Array,
    moment: Array,
    columns: list[slice],
    fits: list[Fit],
) -> list[Fit]:
    """Minimise ``‖Wx − RTN(W)x‖²``, one group of columns at a time.

    Never above the value of ``fits``, one for each of ``columns``. ``moment`` is
    ``[G, n, n]``; the rows are in G equal blocks.
    """
    fits = list(fits)
    error = np.empty_like(weight)
    for c, fit in zip(columns, fits, strict=True):
        error[:, c] = integers.error(weight[:, c], *fit)
    # Keeping error · H makes a group's change cost R · m² instead of R · n².
    field = _times(error, moment)
    for _ in range(1 if len(columns) == 1 else OUTPUT_PASSES):
        for k, c in enumerate(columns):
            objective = _output_change(
                integers, weight[:, c], error[:, c], field[:, c], moment[:, c, c]
            )
            near = (0,) if integers.zero is not None else NEAR
            zeros = [fits[k][1] + shift for shift in near]
            scales = OUTPUT_SHARES[:, None, None] * fits[k][0]
            fits[k] = _search(integers, objective, fits[k], scales, zeros)
            step = integers.error(weight[:, c], *fits[k]) - error[:, c]
            field += _times(step, moment[:, c])
            error[:, c] += step
    return fits


def _output_change(
    integers: Integers, block: Array, error: Array, field: Array, moment: Array
) -> Objective:
    """Change of the output MSE when a block's error is replaced by another fit's."""

    def change(scale: Array, zero: Array) -> Array:
        step = integers.error(block, scale, zero) - error
        gain = np.einsum("ij,ij->i", step, 2 * field + _times(step, moment))
        return integers.pool(gain)

    return change


def _search(
    integers: Integers,
    objective: Objective,
    start: Fit,
    scales: Array,
    zeros: list[Array],
) -> Fit:
    """The fit of least objective over scales and zero points, then nearby ranges.

    Never above the objective of ``start``.
    """
    scale, zero = start
    least = objective(scale, zero)

    def attempt(low: Array, high: Array) -> None:
        nonlocal scale, zero, least
        candidate = integers.cover(low, high)
        value = objective(*candidate)
        better = value < least
        scale = np.where(better, candidate[0], scale)
        zero = np.where(better, candidate[1], zero)
        least = np.where(better, value, least)

    for z in zeros:
        for s in scales:
            attempt(-z * s, (integers.levels - z) * s)
    for shares in FINE_SHARES:
        low, width = -zero * scale, integers.levels * scale
        for share in shares:
            attempt(share * low, share * (low + width))
    for k in range(ZOOMS if integers.zero is None else 0):
        low, width = -zero * scale, integers.levels * scale
        move = MOVE / 2**k * width
        for a, b in MOVES:
            attempt(low + a * move, low + width + b * move)
    return scale, zero


def _polish(integers: Integers, objective: Objective, block: Array, fit: Fit) -> Fit:
    """Alternate rounding and the best scale for it: never raises the error."""
    scale, zero = fit
    least = objective(scale, zero)
    for _ in range(POLISHES):
        q = np.clip(np.rint(block / scale), -zero, integers.levels - zero)
        num, den = integers.pool((q * block).sum(1)), integers.pool((q * q).sum(1))
        usable = (num > 0) & (den > 0)
        candidate = np.divide(num, den, out=scale.copy(), where=usable)
        value = objective(candidate, zero)
        better = value < least
        if not better.any():
            break
        scale = np.where(better, candidate, scale)
        least = np.where(better, value, least)
    return scale, zero


def _row_errors(integers: Integers, block: Array, scale: Array, zero: Array) -> Array:
    """``[R]``: squared error of each row, by blocks of rows that stay in cache."""
    errors = np.empty(len(block))
    size = max(1, BLOCK // block.shape[1])
    for first in range(0, len(block), size):
        rows = slice(first, first + size)
        scale_rows = rows if len(scale) > 1 else slice(None)
        error = integers.error(block[rows], scale[scale_rows], zero[scale_rows])
        errors[rows] = np.einsum("ij,ij->i", error, error)
    return errors


def _times(rows: Array, moment: Array) -> Array:
    """``rows[R, m] @ moment[G, m, k]``, each block of R/G rows with its own."""
    groups, m, k = moment.shape
    product: Array = rows.reshape(groups, -1, m) @ moment
    return product.reshape(-1, k)
