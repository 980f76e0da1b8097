"""The best solver against each other one, in pairs of runs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from benchmarks.report.cells import Overview
from benchmarks.stats.paired import Comparison, compare, holm
from solvers.qubo import Float

# Gap of a run without an answer: as far as rounding to nearest.
NO_ANSWER = 1.0


def against_first(known: Overview) -> list[tuple[int, int, Comparison]]:
    """Comparisons of the first solver's final gaps with those of each other solver.

    A pair has the same problem and seed, and each solver's longest budget. Tests count
    a layer as one pair; their p-values are adjusted by Holm's method.

    Returns
    -------
    list
        For each solver that shares pairs with the first: its number, the number of
        pairs, and the comparison.
    """
    own = _final_gaps(known, 0)
    found = []
    for solver in range(1, len(known.solvers)):
        others = _final_gaps(known, solver)
        shared = sorted(own.keys() & others.keys())
        # Against a solver that never answers there is nothing to test.
        if shared and any(math.isfinite(gap) for gap in others.values()):
            layers = [known.subjects[problem].layer for problem, _ in shared]
            ours, theirs = (_costs(gaps, shared) for gaps in (own, others))
            found.append((solver, len(shared), compare(ours, theirs, layers)))
    adjusted = holm([pair.permutation for *_, pair in found]) if found else ()
    return [
        (solver, count, replace(pair, permutation=float(p)))
        for (solver, count, pair), p in zip(found, adjusted, strict=True)
    ]


def _final_gaps(known: Overview, solver: int) -> dict[tuple[int, int], float]:
    """Gaps by problem and seed; infinite of a run without an answer."""
    gaps: dict[tuple[int, int], float] = {}
    for (problem, of), at in known.last.items():
        subject = known.subjects[problem]
        if of != solver or math.isnan(subject.best):
            continue
        cell = known.cells[at]
        answered = set(known.answers(cell).tolist())
        for line in cell.lines.tolist():
            objective = known.table["objective"][line]
            gap = float(subject.gap(objective)) if line in answered else math.inf
            gaps[problem, int(known.table["seed"][line])] = gap
    return gaps


def _costs(gaps: dict[tuple[int, int], float], shared: list[tuple[int, int]]) -> Float:
    return np.array([min(gaps[pair], NO_ANSWER) for pair in shared])
