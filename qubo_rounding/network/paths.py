"""Paths of the shipped data files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from solvers.errors import InputError


def data_path(name: str) -> Path:
    """Path of a shipped data file.

    A wheel carries the data inside the package, as ``_data``; a checkout reads the
    top-level ``data`` beside the package.

    Parameters
    ----------
    name
        File name, for example ``"imagenet_wnids.txt"``.

    Raises
    ------
    InputError
        The file is in neither place.
    """
    package = Path(str(resources.files("qubo_rounding")))
    for folder in (package / "_data", package.parent / "data"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"the shipped file data/{name} is missing; reinstall the package")
