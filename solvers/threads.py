"""Rows divided among threads; BLAS kept from making threads of its own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Products up to this size are computed by one BLAS thread in any case.
ONE_THREAD_UP_TO = 512
# An array whose first axis is the rows, or a named tuple of such arrays.
PerRow: TypeAlias = NDArray[Any] | tuple[NDArray[Any], ...]


def over_rows(
    kernel: Callable[..., None],
    shared: tuple[object, ...],
    per_row: tuple[PerRow, ...],
    threads: int = 1,
    *,
    uneven: bool = False,
) -> None:
    """Run ``kernel(*shared, *per_row)`` on slices of rows, one slice per thread.

    The arrays of `per_row`, and those of named tuples in it, have the rows as their
    first axis and are cut into the slices. The kernel must treat rows independently; it
    runs in parallel only if it releases the GIL. Where some rows take much longer than
    others (`uneven`), each is a slice, and threads take the next one when they are
    free.
    """
    first_array = per_row[0]
    while isinstance(first_array, tuple):
        first_array = first_array[0]
    rows = len(first_array)
    busy = max(min(threads, rows), 1)
    slices = rows if uneven and busy > 1 else busy
    bounds = np.linspace(0, rows, slices + 1).astype(int)
    common = [_writable(part) for part in shared]
    parts = [_writable(part) for part in per_row]
    left = deque(pairwise(bounds))

    def work() -> None:
        while True:
            try:
                first, last = left.popleft()
            except IndexError:
                return
            kernel(*common, *(_cut(part, first, last) for part in parts))

    futures: list[Future[None]] = []
    try:
        for _ in range(busy - 1):
            futures.append(_workers(threads - 1).submit(work))
        work()
    finally:
        # The arrays are the caller's again only when nobody writes to them any more. A
        # thread that is still at another caller's rows is not waited for.
        left.clear()
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
    for future in begun:
        future.result()


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """Threads that wait for work: to start them takes as long as many a kernel.

    Only `over_rows` uses them, and no kernel calls it, so that none waits for another.
    """
    return ThreadPoolExecutor(count, "rows")


# A forked process has no threads but one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)


class _Memory:
    """The memory of an array, shown to numpy as if it could be written to."""

    def __init__(self, array: NDArray[Any]) -> None:
        # Lives as long as what numpy makes of this.
        self.array = array
        interface = array.__array_interface__
        address, _ = interface["data"]
        self.__array_interface__ = interface | {"data": (address, False)}


def _writable(part: Any) -> Any:
    """`part`; instead of read-only arrays, in it too, writable ones in the same place.

    To numba, read-only arrays are another type, for which it would compile the kernel
    once more. Kernels write to no argument that their caller has not made.
    """
    if isinstance(part, tuple):
        make = getattr(type(part), "_make", tuple)
        return make(map(_writable, part))
    if isinstance(part, np.ndarray) and not part.flags.writeable:
        return np.asarray(_Memory(part))
    return part


def _cut(part: PerRow, first: int, last: int) -> PerRow:
    if isinstance(part, tuple):
        return type(part)(*(array[first:last] for array in part))
    return part[first:last]


def one_blas_thread(size: int = 0) -> AbstractContextManager[Any]:
    """Limit BLAS to one thread, for small products.

    BLAS threads wait for each other at every block of a product: for small products
    that gains little on idle cores and loses a factor of ten to thirty on busy ones.
    With one thread, the order of sums does not depend on the number of cores.

    Parameters
    ----------
    size
        Rows or columns of the products; above `ONE_THREAD_UP_TO` BLAS keeps its
        threads. By default it is limited in any case.
    """
    if size > ONE_THREAD_UP_TO:
        return nullcontext()
    limits: AbstractContextManager[Any] = _blas().limit(limits=1, user_api="blas")
    return limits


@cache
def _blas() -> Any:
    """A handle on the BLAS of numpy and that of scipy; finding them takes a while."""
    import scipy.linalg  # noqa: F401  # loads its BLAS
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
