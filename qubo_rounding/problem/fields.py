"""What the arrays of a rounding problem must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.checks import finite, require_semidefinite, whole
from solvers.errors import InputError

# Squares of larger numbers leave the range of float64.
LARGEST = 1e100
ARRAYS = ("weight", "scale", "lo", "hi", "moment", "gradient", "constant")


def checked(given: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The `ARRAYS` of a `RoundingProblem` that are given, in their types and shapes.

    Raises
    ------
    InputError
        As `RoundingProblem` says.
    """
    weight = finite("weight", given["weight"])
    if weight.ndim != 2 or weight.size == 0:
        raise InputError(
            f"weight must be a non-empty [rows, n] matrix, not {weight.shape}"
        )
    rows, n = weight.shape
    grid = checked_grid(weight, given["scale"], given["lo"], given["hi"])
    moment = _moment(given["moment"], rows, n)
    arrays: dict[str, NDArray[Any]] = {"weight": weight, **grid, "moment": moment}
    for name, shape in (("gradient", weight.shape), ("constant", (rows,))):
        if given[name] is not None:
            arrays[name] = finite(name, given[name])
            if arrays[name].shape != shape:
                raise InputError(
                    f"{name} must have shape {shape}, not {arrays[name].shape}"
                )
    return arrays


def checked_grid(
    weight: NDArray[np.float64], scale: Any, lo: Any, hi: Any
) -> dict[str, NDArray[Any]]:
    """Scale, `lo` and `hi` of a grid for weights [R, n], in their types and shapes.

    Raises
    ------
    InputError
        As `RoundingProblem` says.
    """
    rows, n = weight.shape
    scale = finite("scale", scale)
    if scale.size == 1:
        scale = np.full((rows, 1), scale.item())
    if scale.shape not in ((rows, 1), (rows, n)):
        raise InputError(
            f"scale must have shape {(rows, 1)} or {(rows, n)}, not {scale.shape}"
        )
    if not (scale > 0).all():
        raise InputError(f"scale must be positive; its minimum is {scale.min()}")
    if max(np.abs(weight).max(), scale.max(), 1 / scale.min()) > LARGEST:
        raise InputError("weight and scale must lie within 1e±100 in size")
    lo, hi = whole("lo", lo, np.int32), whole("hi", hi, np.int32)
    for name, bound in (("lo", lo), ("hi", hi)):
        try:
            np.broadcast_to(bound, weight.shape)
        except ValueError as error:
            raise InputError(
                f"{name} of shape {bound.shape} does not fit weight {weight.shape}"
            ) from error
    if not (lo < hi).all():
        raise InputError("lo must be below hi everywhere")
    return {"scale": scale, "lo": lo, "hi": hi}


def _moment(given: Any, rows: int, n: int) -> NDArray[np.float64]:
    moment = finite("moment", given)
    if moment.shape not in ((n, n), (rows * n, rows * n)) and not (
        moment.ndim == 3
        and moment.shape[1:] == (n, n)
        and len(moment) > 0
        and rows % len(moment) == 0
    ):
        raise InputError(
            f"moment must have shape {(n, n)}, (G, {n}, {n}) with G dividing the "
            f"{rows} rows, or {(rows * n, rows * n)}; not {moment.shape}"
        )
    for block in moment.reshape(-1, *moment.shape[-2:]):
        require_semidefinite("moment", block)
    return moment
