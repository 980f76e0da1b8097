"""What the answers of runs say: curves, times to targets, rows, scores."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.harness.runs import Run
from benchmarks.harness.store import Store
from benchmarks.report.cells import Cell, Overview, label_of
from benchmarks.stats.intervals import Band, quartile_band
from benchmarks.stats.runtimes import Times
from benchmarks.stats.traces import GapTraces, log_grid
from solvers.qubo import Float

# The gaps of which the time is measured.
GAPS = (0.1, 0.01, 0.001, 0.0)
# Decades of seconds before the end of the longest run that curves show.
DECADES, POINTS = 4, 12
# Runs that are held at a time.
HELD = 5000
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

Scored = tuple[tuple[int, int, int], float, dict[str, float]]


@dataclass(kw_only=True, eq=False)
class Answers:
    """What is gathered from the answers.

    Attributes
    ----------
    grids
        Seconds of the curves [T], by problem.
    bands
        Median and quartiles of the gap along the grid [T], by cell; of those with each
        solver's longest budget.
    times
        Seconds to each of `GAPS`, of the runs in their order, by cell.
    rows
        Energies of the rows [R] of the cell's median run, by cell.
    best, bounds
        Lowest energy that any run has found for each row [R], and the highest certified
        lower bound, by problem.
    scored
        Problem, solver and budget, gap, and scores by name of each run that has some.
    environments
        Environments, and how many runs are from each.
    """

    grids: dict[int, Float]
    bands: dict[int, Band] = field(default_factory=dict)
    times: dict[int, list[Times]] = field(default_factory=dict)
    rows: dict[int, Float] = field(default_factory=dict)
    best: dict[int, Float] = field(default_factory=dict)
    bounds: dict[int, Float] = field(default_factory=dict)
    scored: list[Scored] = field(default_factory=list)
    environments: list[tuple[dict[str, Any], int]] = field(default_factory=list)


def gather(store: Store, known: Overview) -> Answers:
    """Look at every run once."""
    answers = Answers(grids=_grids(known))
    machines: Counter[int] = Counter()
    contents: dict[int, dict[str, Any]] = {}
    for problems in _batches(known):
        held: dict[int, list[Run]] = defaultdict(list)
        for run in store.runs(problem=problems):
            if (at := known.index.get(_place(run))) is not None:
                held[at].append(run)
                # The store gives equal environments as one object.
                machines[id(run.environment)] += 1
                contents[id(run.environment)] = run.environment
        for at, runs in held.items():
            _follow(answers, known, at, runs)
            _compare(answers, known, at, [run for run in runs if run.status == "ok"])
    answers.environments = [(contents[key], n) for key, n in machines.most_common()]
    return answers


def score_names(answers: Answers) -> Sequence[str]:
    """Names of the scores that runs have, accuracies first."""
    found = {name for *_, scores in answers.scored for name in scores}
    return [*(n for n in SCORES if n in found), *sorted(found - SCORES.keys())]


def lower_bounds(run: Run) -> Float | None:
    """Certified lower bounds of the rows [R] in a run's remarks, if it has them."""
    parts = [remarks.get("lower_bound") for remarks in run.info]
    if run.energies is None or not all(isinstance(part, list) for part in parts):
        return None
    values = [value for part in parts for value in part or ()]
    if len(values) != len(run.energies):
        return None
    if not all(isinstance(value, int | float) for value in values):
        return None
    return np.array(values, np.float64)


def _place(run: Run) -> tuple[Any, ...]:
    """What `Overview.index` finds a run's cell by."""
    spec = run.spec
    label = label_of(spec.solver, spec.settings)
    budget = spec.seconds, spec.sweeps, spec.threads
    return spec.problem, label, budget, spec.code


def _batches(known: Overview) -> Iterator[list[str]]:
    """Digests of problems that have about `HELD` runs together."""
    runs: Counter[int] = Counter()
    for cell in known.cells:
        runs[cell.problem] += len(cell.lines)
    batch, size = [], 0
    for number, subject in enumerate(known.subjects):
        batch.append(subject.problem.digest)
        size += runs[number]
        if size >= HELD:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _follow(answers: Answers, known: Overview, at: int, runs: Sequence[Run]) -> None:
    """Times to the targets and, for the longest budget, the course of the gap."""
    cell = known.cells[at]
    subject = known.subjects[cell.problem]
    if math.isnan(subject.best):
        return
    traces = GapTraces.of(
        [_falls(run) for run in runs],
        np.full(len(runs), _end(known, cell, runs)),
        subject.best,
        subject.best + subject.scale,
    )
    answers.times[at] = [traces.times_to(gap) for gap in GAPS]
    last = known.last[cell.problem, cell.solver] == at
    if last and any(run.status == "ok" for run in runs):
        answers.bands[at] = quartile_band(traces.at(answers.grids[cell.problem]))


def _falls(run: Run) -> Float | None:
    """A run's trace, down to what was verified; None of a run that failed."""
    if run.status != "ok" or math.isnan(run.objective):
        return None
    final = [run.seconds, run.objective]
    if run.falls is None or not len(run.falls):
        return np.array([final])
    # No report counts for more than the answer bears out.
    falls = np.maximum(run.falls, [0.0, run.objective])
    final[0] = max(run.seconds, float(falls[-1, 0]))
    return np.vstack([falls, final])


def _end(known: Overview, cell: Cell, runs: Sequence[Run]) -> float:
    """How long the runs of a cell were watched.

    It is as long for those that stopped by themselves or failed: nothing more would
    have come of them. The last run to end takes the longest beyond a soft limit.
    """
    limit = known.budgets[cell.budget][0] or 0.0
    seconds = [run.seconds for run in runs if not math.isnan(run.seconds)]
    for run in runs:
        if run.falls is not None and len(run.falls):
            seconds.append(float(run.falls[-1, 0]))
    return max([limit, *seconds])


def _compare(answers: Answers, known: Overview, at: int, runs: Sequence[Run]) -> None:
    """Rows, bounds and scores of the runs of a cell that have an answer."""
    cell = known.cells[at]
    problem = cell.problem
    for run in runs:
        if run.energies is not None:
            elsewhere = known.subjects[problem].known
            best = answers.best.get(
                problem, run.energies if elsewhere is None else elsewhere
            )
            answers.best[problem] = np.minimum(best, run.energies)
        if (bound := lower_bounds(run)) is not None:
            highest = answers.bounds.get(problem, bound)
            answers.bounds[problem] = np.maximum(highest, bound)
        scores = {
            name: float(value)
            for name, value in run.scores.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        if scores and len(answers.scored) < MOST_SCORED:
            gap = math.nan
            if not math.isnan(run.objective):
                gap = float(known.subjects[problem].gap(run.objective))
            place = problem, cell.solver, cell.budget
            answers.scored.append((place, gap, scores))
    if runs and known.last[problem, cell.solver] == at:
        ordered = sorted(runs, key=lambda run: run.objective)
        middle = ordered[(len(runs) - 1) // 2]
        if middle.energies is not None:
            answers.rows[at] = middle.energies


def _grids(known: Overview) -> dict[int, Float]:
    """Seconds of the curves, by problem: the last decades before the longest run."""
    longest: dict[int, float] = {}
    for at in known.last.values():
        cell = known.cells[at]
        seconds = known.table["seconds"][known.answers(cell)]
        most = float(np.max(seconds, initial=1e-6))
        longest[cell.problem] = max(longest.get(cell.problem, 0.0), most)
    return {
        problem: log_grid(most / 10**DECADES, most, POINTS)
        for problem, most in longest.items()
    }
