"""Files written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from solvers.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, that replaces `path` on success.

    Raises
    ------
    InputError
        `path` cannot be written.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        # A device or a pipe would be lost, and a file be in its place.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"cannot write {path}: it is not a regular file")
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # If the file could not even be created, its folder may not exist.
        with suppress(OSError):
            partial.unlink()
