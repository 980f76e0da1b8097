"""Rounding problems in ``.npz`` and ``.safetensors`` files.

Fields: ``weight [R, n]``, ``second_moment`` (M in any of its shapes), ``scale``,
``lo``, ``hi``, ``bits`` and, where they are set, ``gradient [R, n]`` and
``constant [R]``; beside them the texts ``saturated``, ``digest`` and ``meta`` (JSON).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from solvers.atomic import replacing
from solvers.checks import is_whole, whole
from solvers.errors import InputError, shown
from solvers.io.files import read_arrays

SUFFIXES = (".npz", ".safetensors")
# Whole numbers up to this size are exact in float64.
LARGEST_COUNT = 2**53


def digest(arrays: Mapping[str, NDArray[Any]], saturated: str) -> str:
    """SHA-256 over the arrays of a problem and its reading of saturated weights."""
    sha = hashlib.sha256(saturated.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def load(path: Path) -> tuple[dict[str, Any], str | None]:
    """Parameters of `RoundingProblem` from a file, and the digest stored with them.

    The file needs ``weight``, ``second_moment``, ``scale``, and either ``lo`` and
    ``hi`` or ``bits`` (then the grid is symmetric). The digest is what `digest` gave
    when the file was written; None if the file has none.

    Raises
    ------
    InputError
        The file does not exist, or fields are missing or of another kind.
    """
    arrays, text = _read(path)
    for name in ("weight", "second_moment", "scale"):
        if name not in arrays:
            raise InputError(
                f"{path} is not a rounding problem: it has no {name!r}; it needs "
                "weight, second_moment, scale and lo, hi or bits"
            )
    meta = _meta(path, text.get("meta", "{}"))
    for name in ("bits", "count"):
        if name in arrays:
            number = whole(f"{path}: {name}", arrays[name], np.int64, 0, LARGEST_COUNT)
            if number.size != 1:
                raise InputError(f"{path}: {name} must be one number")
            meta.setdefault(name, number.item())
    bits = meta.get("bits", 8)
    if not (is_whole(bits) and 2 <= bits <= 8):
        raise InputError(f"{path}: bits must be 2 to 8, not {shown(bits)}")
    if not {"lo", "hi"} <= arrays.keys():
        if "bits" not in meta:
            raise InputError(f"{path} has neither lo and hi nor bits")
        half = 2 ** (meta["bits"] - 1)
        arrays["lo"], arrays["hi"] = np.array(-half), np.array(half - 1)
    parameters: dict[str, Any] = {
        "weight": arrays["weight"],
        "scale": arrays["scale"],
        "lo": arrays["lo"],
        "hi": arrays["hi"],
        "moment": arrays["second_moment"],
        "gradient": arrays.get("gradient"),
        "constant": arrays.get("constant"),
        "saturated": text.get("saturated", "fixed"),
        "meta": meta,
    }
    return parameters, text.get("digest")


def _meta(path: Path, text: str) -> dict[str, Any]:
    try:
        # Infinities and NaN are no JSON, though Python reads and writes them.
        meta = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: meta is not JSON ({error})") from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: meta must be a JSON object")
    for name in ("objective", "layer"):
        if not isinstance(meta.get(name, ""), str):
            raise InputError(
                f"{path}: the {name} in meta must be a text, not {shown(meta[name])}"
            )
    return meta


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def write(
    path: Path, arrays: Mapping[str, NDArray[Any]], text: Mapping[str, str]
) -> None:
    """Write the file whole or not at all.

    Raises
    ------
    InputError
        The suffix is not one of `SUFFIXES`, or `path` cannot be written.
    """
    _check_suffix(path)
    with replacing(path) as partial:
        if path.suffix == ".npz":
            everything: dict[str, Any] = {**arrays, **text}
            np.savez(partial, **everything)
        else:
            safetensors.numpy.save_file(dict(arrays), partial, dict(text))


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and texts of a file.

    Raises
    ------
    InputError
        The file does not exist, has another suffix or cannot be read.
    """
    _check_suffix(path)
    if not path.is_file():
        raise InputError(f"problem file {path} does not exist")
    if path.suffix == ".npz":
        contents = read_arrays(path)
        text = {k: str(v) for k, v in contents.items() if v.dtype.kind == "U"}
        return {k: v for k, v in contents.items() if k not in text}, text
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, dict(file.metadata() or {})
    # Beside the package's own errors those of numpy where it lacks a type of numbers.
    except (
        OSError,
        TypeError,
        AttributeError,
        safetensors.SafetensorError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"cannot read {path}: {reason}") from error


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a problem file ends in {' or '.join(SUFFIXES)}")
