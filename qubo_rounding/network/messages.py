"""Names of files, and other people's error messages, within messages of one line."""

from __future__ import annotations

from pathlib import Path

# Number of characters of an error message that are shown.
_LONGEST = 200


def shown(name: str | Path) -> str:
    """A name of a file, or in a file, as one line of text that any terminal can print.

    File names may hold line breaks, and bytes that are no text.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name))


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type if there is none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return shown(lines[0])[:_LONGEST]
