"""Quantization grids: which values a weight may take, and how the step is found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qubo_rounding.problem.scale_search import (
    Fit,
    Integers,
    least_output_mse,
    least_weight_mse,
    nearest,
)
from solvers.checks import finite
from solvers.errors import InputError, UnknownNameError
from solvers.threads import one_blas_thread

Array = NDArray[np.float64]
Granularity = Literal["tensor", "channel", "group"]
ScaleRule = Literal["minmax", "weight-mse", "output-mse", "percentile"]
Saturated = Literal["fixed", "free"]


@dataclass(frozen=True)
class Encoding:
    """The grid of every weight of a matrix ``[R, n]``: values ``scale · q``.

    Attributes
    ----------
    scale
        ``float64[R, 1]`` or ``[R, n]``, positive.
    lo, hi
        ``int32``, shape ``(1, 1)``, ``[R, 1]`` or ``[R, n]``: the integers ``q``
        run over ``lo..hi``. An asymmetric zero point z is absorbed: ``lo = −z``.
    """

    scale: Array
    lo: NDArray[np.int32]
    hi: NDArray[np.int32]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise InputError("encoding scale must be positive and finite everywhere")
        if not (self.lo < self.hi).all():
            raise InputError("encoding needs lo < hi everywhere")
        with np.errstate(over="ignore"):
            ends = self.scale * self.lo, self.scale * self.hi
        if not np.isfinite(ends).all():
            raise InputError(
                "the ends of the grid leave the range of float64: the weights are too "
                "large; divide them by a constant"
            )

    def nearest(self, weight: Array) -> Array:
        """Round each weight to its nearest grid value, ties to the even integer."""
        return nearest(weight, self.scale, self.lo, self.hi)


@dataclass(frozen=True)
class Grid:
    """How weights are quantized.

    Parameters
    ----------
    bits
        2 to 8.
    symmetric
        Integers ``[−2^(b−1), 2^(b−1)−1]`` when true; otherwise 2^b integers with
        an integer zero point fitted to the weights. Zero is always on the grid.
    restricted
        Symmetric only: drop the lowest integer, ``[−(2^(b−1)−1), 2^(b−1)−1]``.
    granularity
        One scale per ``"tensor"``, per ``"channel"`` (row), or per ``"group"`` of
        ``group_size`` consecutive input columns of a row.
    group_size
        Columns per group; the last group may be shorter.
    scale
        ``"minmax"``: smallest scale that clips nothing. ``"weight-mse"``: least
        ``‖W − RTN(W)‖²``. ``"output-mse"``: least ``‖Wx − RTN(W)x‖²``.
        ``"percentile"``: like min-max after dropping the outer weights.
    percentile
        Where ``"percentile"`` cuts, in percent and at both ends; over 50, at most
        100 (which is min-max).
    saturated
        Whether weights outside the range are ``"fixed"`` to the outermost value
        (AdaRound, eq. 9-10) or ``"free"`` to choose between the two outermost.
        Only the rounding problem uses it; the scale does not depend on it.
    turns
        Rounds in which the scale, and the zero point of an asymmetric grid, are fitted
        to the rounded weights, and the weights rounded once more, each in turn: see
        `qubo_rounding.problem.in_turn.solve_in_turn`. They begin at the scale of the
        rule, which is what `fit` finds; 0 stays with it.

    Raises
    ------
    InputError
        If a field is out of range or contradicts another.
    """

    bits: int = 4
    symmetric: bool = True
    restricted: bool = False
    granularity: Granularity = "tensor"
    group_size: int | None = None
    scale: ScaleRule = "weight-mse"
    percentile: float = 99.9
    saturated: Saturated = "fixed"
    turns: int = 0

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise InputError(f"bits must be an integer from 2 to 8, got {self.bits!r}")
        if self.restricted and not self.symmetric:
            raise InputError("restricted=True needs a symmetric grid")
        for kind, name, known in (
            ("granularity", self.granularity, get_args(Granularity)),
            ("scale rule", self.scale, get_args(ScaleRule)),
            ("saturated", self.saturated, get_args(Saturated)),
        ):
            if name not in known:
                raise UnknownNameError(kind, str(name), known)
        if (self.granularity == "group") != (self.group_size is not None):
            raise InputError(
                f"granularity {self.granularity!r} and group_size {self.group_size} "
                "contradict each other; give group_size exactly with 'group'"
            )
        if self.group_size is not None and (
            type(self.group_size) is not int or self.group_size < 1
        ):
            raise InputError(
                f"group_size must be an integer of at least 1, got {self.group_size!r}"
            )
        if not 50 < self.percentile <= 100:
            raise InputError(
                f"percentile must be over 50 and at most 100, got {self.percentile}"
            )
        if type(self.turns) is not int or self.turns < 0:
            raise InputError(
                f"turns must be an integer of at least 0, got {self.turns!r}"
            )

    def fit(self, weight: Array, moment: Array | None = None) -> Encoding:
        """Find the scale, and the zero point of an asymmetric grid.

        The searches try a dense set of clipping ranges, then refine the best. The
        output MSE of groups, which interact within a row, is lowered group by
        group from the weight-MSE scales until a pass ends (coordinate descent, two
        passes), so it is never above that of the weight-MSE scales.

        Parameters
        ----------
        weight
            ``[R, n]``.
        moment
            ``[n, n]``, or ``[G, n, n]`` with the rows in G equal blocks: E[x xᵀ];
            needed by ``"output-mse"`` and unused by the other rules.

        Raises
        ------
        InputError
            If the weights are not a non-empty finite matrix, or the moment is
            missing, of another shape or not finite.
        """
        weight = finite("weight", weight)
        if weight.ndim != 2 or weight.size == 0:
            raise InputError(
                f"weight has shape {weight.shape}, expected a non-empty [rows, n]"
            )
        # Squares of tiny or huge weights would leave the range of float64.
        unit = float(np.abs(weight).max()) or 1.0
        unit = unit if math.isfinite(1 / unit) else 1.0
        weight = weight / unit
        columns = self.column_groups(weight.shape[1])
        fits = [self._fit_range(weight[:, c]) for c in columns]
        if self.scale in ("weight-mse", "output-mse"):
            fits = [
                least_weight_mse(self._integers, weight[:, c], fit)
                for c, fit in zip(columns, fits, strict=True)
            ]
        if self.scale == "output-mse":
            if moment is None:
                raise InputError("scale rule 'output-mse' needs the second moment")
            moment = _checked_moment(moment, *weight.shape)
            with one_blas_thread(weight.shape[1]):
                fits = least_output_mse(self._integers, weight, moment, columns, fits)
        return self._encoding(fits, columns, weight.shape, unit)

    @property
    def _integers(self) -> Integers:
        zero = 2 ** (self.bits - 1) - int(self.restricted) if self.symmetric else None
        levels = 2**self.bits - 1 - int(self.restricted)
        return Integers(levels, zero, shared=self.granularity == "tensor")

    def column_groups(self, n: int) -> list[slice]:
        """The columns that share a scale within a row, of n in all."""
        size = self.group_size or n
        return [slice(start, min(start + size, n)) for start in range(0, n, size)]

    def _fit_range(self, block: Array) -> Fit:
        """The fit that covers all weights, or those between two percentiles."""
        share = self.percentile if self.scale == "percentile" else 100.0
        axis = None if self.granularity == "tensor" else 1
        low, high = np.percentile(block, [100 - share, share], axis=axis, keepdims=True)
        return self._integers.cover(low, high)

    def _encoding(
        self, fits: list[Fit], columns: list[slice], shape: tuple[int, ...], unit: float
    ) -> Encoding:
        widths = [c.stop - c.start for c in columns]
        scale = np.concatenate([fit[0] for fit in fits], axis=1)
        zero = np.concatenate([fit[1] for fit in fits], axis=1)
        if self.granularity == "group":
            scale, zero = (np.repeat(a, widths, axis=1) for a in (scale, zero))
        scale = np.repeat(scale * unit, shape[0] // len(scale), axis=0)
        # Blocks that are all zero, or underflow, can have any step.
        scale[scale < np.finfo(np.float64).tiny] = 1.0
        lo = (-zero[:1, :1] if self.symmetric else -zero).astype(np.int32)
        return Encoding(scale, lo, lo + np.int32(self._integers.levels))


def _checked_moment(moment: Array, rows: int, n: int) -> Array:
    array = finite("moment", moment)
    moment = array[None] if array.ndim == 2 else array
    fits = moment.ndim == 3 and moment.shape[1:] == (n, n) and len(moment) > 0
    if not fits or rows % len(moment):
        raise InputError(
            f"moment has shape {moment.shape}, expected ({n}, {n}) or "
            f"(groups, {n}, {n}) with groups dividing the {rows} rows"
        )
    return moment
