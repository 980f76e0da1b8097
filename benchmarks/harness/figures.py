"""The style of figures, and how they are written."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from solvers.atomic import replacing

# Colours of Okabe and Ito, which differ for all kinds of colour vision and as greys;
# and dashes.
STYLES = (("#56B4E9", ":"), ("#E69F00", "-."), ("#0072B2", "--"), ("#D55E00", "-"))


def style() -> AbstractContextManager[Any]:
    """A font size, and a constant salt so that the same runs give the same file."""
    import matplotlib

    settings: AbstractContextManager[Any] = matplotlib.rc_context(
        {"font.size": 8, "svg.hashsalt": "qubo-rounding"}
    )
    return settings


def save(path: Path, drawing: Any) -> None:
    """Write a figure whole or not at all, without a date.

    Raises
    ------
    InputError
        `path` cannot be written.
    """
    with replacing(path) as unfinished:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        drawing.savefig(unfinished, dpi=200, metadata=metadata)
