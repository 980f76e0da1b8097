"""Rates of the machine, of the product kernel and of walks, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.kernels.compile import jit
from solvers.kernels.vectors import LANES, add_product
from solvers.lattice.lanes import Lanes, Tiles, thresholds
from solvers.lattice.moves import Vectors
from solvers.lattice.search import COLD, starting_heat
from solvers.qubo import Float, States
from solvers.walk import aligned

# Order of the matrices whose product measures the limit of arithmetic.
ORDER = 1536
# Approximate number of operations of one measurement of the product kernel.
WORK = 1 << 27
# Least number of seconds, and largest number of sweeps, of a measurement.
ENOUGH, MOST_SWEEPS = 0.1, 60
# Number of sweeps after which walks are assumed to have settled at a temperature.
SETTLING = 10


def gemm_rate() -> float:
    """Operations per second of BLAS in products of float32 matrices."""
    a = np.ones((ORDER, ORDER), np.float32)
    out = np.empty_like(a)
    return 2 * ORDER**3 / _seconds(lambda: np.matmul(a, a, out=out))


def copy_rate(size: int) -> float:
    """Bytes read and written per second in copies; both arrays together have `size`."""
    a, b = np.ones(size // 2, np.uint8), np.ones(size // 2, np.uint8)
    return 2 * (size // 2) / _seconds(lambda: np.copyto(b, a))


@jit
def _products(F, H, which, steps):  # type: ignore[no-untyped-def]
    """Products with the rows `which` [products, count] of H, one after the other."""
    for rows in which:
        add_product(F, H, rows, steps, len(rows), None)


def product_rate(width: int, count: int) -> float:
    """Operations per second of `add_product` with `count` random rows of H."""
    single = np.dtype(np.float32)
    F, H = (aligned(width, columns, single, 0.0) for columns in (LANES, width))
    steps = aligned(count, LANES, single, 0.0)
    each = max(1, WORK // (2 * LANES * width * count))
    which = np.random.default_rng(0).integers(0, width, (each, count))
    _products(F, H, which[:1], steps)
    seconds = _seconds(lambda: _products(F, H, which, steps))
    return 2 * LANES * width * count * each / seconds


def _seconds(run: Callable[[], Any]) -> float:
    """Mean seconds of a run, over as many runs as take a time that can be measured."""
    run()
    times, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < ENOUGH or not times:
        run()
        times += 1
    return taken / times


@dataclass(frozen=True)
class Sweep:
    """A sweep over the library at one temperature: seconds, and the kernel's counts.

    `products` is the number of products if the library is one block; otherwise it is
    the number of rows in products with the whole of H.
    """

    seconds: float
    accepted: float
    products: float


class Walks:
    """One walk for each row, at temperatures that are found as `lattice` finds them."""

    def __init__(self, lanes: Lanes, library: Vectors) -> None:
        self._lanes, self._rows = lanes, np.arange(lanes.qubo.rows)
        self._draws, self._calls = thresholds(0), 0
        self._heat: Float = np.ones(lanes.qubo.rows)
        self._stand(lanes.qubo.nearest())
        self._settle(np.zeros(SETTLING))
        self._heat = starting_heat(self.tiles, library)
        self._settle(np.ones(SETTLING))

    def time(self, factor: float, repeats: int) -> Sweep:
        """Cool or heat the walks to `factor` times their temperature, and time sweeps.

        Returns the shortest time of all repeats, and the mean counts.
        """
        self._settle(np.geomspace(1, max(factor, COLD), SETTLING))
        self._settle(np.full(SETTLING, factor))
        count = int(ENOUGH / max(self._sweep(np.full(1, factor)).seconds, 1e-9))
        factors = np.full(min(max(count, 1), MOST_SWEEPS), factor)
        sweeps = []
        for _ in range(repeats):
            self._stand(self.tiles.last_states())
            sweeps.append(self._sweep(factors))
        counts = np.array([(sweep.accepted, sweep.products) for sweep in sweeps])
        return Sweep(min(sweep.seconds for sweep in sweeps), *counts.mean(axis=0))

    def _stand(self, states: States) -> None:
        self.tiles: Tiles = self._lanes.stand(self._rows, states)

    def _settle(self, factors: Float) -> None:
        self._sweep(factors)
        self._stand(self.tiles.last_states())

    def _sweep(self, factors: Float) -> Sweep:
        """Sweep once per factor; return what a sweep took on average."""
        self._calls += 1
        rng = np.random.default_rng(self._calls)
        streams: NDArray[np.uint64] = rng.integers(
            0, 2**63, len(self.tiles.F), np.uint64
        )
        before = self.tiles.counts[:, :2].sum(axis=0)
        begun = time.perf_counter()
        self.tiles.anneal(self._heat, factors, self._draws, streams)
        seconds = time.perf_counter() - begun
        accepted, products = self.tiles.counts[:, :2].sum(axis=0) - before
        return Sweep(*(v / len(factors) for v in (seconds, accepted, products)))
