"""What the answers of runs say: curves, times to targets, rows, scores."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.runs import Run
from benchmarks.harness.store import Store
from benchmarks.report.cells import TIE, Cell, Overview, Subject, label_of

Float = NDArray[np.float64]

# The gaps of which the time is measured.
GAPS = (0.1, 0.01, 0.001, 0.0)
# Decades of seconds before a run's end that curves show, and points on each of them.
DECADES, POINTS = 4, 12
# Scores as tables name them; the first that runs have is shown at first.
SCORES = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "agreement": "agreement %",
    "sqnr_db": "SQNR dB",
    "heldout_mse": "held-out error",
}
# Runs with scores that a page holds.
MOST_SCORED = 5000


@dataclass(kw_only=True, eq=False)
class Answers:
    """What is gathered from the runs, one after the other.

    Attributes
    ----------
    grids
        Seconds of the curves [T], by problem.
    paths
        Gaps along the grid [T], infinite before the first answer, of each run of a
        solver's longest budget, by cell.
    times
        Seconds to each of `GAPS` [G] by cell and seed; infinite where it is missed.
    rows
        Energies of the rows [R] of the cell's median run, by cell.
    best, bounds
        Lowest energy that any run has found for each row [R], and the highest certified
        lower bound, by problem.
    scored
        Problem, solver, gap and scores by name of each run that has some.
    environments
        Environments, and how many runs are from each.
    compiled
        Seconds of compiling, by solver.
    """

    grids: dict[int, Float]
    paths: dict[int, list[Float]] = field(default_factory=lambda: defaultdict(list))
    times: dict[int, dict[int, Float]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    rows: dict[int, Float] = field(default_factory=dict)
    best: dict[int, Float] = field(default_factory=dict)
    bounds: dict[int, Float] = field(default_factory=dict)
    scored: list[tuple[int, int, float, dict[str, float]]] = field(default_factory=list)
    environments: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    compiled: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))


def gather(store: Store, known: Overview) -> Answers:
    """Look at every run once."""
    answers = Answers(grids=_grids(known))
    middle = {known.table["run_id"][_middle(known, cell)] for cell in known.cells}
    last = set(known.last.values())
    machines: Counter[int] = Counter()
    seen: dict[int, dict[str, Any]] = {}
    for run in store.runs():
        spec = run.spec
        place = (
            spec.problem,
            label_of(spec.solver, spec.settings),
            (spec.seconds, spec.sweeps, spec.threads),
            spec.code,
        )
        if (at := known.index.get(place)) is None:
            continue
        # The store gives equal environments as one object.
        machines[id(run.environment)] += 1
        seen[id(run.environment)] = run.environment
        cell = known.cells[at]
        if (compiling := run.timing.get("compile")) is not None:
            answers.compiled[cell.solver].append(compiling)
        if run.status == "ok":
            _take(answers, known, run, at, follow=at in last, middle=middle)
    answers.environments = [(seen[key], n) for key, n in machines.most_common()]
    return answers


def first_times(subject: Subject, run: Run) -> Float:
    """Seconds at which a run has come to each of `GAPS`; infinite where it has not."""
    seconds, gaps = _fall(subject, run)
    final = float(subject.gap(run.objective))
    return np.array(
        [
            float(seconds[np.argmax(gaps <= goal + TIE)])
            if final <= goal + TIE
            else math.inf
            for goal in GAPS
        ]
    )


def path(subject: Subject, run: Run, grid: Float) -> Float:
    """Gaps of a run along a grid of seconds; infinite before its first answer."""
    seconds, gaps = _fall(subject, run)
    place = np.searchsorted(seconds, grid * (1 + TIE), side="right") - 1
    return np.where(place >= 0, gaps[np.maximum(place, 0)], math.inf)


def _fall(subject: Subject, run: Run) -> tuple[Float, Float]:
    """Seconds and gaps of a run's falls, down to the answer that was verified."""
    final = float(subject.gap(run.objective))
    if run.falls is None or not len(run.falls):
        return np.array([run.seconds]), np.array([final])
    # No report counts for more than the answer bears out.
    gaps = np.maximum(subject.gap(run.falls[:, 1]), final)
    ended = max(run.seconds, float(run.falls[-1, 0]))
    return np.append(run.falls[:, 0], ended), np.append(gaps, final)


def _take(
    answers: Answers,
    known: Overview,
    run: Run,
    at: int,
    *,
    follow: bool,
    middle: set[str],
) -> None:
    """Add a run that has an answer."""
    cell = known.cells[at]
    subject = known.subjects[cell.problem]
    answers.times[at][run.spec.seed] = first_times(subject, run)
    if follow:
        answers.paths[at].append(path(subject, run, answers.grids[cell.problem]))
    if run.energies is not None:
        best = answers.best.get(cell.problem, run.energies)
        answers.best[cell.problem] = np.minimum(best, run.energies)
        if follow and run.spec.run_id in middle:
            answers.rows[at] = run.energies
    if (bound := lower_bounds(run)) is not None:
        before = answers.bounds.get(cell.problem, bound)
        answers.bounds[cell.problem] = np.maximum(before, bound)
    scores = {
        name: float(value)
        for name, value in run.scores.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    if scores and len(answers.scored) < MOST_SCORED:
        gap = float(subject.gap(run.objective))
        answers.scored.append((cell.problem, cell.solver, gap, scores))


def lower_bounds(run: Run) -> Float | None:
    """Certified lower bounds of the rows [R] in a run's remarks, if it has them."""
    parts = [remarks.get("lower_bound") for remarks in run.info]
    if not parts or not all(isinstance(part, list) for part in parts):
        return None
    values = [value for part in parts if part is not None for value in part]
    if run.energies is None or len(values) != len(run.energies):
        return None
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError):
        return None


def _grids(known: Overview) -> dict[int, Float]:
    """Seconds of the curves, by problem: the last decades before the longest run."""
    longest: dict[int, float] = {}
    for at in known.last.values():
        cell = known.cells[at]
        seconds = known.table["seconds"][known.answers(cell)]
        most = float(np.max(seconds, initial=0.0))
        longest[cell.problem] = max(longest.get(cell.problem, 0.0), most)
    steps = np.linspace(-DECADES, 0, DECADES * POINTS + 1)
    return {problem: most * 10**steps for problem, most in longest.items()}


def _middle(known: Overview, cell: Cell) -> int:
    """The line of a cell's median answer; of its first run if it has none."""
    lines = known.answers(cell)
    if not len(lines):
        return int(cell.lines[0])
    order = np.argsort(known.table["objective"][lines], kind="stable")
    return int(lines[order[(len(lines) - 1) // 2]])


def score_names(answers: Answers) -> Sequence[str]:
    """Names of the scores that runs have, accuracies first."""
    found = {name for *_, scores in answers.scored for name in scores}
    return [*(n for n in SCORES if n in found), *sorted(found - SCORES.keys())]
