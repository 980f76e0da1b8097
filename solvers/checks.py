"""Checks of arrays for all packages, each with an error message of one clear line."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.errors import InputError

# Largest |M - M^T| that is attributed to rounding, relative to max |M|.
SYMMETRY_TOLERANCE = 1e-6
# A negative eigenvalue above -NEGATIVE * trace is attributed to float32 rounding.
NEGATIVE = 1e-7
# Rows compared with columns at a time, so that the check needs little memory.
_STRIPE = 256


def finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """`values` as a C-contiguous float64 array; NaN and inf are refused."""
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise TypeError("complex")
        array = np.array(array, np.float64, order="C", copy=None)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be real numbers in a regular array") from error
    require_finite(name, array)
    return array


def binary(name: str, values: ArrayLike) -> NDArray[np.uint8]:
    """`values` as a C-contiguous uint8 array; all but 0 and 1 are refused."""
    array = np.asarray(values)
    if array.dtype == np.uint8:
        valid = array.max(initial=0) <= 1
    else:
        valid = bool(((array == 0) | (array == 1)).all())
    if not valid:
        raise InputError(f"{name} may hold only 0 and 1")
    return np.ascontiguousarray(array, np.uint8)


def require_finite(name: str, array: NDArray[Any]) -> None:
    """Refuse NaN and inf; the message gives the index of the first."""
    # A finite sum has finite terms, and needs no array of booleans. A sum that is not
    # finite may only have overflowed, so its terms are then looked at.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise InputError(f"{name}{list(index)} is {array[index]}; it must be finite")


def require_symmetric(name: str, M: NDArray[Any]) -> None:
    """Refuse a matrix that differs from its transpose by more than rounding."""
    if not M.size:
        return
    limit = SYMMETRY_TOLERANCE * max(abs(float(M.max())), abs(float(M.min())))
    for first in range(0, len(M), _STRIPE):
        stripe = slice(first, first + _STRIPE)
        difference = np.abs(M[stripe, first:] - M[first:, stripe].T)
        if float(difference.max()) > limit:
            worst = np.unravel_index(int(difference.argmax()), difference.shape)
            i, j = (first + int(k) for k in worst)
            raise InputError(
                f"{name} is not symmetric: {name}[{i}, {j}] = {M[i, j]:.6g} but "
                f"{name}[{j}, {i}] = {M[j, i]:.6g}"
            )


def require_semidefinite(name: str, M: NDArray[np.float64]) -> None:
    """Refuse an asymmetric M, or one that is indefinite beyond rounding."""
    import scipy.linalg

    require_symmetric(name, M)
    trace = float(np.trace(M))
    shifted = M.copy()
    shifted[np.diag_indices(len(M))] += NEGATIVE * abs(trace) + np.finfo(float).tiny
    # A Cholesky factor exists exactly when no eigenvalue is below minus the shift, and
    # takes a fraction of the time of the eigenvalues.
    if scipy.linalg.lapack.dpotrf(shifted, clean=False, overwrite_a=True)[1] != 0:
        least = float(scipy.linalg.eigvalsh(M, subset_by_index=[0, 0])[0])
        raise InputError(
            f"{name} has a negative eigenvalue, {least:.3g} (trace {trace:.3g}); a "
            "second moment has none"
        )
