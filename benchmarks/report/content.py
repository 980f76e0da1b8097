"""The numbers of the page, as short as they can be said."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.answers import (
    GAPS,
    MOST_SCORED,
    SCORES,
    Answers,
    score_names,
)
from benchmarks.report.cells import FAULTS, Overview, budget_label
from benchmarks.report.figures import MOST_DRAWN
from benchmarks.report.pairs import against_first
from benchmarks.report.weights import MOST_ROUNDINGS
from benchmarks.stats.intervals import Estimate
from benchmarks.stats.runtimes import Times, kaplan_meier
from solvers.qubo import Float

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
        "first": _first(known),
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
        "pairs": _table(
            "solver runs wins ties losses difference low high effect p",
            _pairs(known),
        ),
        "scores": {
            "names": [SCORES.get(name, name) for name in names],
            "points": [
                [*place, short(gap, 6), *(short(scores.get(n), 5) for n in names)]
                for place, gap, scores in answers.scored
            ],
        },
        "rows": rows(known, answers),
        "weights": weights,
        "noWeights": no_weights,
        "faults": _faults(known),
        "failures": _table(
            "problem solver budget status message count", _failures(known)
        ),
    }


def cuts(known: Overview, answers: Answers, numbers: Mapping[str, Any]) -> list[str]:
    """What is not among the numbers because it would be too much for a page."""
    said = []
    if len(answers.scored) == MOST_SCORED:
        said.append(
            f"Scores are those of the first {MOST_SCORED:,} runs that have any."
        )
    if any(len(best) > MOST_ROWS for best in answers.best.values()):
        said.append(f"Of layers with more, the first {MOST_ROWS} rows are shown.")
    if left := len(answers.best) - len(numbers["rows"]):
        said.append(f"The rows of {left:,} problems are left out.")
    if len(numbers["failures"]["lines"]) == MOST_FAILURES:
        said.append(f"Only the {MOST_FAILURES:,} most frequent failures are listed.")
    if len(numbers["weights"]) == MOST_ROUNDINGS:
        said.append(f"Weights are those of {MOST_ROUNDINGS} answers.")
    if len(known.subjects) > MOST_DRAWN:
        said.append(f"The figures beside this page are of {MOST_DRAWN} problems.")
    return said


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
    """Median and quartiles of the gap against seconds, with the longest budgets."""
    points = sum(len(band.value) for band in answers.bands.values())
    every = max(1, math.ceil(4 * points / MOST_NUMBERS))
    found = []
    for at, band in sorted(answers.bands.items()):
        cell = known.cells[at]
        keep = _turns(np.stack([band.low, band.value, band.high]), every)
        found.append(
            {
                "problem": cell.problem,
                "solver": cell.solver,
                "t": [short(t, 3) for t in answers.grids[cell.problem][keep]],
                "median": [short(gap) for gap in band.value[keep]],
                "low": [short(gap) for gap in band.low[keep]],
                "high": [short(gap) for gap in band.high[keep]],
            }
        )
    return found


def targets(known: Overview, answers: Answers) -> Iterator[list[Any]]:
    """Time to each gap at the budget at which half of a solver's runs get there first.

    Of two budgets alike it is the longer.
    """
    seeds: dict[int, set[int]] = defaultdict(set)
    pairs: dict[tuple[int, int], list[int]] = defaultdict(list)
    for at in answers.times:
        cell = known.cells[at]
        pairs[cell.problem, cell.solver].append(at)
        seeds[cell.problem].update(known.table["seed"][cell.lines].tolist())
    for (problem, solver), places in pairs.items():
        for gap in range(len(GAPS)):
            medians = {at: _median(answers.times[at][gap]) for at in places[::-1]}
            at = min(medians, key=lambda at: medians[at].value)
            times = answers.times[at][gap]
            cell = known.cells[at]
            reached = np.where(times.reached, times.seconds, math.inf)
            of_seed = dict(zip(known.table["seed"][cell.lines], reached, strict=True))
            yield [
                problem,
                solver,
                gap,
                cell.budget,
                int(times.reached.sum()),
                len(times.reached),
                short(medians[at].value, 3),
                short(medians[at].low, 3),
                short(medians[at].high, 3),
                # 0: there is no run with this seed.
                [
                    short(max(of_seed[seed], 1e-6), 3) if seed in of_seed else 0
                    for seed in sorted(seeds[problem])
                ],
            ]


def _median(times: Times) -> Estimate:
    if not times.reached.any():
        return Estimate(math.inf, math.inf, math.inf)
    return kaplan_meier(times).median()


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

        def gaps(energies: Float) -> list[Any]:
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


def _turns(values: Float, every: int) -> NDArray[np.int64]:
    """Where curves [3, T] begin and change, among every so many points."""
    places = np.arange(values.shape[1] - 1, -1, -every)[::-1]
    kept = values[:, places]
    changed = (kept[:, 1:] != kept[:, :-1]).any(axis=0)
    turns: NDArray[np.int64] = places[np.append(True, changed)]
    return turns


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


def _first(known: Overview) -> list[str]:
    """Labels of the solvers that are shown at first: the best, and all that failed."""
    answering = {cell.solver for cell in known.cells if len(known.answers(cell))}
    if len(answering) <= MANY:
        return [*known.solvers]
    best = sorted(answering)[:FIRST]
    return [
        label
        for solver, label in enumerate(known.solvers)
        if solver in best or solver not in answering
    ]


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
        int((known.table["status"][cell.lines] == "ok").sum()),
        *(short(value, 6) for value in spread),
        short(np.median(seconds) if len(seconds) else None, 3),
    ]


def _pairs(known: Overview) -> Iterator[list[Any]]:
    for solver, runs, pair in against_first(known):
        tally, difference = pair.tally, pair.difference
        yield [
            solver,
            runs,
            tally.wins,
            tally.ties,
            tally.losses,
            *(short(v) for v in (difference.value, difference.low, difference.high)),
            short(pair.effect.value, 3),
            short(pair.permutation, 3),
        ]


def _faults(known: Overview) -> list[str]:
    """The statuses of failures that there are."""
    there = {*known.table["status"][known.shown()]}
    return [status for status in FAULTS if status in there]


def _failures(known: Overview) -> list[list[Any]]:
    """Different failures with their numbers, the most frequent first."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for cell in known.cells:
        for line in cell.lines:
            if (status := known.table["status"][line]) != "ok":
                message = known.table["message"][line][:LONGEST]
                place = cell.problem, cell.solver, cell.budget
                counts[(*place, status, message)] += 1
    return [[*key, count] for key, count in counts.most_common(MOST_FAILURES)]


def _table(fields: str, lines: Iterable[list[Any]]) -> dict[str, Any]:
    """Lines under names that are said once."""
    return {"fields": fields.split(), "lines": list(lines)}
