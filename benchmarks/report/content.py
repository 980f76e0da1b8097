"""The numbers of the page, as short as they can be said."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.answers import GAPS, SCORES, Answers, score_names
from benchmarks.report.cells import FAULTS, Cell, Overview, budget_label

# Solvers that are shown at first, if there are more than the second number.
FIRST, MANY = 8, 10
# Numbers that curves, times and rows may each have: the page stays below 6 MB.
MOST_NUMBERS = 200_000
# Different failures, and characters of a message.
MOST_FAILURES, LONGEST = 1000, 300
MOST_ROWS = 256
# Why no weights are shown.
NO_FOLDER = (
    "The store keeps answers, not weights. Give --problems DIR, a folder with the "
    "problems as .npz files, to see which weights went which way."
)
NO_PROBLEM = "None of the problems of this store is among the files of --problems."


def content(
    known: Overview, answers: Answers, weights: list[dict[str, Any]], no_weights: str
) -> dict[str, Any]:
    """All that the page draws, as JSON holds it."""
    names = score_names(answers)
    return {
        "problems": [_problem(known, i) for i in range(len(known.subjects))],
        "solvers": _solvers(known.solvers),
        "first": FIRST if len(known.solvers) > MANY else len(known.solvers),
        "budgets": [
            {"label": budget_label(budget), "seconds": budget[0]}
            for budget in known.budgets
        ],
        "cells": _table(
            "problem solver budget last runs ok lowest gap highest seconds",
            (_cell(known, at) for at in range(len(known.cells))),
        ),
        "curves": curves(known, answers),
        "targets": _table(
            "problem solver gap budget reached of median low high times",
            targets(known, answers),
        ),
        "scores": {
            "names": [SCORES.get(name, name) for name in names],
            "points": [
                [problem, solver, short(gap, 6), *(short(s.get(n), 5) for n in names)]
                for problem, solver, gap, s in answers.scored
            ],
        },
        "rows": rows(known, answers),
        "weights": weights,
        "noWeights": no_weights,
        "faults": FAULTS,
        "failures": _table(
            "problem solver budget status message count", _failures(known)
        ),
    }


def as_json(value: Any) -> str:
    """JSON that can stand in a page: no text of it ends the script around it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def short(value: Any, digits: int = 4) -> float | int | None:
    """A number with few digits; None for one that is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded == int(rounded) else rounded


def curves(known: Overview, answers: Answers) -> list[dict[str, Any]]:
    """Median and quartiles of the gap against seconds, at each solver's longest budget."""
    points = sum(len(answers.grids[known.cells[at].problem]) for at in answers.paths)
    every = max(1, math.ceil(4 * points / MOST_NUMBERS))
    found = []
    for at in sorted(answers.paths):
        cell = known.cells[at]
        # Runs that failed have no answer at any time.
        silent = len(cell.lines) - len(answers.paths[at])
        gaps = np.array(answers.paths[at])
        gaps = np.vstack([gaps, np.full((silent, gaps.shape[1]), math.inf)])
        low, median, high = np.quantile(
            gaps, (0.25, 0.5, 0.75), axis=0, method="inverted_cdf"
        )
        keep = _turns(np.stack([low, median, high]), every)
        seconds = answers.grids[cell.problem]
        found.append(
            {
                "problem": cell.problem,
                "solver": cell.solver,
                "t": [short(value, 3) for value in seconds[keep]],
                "median": [short(value) for value in median[keep]],
                "low": [short(value) for value in low[keep]],
                "high": [short(value) for value in high[keep]],
            }
        )
    return [curve for curve in found if curve["t"]]


def targets(known: Overview, answers: Answers) -> Iterable[list[Any]]:
    """Time to each gap at the budget at which a solver gets there in least time."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for at, cell in enumerate(known.cells):
        if not math.isnan(known.subjects[cell.problem].best):
            pairs.setdefault((cell.problem, cell.solver), []).append(at)
    seeds = {
        problem: sorted(
            {
                int(seed)
                for cell in known.cells
                if cell.problem == problem
                for seed in known.table["seed"][cell.lines]
            }
        )
        for problem in {problem for problem, _ in pairs}
    }
    for (problem, solver), places in pairs.items():
        for gap in range(len(GAPS)):
            at = min(places, key=lambda at: _expected(known, answers, at, gap))
            cell = known.cells[at]
            times = _times(known, answers, at, gap)
            values = np.sort(list(times.values()))
            low, median, high = np.quantile(
                values, (0.25, 0.5, 0.75), method="inverted_cdf"
            )
            yield [
                problem,
                solver,
                gap,
                cell.budget,
                int(np.isfinite(values).sum()),
                len(values),
                short(median, 3),
                short(low, 3),
                short(high, 3),
                [
                    0 if seed not in times else short(max(times[seed], 1e-6), 3)
                    for seed in seeds[problem]
                ],
            ]


def _expected(
    known: Overview, answers: Answers, at: int, gap: int
) -> tuple[float, int]:
    """Expected seconds to a target with restarts; of two alike the longer budget."""
    cell = known.cells[at]
    times = np.array(list(_times(known, answers, at, gap).values()))
    reached = np.isfinite(times)
    spent = known.table["seconds"][cell.lines][~reached]
    total = float(times[reached].sum() + np.nansum(spent))
    return (total / reached.sum() if reached.any() else math.inf, -cell.budget)


def _times(known: Overview, answers: Answers, at: int, gap: int) -> dict[int, float]:
    """Seconds to a gap by seed; infinite of runs that missed it or failed."""
    cell = known.cells[at]
    held = answers.times.get(at, {})
    return {
        int(seed): float(held[seed][gap]) if seed in held else math.inf
        for seed in known.table["seed"][cell.lines].tolist()
    }


def rows(known: Overview, answers: Answers) -> list[dict[str, Any]]:
    """Gaps of the rows of each solver's median run, as shares of the problem's scale.

    A row's gap is measured on what it contributes on average: the problem's scale
    divided by the number of rows.
    """
    found, size = [], 0
    for problem, best in answers.best.items():
        subject = known.subjects[problem]
        best = best[:MOST_ROWS]
        scale = subject.scale / max(subject.problem.rows, 1)

        def gaps(energies: NDArray[np.float64]) -> list[Any]:
            relative = (energies[:MOST_ROWS] - best) / scale  # noqa: B023
            return [short(max(value, 0.0), 3) for value in relative]

        lines = [
            {"solver": known.cells[at].solver, "gaps": gaps(energies)}
            for at, energies in answers.rows.items()
            if known.cells[at].problem == problem
        ]
        size += len(best) * (len(lines) + 2)
        if size > MOST_NUMBERS:
            break
        part = {
            "problem": problem,
            "best": [short(value, 6) for value in best],
            "solvers": lines,
        }
        if (bound := answers.bounds.get(problem)) is not None:
            lower = bound[:MOST_ROWS]
            part["lower"] = [short(value, 6) for value in lower]
            part["bounds"] = [
                short(max(value, 0.0), 3) for value in (best - lower) / scale
            ]
        found.append(part)
    return sorted(found, key=lambda part: part["problem"])


def _turns(values: NDArray[np.float64], every: int) -> NDArray[np.int64]:
    """Where curves [3, T] change, of every so many points, from the first answer on."""
    places = np.arange(values.shape[1] - 1, -1, -every)[::-1]
    kept = values[:, places]
    begun = np.isfinite(kept[1])
    changed = np.append(True, (kept[:, 1:] != kept[:, :-1]).any(axis=0))
    first = np.append(begun[:1], begun[1:] & ~begun[:-1])
    return places[begun & (changed | first)]


def _problem(known: Overview, number: int) -> dict[str, Any]:
    subject = known.subjects[number]
    problem = subject.problem
    best = subject.best
    return {
        "title": subject.title,
        "layer": subject.layer,
        "bits": subject.bits,
        "rows": problem.rows,
        "n": problem.n,
        "nearest": short(problem.nearest, 9),
        "best": short(best, 9),
        "scale": None if math.isnan(best) else short(subject.scale, 9),
    }


def _solvers(labels: Sequence[str]) -> list[dict[str, str]]:
    """Labels, and names short enough to stand beside a line."""
    bases = [label.partition("[")[0].partition(" ")[0] for label in labels]
    times, used = Counter(bases), Counter[str]()
    named = []
    for label, base in zip(labels, bases, strict=True):
        used[base] += 1
        name = base if times[base] == 1 else f"{base} {used[base]}"
        named.append({"label": label, "short": name})
    return named


def _cell(known: Overview, at: int) -> list[Any]:
    cell = known.cells[at]
    gaps = known.gaps(cell)
    spread = [gaps[0], np.median(gaps), gaps[-1]] if len(gaps) else [None] * 3
    seconds = known.table["seconds"][known.answers(cell)]
    return [
        cell.problem,
        cell.solver,
        cell.budget,
        int(known.last[cell.problem, cell.solver] == at),
        len(cell.lines),
        len(gaps),
        *(short(value, 6) for value in spread),
        short(np.median(seconds) if len(seconds) else None, 3),
    ]


def _failures(known: Overview) -> list[list[Any]]:
    """Different failures with their numbers, the most frequent first."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for cell in known.cells:
        for line in cell.lines:
            if (status := known.table["status"][line]) != "ok":
                message = known.table["message"][line][:LONGEST]
                counts[(*_place(cell), status, message)] += 1
    return [[*key, count] for key, count in counts.most_common(MOST_FAILURES)]


def _place(cell: Cell) -> tuple[int, int, int]:
    return cell.problem, cell.solver, cell.budget


def _table(fields: str, lines: Iterable[list[Any]]) -> dict[str, Any]:
    """Lines under names that are said once."""
    return {"fields": fields.split(), "lines": list(lines)}
