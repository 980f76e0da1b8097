"""Figures of weighted values, for plain use and for the bootstrap.

Weights are [..., N], how often each of the N values counts; the figures have their
leading axes. Without weights each value counts once.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.stats.checks import numbers
from solvers.errors import InputError
from solvers.qubo import Float


def mean(values: ArrayLike, weights: Float | None = None) -> Float:
    """Weighted means.

    Parameters
    ----------
    values : [N] or [N, M]
        Finite numbers.
    weights : [..., N], optional
        Their weights.

    Returns
    -------
    float64 [...] or [..., M]
        The means.
    """
    array = _values(values)
    w = _weights(weights, len(array))
    total = w.sum(axis=-1)
    return np.asarray(w @ array / (total[..., None] if array.ndim > 1 else total))


def median(values: ArrayLike, weights: Float | None = None) -> Float:
    """Weighted medians; infinite values sort last.

    The middle of the values, each as often as its weight says, or half-way between the
    two middle ones.

    Parameters
    ----------
    values : [N] or [N, M]
        Numbers or +inf.
    weights : [..., N], optional
        Their weights.

    Returns
    -------
    float64 [...] or [..., M]
        The medians.
    """
    array = _values(values, infinite=True)
    w = _weights(weights, len(array))
    if array.ndim > 1:
        return np.stack([median(column, w) for column in array.T], axis=-1)
    order = np.argsort(array)
    array, up_to = array[order], np.cumsum(w[..., order], axis=-1)
    half = up_to[..., -1:] / 2
    lower = array[np.argmax(up_to >= half, axis=-1)]
    upper = array[np.argmax(up_to > half, axis=-1)]
    return np.asarray((lower + upper) / 2)


def shifted_geometric_mean(
    values: ArrayLike, shift: float, weights: Float | None = None
) -> Float:
    """Shifted geometric means: exp(mean(log(x + s))) - s.

    As in the benchmarks of mixed-integer programming (Achterberg, *Constraint Integer
    Programming*, 2007, appendix A.3): the shift keeps values far below it from
    deciding. It has the unit of the values; 0 gives the geometric mean.

    Parameters
    ----------
    values : [N] or [N, M]
        Finite numbers from 0; a censored time enters as its limit.
    shift
        s, at least 0.
    weights : [..., N], optional
        Their weights.

    Returns
    -------
    float64 [...] or [..., M]
        The means.
    """
    if not 0 <= shift < math.inf:
        raise InputError(f"shift must be at least 0 and finite, not {shift}")
    array = _values(values, least=0.0)
    if shift == 0 and (array == 0).any():
        raise InputError("values hold a 0, whose logarithm needs a shift above 0")
    return np.exp(mean(np.log(array + shift), weights)) - shift


def ratio(a: Float, b: Float) -> Float:
    """How many times b is a: a / b, and 1 where the two are equal, even 0 or infinite.

    Parameters
    ----------
    a, b : [...]
        Figures of two solvers, at least 0.
    """
    a, b = np.broadcast_arrays(a, b)
    result = np.ones(a.shape)
    with np.errstate(divide="ignore"):
        np.divide(a, b, out=result, where=a != b)
    return result


def rank_biserial(differences: ArrayLike, weights: Float | None = None) -> Float:
    """Matched-pairs rank-biserial correlations: how one-sided paired differences are.

    (R₊ - R₋) / (R₊ + R₋), R₊ and R₋ the sums of Wilcoxon's ranks of the positive and
    the negative differences (Kerby, *The simple difference formula*, 2014): -1 if all
    are negative, 1 if all are positive. Zeros are left out, ties share their mean rank;
    without any difference it is 0.

    Parameters
    ----------
    differences : [N] or [N, M]
        Finite differences.
    weights : [..., N], optional
        Their weights, whole numbers.

    Returns
    -------
    float64 [...] or [..., M]
        From -1 to 1.
    """
    array = _values(differences)
    w = _weights(weights, len(array))
    if array.ndim > 1:
        return np.stack([rank_biserial(column, w) for column in array.T], axis=-1)
    w = w * (array != 0)
    order = np.argsort(np.abs(array))
    array, w = array[order], w[..., order]
    begins = np.flatnonzero(np.diff(np.abs(array), prepend=-1.0))
    tied = np.add.reduceat(w, begins, axis=-1)
    signed = np.add.reduceat(w * np.sign(array), begins, axis=-1)
    ranks = np.cumsum(tied, axis=-1) - (tied - 1) / 2
    total = (ranks * tied).sum(axis=-1)
    balance = (ranks * signed).sum(axis=-1)
    result: Float = np.zeros_like(total)
    np.divide(balance, total, out=result, where=total > 0)
    return result


def _values(
    values: ArrayLike, *, least: float = -math.inf, infinite: bool = False
) -> Float:
    array = numbers("values", values, None, least=least, infinite=infinite)
    if array.ndim not in (1, 2):
        raise InputError(f"values must have 1 or 2 axes, not {array.ndim}")
    return array


def _weights(weights: Float | None, size: int) -> Float:
    if weights is None:
        return np.ones(size)
    if weights.shape[-1] != size:
        raise InputError(f"there are {weights.shape[-1]} weights for {size} values")
    return weights
