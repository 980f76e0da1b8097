"""One page on all runs of a store: who is best, how soon, how surely, what failed.

    python -m benchmarks report STORE -o DIR

DIR/index.html needs no network and no other file; beside it are the figures as SVG and
PNG. What the page shows of weights before and after rounding needs the problems: give
the folder that `--save-problems` has filled. With `--best`, what the registry of best
known states knows of these problems counts beside the runs of the store.

Exit code 0: done; 2: unusable input, reported in one line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.library.registry import SHIPPED, Registry
from benchmarks.options import add
from benchmarks.report.write import require_packages, write_report
from qubo_rounding.network.paths import data_path
from qubo_rounding.problem import RoundingProblem
from solvers import InputError
from solvers.qubo import Float


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "of-store")
    add(parser, "output", required=True)
    add(parser, "saved-problems", "best", "registry")


def run(options: argparse.Namespace) -> int:
    """Write the page and its figures; return the exit code."""
    require_packages()
    best = best_known(options, options.problems)
    print(write_report(options.store, options.o, options.problems, best))
    return 0


def best_known(options: argparse.Namespace, folder: Path | None) -> dict[str, Float]:
    """What the registry knows of the problems in a folder, if ``--best`` asks for it.

    Returns
    -------
    dict
        Energies [rows] by the problem's digest; infinite where nothing is known.
    """
    if not options.best:
        if options.registry is not None:
            raise InputError("--registry goes with --best")
        return {}
    if folder is None:
        raise InputError("--best needs --problems DIR, to know the problems by")
    registry = Registry.load(options.registry or data_path(SHIPPED))
    problems = map(RoundingProblem.load, sorted(folder.glob("*.npz")))
    known = {problem.digest: registry.energies(problem) for problem in problems}
    return {digest: E for digest, E in known.items() if np.isfinite(E).any()}
