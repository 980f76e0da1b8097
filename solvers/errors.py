"""The exceptions for bad input, shared by all packages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Input that cannot be used; its message is one line a user can act on.

    The command line prints the message and exits with code 2. What cannot be printed in
    a line is escaped: names of files may hold line breaks, and bytes that are no text.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class AnswerError(InputError):
    """What a solver's search gives is no answer: of another shape, or no states."""


class UnknownNameError(InputError):
    """A misspelt name; the message offers the nearest known names.

    Parameters
    ----------
    kind
        Kind of the thing that was named: ``"solver"``, ``"layer"``, …
    name
        The name as given.
    known
        The names that are valid.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        similar = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if similar:
            hint = f"did you mean {' or '.join(similar)}?"
        else:
            shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
            hint = f"known: {shown}" if known else "there are none"
        super().__init__(f"unknown {kind} {name!r}; {hint}")


def printable(text: str) -> str:
    """`text` in one line that any terminal prints; anything else in it is escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def shown(value: Any) -> str:
    """Text of a value for a message: on one line, and not too long."""
    try:
        text = " ".join(repr(value).split())
    # Python writes out no whole numbers of thousands of digits.
    except ValueError:
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:59] + "…"
