"""How far the walks of `lattice` are from the machine's limits, on one thread.

    python -m benchmarks limits --sizes 147,576,1152,2304,4608

For each size (or problem) the first table has the moves proposed and accepted per
second at the temperatures where an anneal begins (hot) and ends (cold), and what a
sweep needs by this model:

- A test of a move of up to w variables takes 2 w + 6 operations in each lane (and 3
  more per term of ``v^T H v`` if the scale varies within a row).
- A product of k rows of H with the lanes' steps takes 2 k LANES operations per entry of
  a row. A move that any lane accepts costs one product, with as many rows as the
  library's moves have variables on average. Beyond `WHOLE` variables this product is
  within the move's block (at most one per accepted move), and all variables that have
  moved in a block are then multiplied with the whole of H at once.
- Streamed from memory are the moves, once per tile; the rows of H in the products; and
  the fields of a tile, read and written once per sweep and by every product with the
  whole of a large H. A block's own fields and its part of H stay in the nearest caches.

The limits are measured in the same run: float32 products of matrices by BLAS, and
copying as many bytes as the walks keep (H, moves, tiles), so that what fits into a
cache is compared with the rate of that cache; the rate of a copy that fits into no
cache is printed above. Rates and limits are the best of the repeats, since others may
use the machine too.

``tests`` is the time of the same sweep if no move is accepted, ``products`` the time of
the products at the rate of their kernel alone (second table); the rest of a sweep is
spent on finding and taking the moves that are accepted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.harness.problems import synthetic
from benchmarks.harness.rates import (
    Sweep,
    Walks,
    copy_rate,
    gemm_rate,
    product_rate,
)
from benchmarks.harness.tables import columns
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from solvers import InputError, QuboBatch
from solvers.kernels.lanes import WIDTHS
from solvers.kernels.vectors import LANES
from solvers.lattice.lanes import BLOCK, Lanes
from solvers.lattice.moves import KINDS, Vectors, short_vectors
from solvers.lattice.search import COLD, MOST_MOVES, MOVES_EACH
from solvers.lattice.solver import Lattice
from solvers.threads import one_blas_thread

SIZES = "147,576,1152,2304,4608"
# Numbers of rows of H in the products that are measured.
COUNTS = (4, 16, 64)
# Number of bytes that fit into no cache.
LARGE = 1 << 29
# Operations of a test in a lane: beside two per variable, and per term of v^T H v.
OPERATIONS, OPERATIONS_TERM = 6, 3
TEMPERATURES = {"hot": 1.0, "cold": COLD, "still": 0.0}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "sizes", default=SIZES)
    add(parser, "problem", nargs="+", help="saved problems instead")
    add(parser, "moves", choices=KINDS, default="quads")
    add(parser, "rows", default=64, help="rows of each problem")
    add(parser, "repeats", default=3)


def run(options: argparse.Namespace) -> int:
    """Print the tables; return the exit code."""
    subjects: list[tuple[str, Callable[[], QuboBatch]]]
    if options.problem:
        subjects = [problem_file(path, options.rows) for path in options.problem]
    else:
        subjects = [
            (str(n), partial(synthetic, n, options.rows)) for n in options.sizes
        ]
    with one_blas_thread():
        memory = max(copy_rate(LARGE) for _ in range(options.repeats))
        block = max(product_rate(BLOCK, 4) for _ in range(options.repeats))
        cases, rates = [], [gemm_rate() for _ in range(options.repeats)]
        for name, make in tqdm(subjects, desc="sizes", disable=None):
            cases.append(
                Measured.of(name, make(), options.moves, options.repeats, block)
            )
            rates.append(gemm_rate())
    gemm = max(rates)
    print(
        f"{options.rows} rows, 1 thread: {1e-9 * gemm:.1f} GFlop/s in products of "
        f"matrices (float32), {1e-9 * memory:.1f} GB/s copied in memory"
    )
    print(table(cases, gemm))
    print()
    print(kernel_table(cases, gemm))
    print()
    for case in cases:
        print(sentence(case, gemm))
    return 0


def problem_file(path: Path, rows: int) -> tuple[str, Callable[[], QuboBatch]]:
    """The name of a saved problem, and a function that gives its first rows."""
    problem = RoundingProblem.load(path)
    return f"{problem.n} ({path.stem})", lambda: problem.to_qubos()[0].take(slice(rows))


@dataclass(frozen=True)
class Measured:
    """Measurements of one size; rates are per second, bytes and operations per sweep.

    Attributes
    ----------
    name
        The size, or the problem.
    walks
        Number of walks.
    lanes
        The batch and its library.
    library_seconds
        Seconds that building the library took.
    size
        Mean number of variables of a move.
    sweeps
        A sweep for each of `TEMPERATURES`.
    kept
        Bytes of H, the moves and the tiles.
    copied
        Rate of copying as many bytes.
    kernel
        Rates of `add_product` for each of `COUNTS`.
    block
        Rate of `add_product` within a block.
    """

    name: str
    walks: int
    lanes: Lanes
    library_seconds: float
    size: float
    sweeps: dict[str, Sweep]
    kept: int
    copied: float
    kernel: dict[int, float]
    block: float

    @classmethod
    def of(
        cls, name: str, qubo: QuboBatch, moves: str, repeats: int, block: float
    ) -> Measured:
        """Build a library, time sweeps over it, and time the kernels alone."""
        Lattice(moves=moves, elites=1).compile_for(qubo)
        begun = time.perf_counter()
        most = min(MOVES_EACH * qubo.n, MOST_MOVES)
        library = short_vectors(qubo.H, moves, most)
        lanes = Lanes.over(qubo, library)
        library_seconds = time.perf_counter() - begun
        if not lanes.count:
            raise InputError(f"{name}: there are no moves")
        together = Vectors.join(*library)
        walks = Walks(lanes, together)
        sweeps = {at: walks.time(f, repeats) for at, f in TEMPERATURES.items()}
        tiles = walks.tiles
        kept = sum(moves.nbytes for moves in lanes.moves)
        kept += lanes.H.nbytes + tiles.F.nbytes + tiles.Z.nbytes + tiles.scale.nbytes
        kernel = {
            k: max(product_rate(len(lanes.H), k) for _ in range(repeats))
            for k in COUNTS
        }
        return cls(
            name=name,
            walks=qubo.rows,
            lanes=lanes,
            library_seconds=library_seconds,
            size=float((together.which >= 0).sum(axis=1).mean()),
            sweeps=sweeps,
            kept=kept,
            copied=max(copy_rate(kept) for _ in range(repeats)),
            kernel=kernel,
            block=block,
        )

    @property
    def tiles(self) -> int:
        """Number of tiles, of `LANES` walks each."""
        return -(-self.walks // LANES)

    def tests(self) -> float:
        """Operations of the tests of a sweep."""
        varies = self.lanes.varies
        each = [
            2 * w + OPERATIONS + OPERATIONS_TERM * varies * w * (w + 1) // 2
            for w in WIDTHS
        ]
        return float(self.tiles * LANES * (self.lanes.ends[-1] * each).sum())

    def products(self, at: str) -> tuple[float, float]:
        """Operations of the products of a sweep, and seconds at the kernel's rate."""
        sweep, each = self.sweeps[at], 2 * LANES * len(self.lanes.H)
        if self.lanes.blocks is None:
            flops = each * sweep.products * self.size
            return flops, flops / self.kernel[4]
        near = 2 * LANES * BLOCK * sweep.accepted * self.size
        far = each * sweep.products
        mean = sweep.products / (self.tiles * len(self.lanes.blocks.near))
        like = min(COUNTS, key=lambda count: abs(np.log(max(mean, 1) / count)))
        return near + far, near / self.block + far / self.kernel[like]

    def flops(self, at: str) -> float:
        """Operations of a sweep."""
        return self.tests() + self.products(at)[0]

    def bytes(self, at: str) -> float:
        """Bytes streamed in a sweep."""
        sweep, width = self.sweeps[at], len(self.lanes.H)
        fields = 2 * 4 * LANES * width * self.tiles
        moves = self.tiles * sum(moves.nbytes for moves in self.lanes.moves)
        if self.lanes.blocks is None:
            return float(fields + moves + 4 * width * sweep.products * self.size)
        blocks = min(len(self.lanes.blocks.near), sweep.products / self.tiles)
        return float(fields * (1 + blocks) + moves + 4 * width * sweep.products)


def table(cases: Sequence[Measured], gemm: float) -> str:
    """Lines for each size, hot and cold: rates, needs, and shares of the limits."""
    heading = ["n", "moves", "at", "sweep ms", "proposed M/s", "accepted M/s"]
    heading += ["Mflop", "MB", "GFlop/s", "of BLAS", "GB/s", "of copy"]
    lines = [[*heading, "tests", "products"]]
    for case in cases:
        for at in ("hot", "cold"):
            sweep, flops, streamed = (
                case.sweeps[at],
                case.flops(at),
                case.bytes(at),
            )
            proposed = case.walks * case.lanes.count / sweep.seconds
            shares = (
                flops / sweep.seconds / gemm,
                streamed / sweep.seconds / case.copied,
                case.sweeps["still"].seconds / sweep.seconds,
                case.products(at)[1] / sweep.seconds,
            )
            gemm_share, copy_share, *times = (
                f"{100 * share:.1f} %" for share in shares
            )
            lines.append(
                [
                    case.name,
                    str(case.lanes.count),
                    at,
                    f"{1e3 * sweep.seconds:.3f}",
                    f"{1e-6 * proposed:.0f}",
                    f"{1e-6 * sweep.accepted / sweep.seconds:.3f}",
                    f"{1e-6 * flops:.2f}",
                    f"{1e-6 * streamed:.2f}",
                    f"{1e-9 * flops / sweep.seconds:.1f}",
                    gemm_share,
                    f"{1e-9 * streamed / sweep.seconds:.1f}",
                    copy_share,
                    *times,
                ]
            )
    return columns(lines)


def kernel_table(cases: Sequence[Measured], gemm: float) -> str:
    """A line for each size: bytes kept, the copy's rate, rates of products alone."""
    heading = ["n", "library s", "kept MB", "copy GB/s"]
    for count in COUNTS:
        heading += [f"GFlop/s, {count} rows", "of BLAS"]
    lines = [heading]
    for case in cases:
        cells = [
            case.name,
            f"{case.library_seconds:.2f}",
            f"{1e-6 * case.kept:.1f}",
        ]
        cells.append(f"{1e-9 * case.copied:.1f}")
        for rate in case.kernel.values():
            cells += [f"{1e-9 * rate:.1f}", f"{100 * rate / gemm:.1f} %"]
        lines.append(cells)
    return columns(lines)


def sentence(case: Measured, gemm: float) -> str:
    """A sentence on where most time goes, and on the limit that applies."""
    still = case.sweeps["still"].seconds
    parts = []
    for at in ("hot", "cold"):
        sweep = case.sweeps[at].seconds
        spent = {"tests of moves": still, "products": case.products(at)[1]}
        spent["taking accepted moves"] = max(sweep - sum(spent.values()), 0.0)
        most = max(spent, key=lambda what: spent[what])
        arithmetic, memory = (
            case.flops(at) / gemm,
            case.bytes(at) / case.copied,
        )
        bound = "arithmetic" if arithmetic > memory else "memory"
        parts.append(
            f"{at}, {most}: {100 * min(spent[most] / sweep, 1):.0f} % of "
            f"{1e3 * sweep:.3g} ms, against {1e3 * max(arithmetic, memory):.3g} ms at "
            f"the limit of {bound}"
        )
    rate = 100 * case.tests() / still / gemm
    return (
        f"n = {case.name}: most time goes, {'; '.join(parts)}; tests run at "
        f"{rate:.0f} % of BLAS's rate."
    )
