"""Rows shared out among threads; BLAS kept from making threads of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray


def over_rows(
    kernel: Callable[..., None],
    shared: tuple[object, ...],
    per_row: tuple[NDArray[Any], ...],
    threads: int = 1,
) -> None:
    """Run ``kernel(*shared, *per_row)`` on slices of rows, one slice a thread.

    The arrays of `per_row` have the rows as their first axis and are cut. The kernel
    must release the GIL to gain from it, and treat rows independently.
    """
    rows = len(per_row[0])
    bounds = np.linspace(0, rows, min(threads, rows) + 1).astype(int)

    def run(first: int, last: int) -> None:
        kernel(*shared, *(array[first:last] for array in per_row))

    if len(bounds) == 2:
        run(0, rows)
        return
    with ThreadPoolExecutor(len(bounds) - 1) as pool:
        list(pool.map(run, bounds[:-1], bounds[1:]))


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep BLAS to one thread.

    For matrices of a few hundred rows its threads gain little, and on busy cores they
    lose a factor of ten. Sums are then in one order on any machine.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, "blas")
    return limits
