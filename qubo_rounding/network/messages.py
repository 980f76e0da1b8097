"""Other people's error messages, within messages of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from solvers.errors import InputError, printable

# Number of characters of an error message that are shown.
_LONGEST = 200


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type if there is none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:_LONGEST]


@contextmanager
def running(what: str) -> Iterator[None]:
    """Say in one line that a network's own code has failed.

    Parameters
    ----------
    what
        The network, and what it is run on.

    Raises
    ------
    InputError
        The code has raised anything but this and Ctrl-C.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # it is somebody else's code
        raise InputError(f"{what}: {first_line(error)}") from error
