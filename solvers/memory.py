"""Memory that work will need, refused in one line where there is not so much."""

from __future__ import annotations

from solvers.errors import InputError

# What is read becomes dense; symmetrising it holds three matrices of float64 at a time,
# and a solver keeps one more of its own.
BYTES_PER_ENTRY = 32


def require_memory(what: str, needed: int, advice: str) -> None:
    """Refuse work that needs more bytes than are available.

    Raises
    ------
    InputError
        With both numbers and the advice.
    """
    import psutil

    available = psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"{what} need {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB is "
            f"available; {advice}"
        )


def require_dense(n: int, where: str = "") -> None:
    """Refuse n variables whose dense matrix memory cannot hold; `where` leads the line.

    Raises
    ------
    InputError
        As `require_memory`.
    """
    require_memory(
        f"{where}{n} variables as a dense matrix",
        BYTES_PER_ENTRY * n**2,
        "take fewer variables",
    )
