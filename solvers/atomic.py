"""Files written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from solvers.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path`, with its suffix, that becomes `path` where all goes well.

    Raises
    ------
    InputError
        A place that cannot be written to.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # Where it could not even be made, its place may be no place at all.
        with suppress(OSError):
            partial.unlink()
