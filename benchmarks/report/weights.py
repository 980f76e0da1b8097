"""Weights before and after rounding: where they lay, and which way they went."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.store import Store
from benchmarks.report.cells import Overview
from qubo_rounding.problem import RoundingProblem

# Intervals between two grid points.
BINS = 20
# Answers that a page holds.
MOST_ROUNDINGS = 400


def saved_problems(folder: Path) -> dict[str, Path]:
    """Files of the rounding problems in a folder, by digest.

    Raises
    ------
    InputError
        A file holds no problem.
    """
    return {
        RoundingProblem.load(path).digest: path for path in sorted(folder.glob("*.npz"))
    }


def roundings(
    store: Store, known: Overview, files: dict[str, Path]
) -> list[dict[str, Any]]:
    """How the best answer of each solver rounds each problem whose file is there."""
    return list(islice(_roundings(store, known, files), MOST_ROUNDINGS))


def _roundings(
    store: Store, known: Overview, files: dict[str, Path]
) -> Iterator[dict[str, Any]]:
    for number, subject in enumerate(known.subjects):
        if (path := files.get(subject.problem.digest)) is None:
            continue
        problem = RoundingProblem.load(path)
        for (of, solver), at in known.last.items():
            lines = known.answers(known.cells[at])
            if of != number or not len(lines):
                continue
            best = lines[np.argmin(known.table["objective"][lines])]
            run = store.get(known.table["run_id"][best])
            if run is not None and run.states is not None:
                yield {
                    "problem": number,
                    "solver": solver,
                    **counted(problem, run.states),
                }


def counted(
    problem: RoundingProblem, states: NDArray[np.integer[Any]]
) -> dict[str, Any]:
    """How many weights went up and down, by their place between two grid points.

    Returns
    -------
    dict
        ``up`` and ``down``, counts for each of `BINS` intervals; ``other``, those that
        went the other way than to nearest; ``beyond``, those that went further than to
        the two grid points; ``free`` and ``fixed``.
    """
    place = np.clip(problem.weight / problem.scale - problem.base, 0.0, 1.0)
    free = np.full(place.shape, True)
    if problem.fixed is not None:
        free = problem.fixed < 0
    up = states >= 1
    sides = {
        name: np.histogram(place[free & side], BINS, (0.0, 1.0))[0].tolist()
        for name, side in (("up", up), ("down", ~up))
    }
    return {
        **sides,
        "other": int((free & (up != (problem.nearest() == 1))).sum()),
        "beyond": int((free & ((states < 0) | (states > 1))).sum()),
        "free": int(free.sum()),
        "fixed": int((~free).sum()),
    }
