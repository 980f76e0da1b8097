"""Checks of the memory that work will need, with an error message of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from solvers.errors import InputError

# A matrix that is read becomes dense; symmetrising it takes three float64 matrices at a
# time, and a solver keeps one more.
BYTES_PER_ENTRY = 32


def require_memory(what: str, needed: int, advice: str) -> None:
    """Refuse work that needs more bytes than are available.

    Raises
    ------
    InputError
        The memory is not available; the message gives both numbers and the advice.
    """
    import psutil

    available = psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"{what} need {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB is "
            f"available; {advice}"
        )


def require_dense(n: int, where: str = "") -> None:
    """Refuse n variables if memory cannot hold their dense matrix.

    Parameters
    ----------
    n
        Number of variables.
    where
        Beginning of the error message.

    Raises
    ------
    InputError
        The memory is not available; see `require_memory`.
    """
    require_memory(
        f"{where}{n} variables as a dense matrix",
        BYTES_PER_ENTRY * n**2,
        "take fewer variables",
    )


@contextmanager
def allocating(what: str) -> Iterator[None]:
    """Let a lack of memory say what the memory was for."""
    try:
        yield
    except MemoryError as error:
        reason = " ".join(str(error).split())
        raise MemoryError(f"{what}: {reason}" if reason else what) from error
