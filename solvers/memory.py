"""Memory that work will need, refused in one line where there is not so much."""

from __future__ import annotations

import psutil

from solvers.errors import InputError


def require_memory(what: str, needed: int, advice: str) -> None:
    """Refuse work that needs more bytes than are available.

    Raises
    ------
    InputError
        With both numbers and the advice.
    """
    available = psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"{what} need {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB is "
            f"available; {advice}"
        )
