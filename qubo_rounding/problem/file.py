"""Rounding problems in ``.npz`` and ``.safetensors`` files.

Fields: ``weight [R, n]``, ``second_moment`` (M in any of its shapes), ``scale``,
``lo``, ``hi``, ``bits`` and, where they are set, ``gradient [R, n]`` and
``constant [R]``; beside them the texts ``saturated``, ``digest`` and ``meta`` (JSON).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from solvers.atomic import replacing
from solvers.errors import InputError
from solvers.io.files import UNREADABLE

SUFFIXES = (".npz", ".safetensors")


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
    arrays, text = read(path)
    for name in ("weight", "second_moment", "scale"):
        if name not in arrays:
            raise InputError(
                f"{path} is not a rounding problem: it has no {name!r}; it needs "
                "weight, second_moment, scale and lo, hi or bits"
            )
    meta = _meta(path, text.get("meta", "{}"))
    for name in ("bits", "count", "lo", "hi"):
        values = arrays.get(name)
        if values is not None and not (
            values.dtype.kind in "fiu" and (values == np.round(values)).all()
        ):
            raise InputError(f"{path}: {name} must hold whole numbers")
    for name in ("bits", "count"):
        if name in arrays:
            if arrays[name].size != 1:
                raise InputError(f"{path}: {name} must be one number")
            meta.setdefault(name, int(arrays[name].item()))
    if "bits" in meta and meta["bits"] not in range(2, 9):
        raise InputError(f"{path}: bits must be 2 to 8, not {meta['bits']}")
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
        meta = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: meta is not JSON ({error})") from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: meta must be a JSON object")
    return meta


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


def read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and texts of a file.

    Raises
    ------
    InputError
        The file does not exist, has another suffix or cannot be read.
    """
    _check_suffix(path)
    if not path.is_file():
        raise InputError(f"problem file {path} does not exist")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                contents = {name: file[name] for name in file.files}
            text = {k: str(v) for k, v in contents.items() if v.dtype.kind == "U"}
            return {k: v for k, v in contents.items() if k not in text}, text
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, dict(file.metadata() or {})
    except (OSError, *UNREADABLE, safetensors.SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "pickled" in reason:
            reason = "it holds no plain arrays"
        raise InputError(f"cannot read {path}: {reason}") from error


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a problem file ends in {' or '.join(SUFFIXES)}")
