"""The machine's present speed: the unit of the suite's times."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE, STEPS = 256, 50_000


def seconds() -> float:
    """Processor seconds of a matrix product and of something like a single-flip search.

    Both together take a few ms. The product is the smaller part: few cases spend their
    time in BLAS, whose speed differs most between processors.
    """
    compiled, matrix = _prepared()
    begun = time.process_time()
    matrix @ matrix
    compiled(matrix, np.zeros(SIZE), STEPS)
    return time.process_time() - begun


@cache
def _prepared() -> tuple[Any, NDArray[np.float64]]:
    import numba

    matrix = np.random.default_rng(0).random((SIZE, SIZE)) - 0.5
    compiled: Any = numba.njit(_walk)
    compiled(matrix, np.zeros(SIZE), STEPS)
    return compiled, matrix


def _walk(matrix: NDArray[np.float64], fields: NDArray[np.float64], steps: int) -> None:
    """Add or subtract rows of the matrix by the signs of the fields."""
    n = len(fields)
    for step in range(steps):
        i = step % n
        if fields[i] > 0:
            for j in range(n):
                fields[j] -= matrix[i, j]
        else:
            for j in range(n):
                fields[j] += matrix[i, j]
