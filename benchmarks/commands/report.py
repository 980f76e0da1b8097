"""One page on all runs of a store: who is best, how soon, how surely, what failed.

    python -m benchmarks report STORE -o DIR

DIR/index.html needs no network and no other file; beside it are the figures as SVG and
PNG. What the page shows of weights before and after rounding needs the problems: give
the folder that `--save-problems` has filled.

Exit code 0: done; 2: unusable input, reported in one line.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from benchmarks.harness.store import Store
from benchmarks.options import add
from benchmarks.report import answers, cells, content, figures, page, weights
from solvers.atomic import replacing
from solvers.errors import InputError


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "of-store")
    add(parser, "output", required=True)
    add(parser, "saved-problems")


def run(options: argparse.Namespace) -> int:
    """Write the page and its figures; return the exit code."""
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise InputError(
                f"report: {package} is not installed; "
                'pip install "qubo-rounding[report]" installs it'
            )
    path, folder = options.store, options.o
    if not path.exists():
        raise InputError(f"{path} does not exist")
    with Store(path) as store:
        known = cells.overview(store)
        gathered = answers.gather(store, known)
        files, why = {}, content.NO_FOLDER
        if options.problems is not None:
            files, why = weights.saved_problems(options.problems), content.NO_PROBLEM
        rounded = weights.roundings(store, known, files)
    numbers = content.content(known, gathered, rounded, why)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {folder}: {error.strerror}") from error
    drawn = figures.draw(folder, numbers)
    text = page.render(path.stem, known, gathered, numbers, drawn)
    with replacing(folder / "index.html") as partial:
        partial.write_text(text, "utf-8")
    print(folder / "index.html")
    return 0
