"""Other people's error messages, within messages of one line."""

from __future__ import annotations

from solvers.errors import printable

# Number of characters of an error message that are shown.
_LONGEST = 200


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type if there is none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:_LONGEST]
