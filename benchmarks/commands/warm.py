"""Compile the kernels of all solvers into the cache, so that later runs start at once.

    python -m benchmarks warm --solver lattice,tabu

Kernels are compiled for H in float32 and in float64, for one scale per row and one per
weight, for few variables and for so many that `lattice` walks through its moves in
blocks. Kernels that are already in the cache are only loaded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from benchmarks.harness.failures import SolverFailure, contained, report
from benchmarks.harness.problems import synthetic
from benchmarks.options import add
from solvers import QuboBatch, Solver, label, parse_solvers
from solvers.kernels.compile import cache_folder
from solvers.lattice.lanes import WHOLE
from solvers.lattice.solver import Lattice
from solvers.registry import BUILT_IN

# Number of variables that is enough for moves of every kind.
SMALL = 49


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "solver", default=",".join(BUILT_IN), note="all built-in ones")


def run(options: argparse.Namespace) -> int:
    """Compile the solvers' kernels; return the exit code."""
    solvers = parse_solvers(options.solver)
    folder, failures = cache_folder(), 0
    begun = time.perf_counter()
    with tqdm(solvers, desc="kernels", disable=None) as bar:
        for solver in bar:
            bar.set_postfix_str(label(solver))
            try:
                with contained(solver):
                    for qubo in batches(solver):
                        solver.compile_for(qubo)
            except SolverFailure as failure:
                report(failure)
                failures += 1
    seconds = time.perf_counter() - begun
    place = f"in {folder}" if folder else "nowhere: no folder can be written to"
    count = len(solvers) - failures
    print(f"kernels of {count} solvers in {seconds:.1f} s; kept {place}")
    return int(failures > 0)


def batches(solver: Solver) -> Iterator[QuboBatch]:
    """A batch of every kind for which kernels are compiled anew."""
    small = synthetic(SMALL, 2)
    for dtype in (np.float32, np.float64):
        qubo = replace(small, H=small.H.astype(dtype))
        yield qubo
        yield replace(qubo, scale=np.ones((2, SMALL)))
    if isinstance(solver, Lattice):
        yield synthetic(WHOLE + 1, 1)
