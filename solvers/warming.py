"""Parts of a batch on which a search reaches what it needs compiled."""

from __future__ import annotations

from solvers.qubo import QuboBatch

# Variables of a problem that any solver is soon done with.
CORNER = 40


def freest_row(qubo: QuboBatch) -> QuboBatch:
    """The row with the most free variables: what is all pinned is not searched."""
    r = int(qubo.free().sum(axis=1).argmax()) if qubo.rows else 0
    return qubo.take(slice(r, r + 1))


def corner(qubo: QuboBatch, size: int = CORNER) -> QuboBatch:
    """The first variables of the row with the most free ones; none of them pinned."""
    row, n = freest_row(qubo), min(qubo.n, size)
    return QuboBatch(
        H=row.H[:n, :n],
        linear=row.linear[:, :n],
        offset=row.offset,
        scale=row.scale[:, :n],
        prior=row.prior[:, :n],
        levels=None if row.levels is None else row.levels[:, :, :n],
    )
