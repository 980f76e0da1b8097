"""Small parts of a batch, to be solved so that a solver's kernels are compiled."""

from __future__ import annotations

from solvers.qubo import QuboBatch

# Number of variables of a problem that every solver solves quickly.
CORNER = 40


def freest_row(qubo: QuboBatch) -> QuboBatch:
    """The row with the most free variables: a row of pinned ones is not searched."""
    r = int(qubo.free().sum(axis=1).argmax()) if qubo.rows else 0
    return qubo.take(slice(r, r + 1))


def corner(qubo: QuboBatch, size: int = CORNER) -> QuboBatch:
    """The first `size` variables, unpinned, of the row with the most free variables."""
    row, n = freest_row(qubo), min(qubo.n, size)
    return QuboBatch(
        H=row.H[:n, :n],
        linear=row.linear[:, :n],
        offset=row.offset,
        scale=row.scale[:, :n],
        prior=row.prior[:, :n],
        levels=None if row.levels is None else row.levels[:, :, :n],
    )
