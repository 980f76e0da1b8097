"""Checks of arrays for all packages, each with an error message of one clear line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.errors import InputError, shown

# Largest |M - M^T| that is attributed to rounding, relative to max |M|.
SYMMETRY_TOLERANCE = 1e-6
# A negative eigenvalue above -NEGATIVE * trace is attributed to float32 rounding.
NEGATIVE = 1e-7
_Scalar = TypeVar("_Scalar", bound=np.generic)
_Integer = TypeVar("_Integer", bound=np.integer[Any])
# Rows compared with columns at a time, so that the check needs little memory.
_STRIPE = 256


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether `value` is one whole number; Python counts True and False among them."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is one real number, and not too large for a float."""
    if is_whole(value):
        return abs(int(value)) <= sys.float_info.max
    return isinstance(value, float | np.floating)


def require_count(name: str, value: Any) -> None:
    """Refuse all but one whole number from 1."""
    if not is_whole(value):
        raise InputError(f"{name} must be a whole number, not {shown(value)}")
    if value < 1:
        raise InputError(f"{name} must be at least 1, not {shown(value)}")


def as_path(value: Any) -> Path:
    """`value` as a path; refused is what is neither a text nor a path."""
    try:
        return Path(value)
    except TypeError as error:
        raise InputError(
            f"a path must be a text or a Path, not {shown(value)}"
        ) from error


def require_kind(name: str, value: Any, kind: type) -> None:
    """Refuse an argument that is no `kind`."""
    if not isinstance(value, kind):
        raise InputError(f"{name} must be a {kind.__name__}, not {shown(value)}")


def real(name: str, values: ArrayLike) -> NDArray[Any]:
    """`values` as an array of real numbers of any type, or of booleans.

    Refused is all else that numpy would convert or compare without being asked: complex
    numbers (their real parts), dates (their counts), records, texts and objects.
    """
    wanted = f"{name} must be real numbers in a regular array"
    try:
        array = np.asanyarray(values)
    # Arrays of other packages, such as tensors with a gradient, refuse in ways of
    # their own.
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{wanted} ({reason})") from error
    if array.dtype.kind not in "biuf":
        kind = "None" if values is None else f"of dtype {array.dtype}"
        raise InputError(f"{wanted}, not {kind}")
    # Whoever holds a masked array has imported its module.
    masked = sys.modules.get("numpy.ma")
    if masked is not None and masked.is_masked(array):
        raise InputError(f"{name} must have no masked entries")
    return np.asarray(array)


def finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """`values` as a C-contiguous float64 array; NaN and inf are refused."""
    # Of wider types, what float64 cannot hold becomes inf.
    with np.errstate(over="ignore"):
        array = np.array(real(name, values), np.float64, order="C", copy=None)
    require_finite(name, array)
    return array


def whole(
    name: str,
    values: ArrayLike,
    dtype: type[_Integer],
    low: int | None = None,
    high: int | None = None,
) -> NDArray[_Integer]:
    """`values` as C-contiguous integers of a type.

    Fractions are refused, and all beyond `low` and `high`: by default the limits of the
    type, which then has at most 32 bits, so that float64 holds them.
    """
    array = real(name, values)
    if array.dtype.kind == "f":
        # The limits are whole in float64, in float32 they are rounded.
        array = array.astype(np.float64)
    low = np.iinfo(dtype).min if low is None else low
    high = np.iinfo(dtype).max if high is None else high
    valid = (array >= low) & (array <= high)
    if array.dtype.kind == "f":
        valid &= array == np.floor(array)
    if not valid.all():
        entry = _first(name, array, ~valid)
        raise InputError(f"{entry}; it must be a whole number from {low} to {high}")
    return np.array(array, dtype, order="C", copy=None)


def binary(name: str, values: ArrayLike) -> NDArray[np.uint8]:
    """`values` as a C-contiguous uint8 array; all but 0 and 1 are refused."""
    array = real(name, values)
    if array.dtype != np.uint8 or array.max(initial=0) > 1:
        valid = (array == 0) | (array == 1)
        if not valid.all():
            entry = _first(name, array, ~valid)
            raise InputError(f"{name} may hold only 0 and 1; {entry}")
    return np.ascontiguousarray(array, np.uint8)


def read_only(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """`array` if it refuses to be written to, else a view of it that does."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def restore(instance: Any, state: dict[str, Any]) -> None:
    """`__setstate__` of frozen classes whose arrays are read-only.

    numpy's arrays come writable out of a pickle and out of `deepcopy`.
    """
    for name, value in state.items():
        kept = read_only(value) if isinstance(value, np.ndarray) else value
        object.__setattr__(instance, name, kept)


def require_finite(name: str, array: NDArray[Any]) -> None:
    """Refuse NaN and inf; the message gives the index of the first."""
    # A finite sum has finite terms, and needs no array of booleans. A sum that is not
    # finite may only have overflowed, so its terms are then looked at.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(array)
    if bad.any():
        raise InputError(f"{_first(name, array, bad)}; it must be finite")


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
    # The transpose lies in memory as LAPACK wants it, and is not copied once more.
    if scipy.linalg.lapack.dpotrf(shifted.T, clean=False, overwrite_a=True)[1] != 0:
        least = float(scipy.linalg.eigvalsh(M, subset_by_index=[0, 0])[0])
        raise InputError(
            f"{name} has a negative eigenvalue, {least:.3g} (trace {trace:.3g}); a "
            "second moment has none"
        )


def _first(name: str, array: NDArray[Any], bad: NDArray[np.bool_]) -> str:
    """What the first entry in question is, with its index: ``lo[2, 0] is 0.5``."""
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{name}{list(index) if index else ''} is {array[index]}"
