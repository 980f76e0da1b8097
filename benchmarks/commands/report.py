"""One page on all runs of a store: who is best, how soon, how surely, what failed.

    python -m benchmarks report STORE -o DIR

DIR/index.html needs no network and no other file; beside it are the figures as SVG and
PNG. What the page shows of weights before and after rounding needs the problems: give
the folder that `--save-problems` has filled.

Exit code 0: done; 2: unusable input, reported in one line.
"""

from __future__ import annotations

import argparse

from benchmarks.options import add
from benchmarks.report.write import write_report


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "of-store")
    add(parser, "output", required=True)
    add(parser, "saved-problems")


def run(options: argparse.Namespace) -> int:
    """Write the page and its figures; return the exit code."""
    print(write_report(options.store, options.o, options.problems))
    return 0
