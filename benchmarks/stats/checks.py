"""Checks of what statistics are made of, each with an error message of one line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.checks import real
from solvers.errors import InputError
from solvers.qubo import Float


def numbers(
    name: str,
    values: ArrayLike,
    axes: int | None = 1,
    *,
    least: float = -math.inf,
    infinite: bool = False,
) -> Float:
    """`values` as float64, with at least one entry.

    Parameters
    ----------
    name
        What to call them in messages.
    values
        The numbers.
    axes
        How many axes there must be; None for any number of them.
    least
        The least number allowed.
    infinite
        Whether +inf is allowed. NaN and -inf never are.
    """
    array = np.asarray(real(name, values), np.float64)
    if axes is not None and array.ndim != axes:
        raise InputError(f"{name} must have {axes} axes, not {array.ndim}")
    if not array.size:
        raise InputError(f"{name} is empty; at least one entry is needed")
    highest = math.inf if infinite else np.finfo(np.float64).max
    # Comparisons with NaN are false.
    valid = (array >= least) & (array <= highest) & (array > -math.inf)
    if not valid.all():
        index = [int(i) for i in np.argwhere(~valid)[0]]
        wanted = "a number" if infinite else "finite"
        if least > -math.inf:
            wanted += f" and at least {least:g}"
        raise InputError(
            f"{name}{index or ''} is {array[tuple(index)]}; it must be {wanted}"
        )
    return array


def one_each(name: str, values: Float, length: int, of: str) -> Float:
    """`values` if it has one for each of `length` things; one alone is repeated."""
    if values.ndim == 0:
        return np.broadcast_to(values, (length,))
    require_length(name, values, length, of)
    return values


def require_length(name: str, values: NDArray[Any], length: int, of: str) -> None:
    """Refuse an array that has another length than what it belongs to."""
    if len(values) != length:
        raise InputError(f"{name} has {len(values)} entries for {length} {of}")


def groups(clusters: ArrayLike | None, length: int) -> NDArray[np.intp]:
    """Number of the cluster of each entry, from 0; without clusters, each has its own.

    Parameters
    ----------
    clusters : [N], optional
        Labels of the clusters, such as names of layers.
    length
        N.
    """
    if clusters is None:
        return np.arange(length)
    labels = np.asarray(clusters)
    if labels.ndim != 1:
        raise InputError(f"clusters must have 1 axis, not {labels.ndim}")
    require_length("clusters", labels, length, "values")
    numbered: NDArray[np.intp] = np.unique(labels, return_inverse=True)[1]
    return numbered
