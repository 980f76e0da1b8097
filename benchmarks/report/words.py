"""Sentences that are computed: the summary, and the limits of what is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks.report.answers import Answers
from benchmarks.report.cells import FAULTS, Cell, Overview, budget_label

# With fewer seeds than this a median says little.
FEW_SEEDS = 5
FEW_LAYERS = 5
# Pairings that the best solver does not win are named if they are no more than this.
FEW_EXCEPTIONS = 2
# A number and its unit are never parted.
SPACE = "\u00a0"


def summary(known: Overview) -> list[str]:
    """Three sentences: who is best, by how much, and how many runs say so."""
    return [*_winners(known), _effort(known)]


def _winners(known: Overview) -> list[str]:
    """Who is best most often, and how far the best two are from the best known."""
    pairings = _pairings(known)
    wins = Counter(cell.solver for cells in pairings for cell in cells)
    if not wins:
        return ["No run has an answer that bears out its claim."]
    (first, count), *others = wins.most_common()
    sentence = (
        f"{known.solvers[first]} has the lowest median error in {count} of the "
        f"{_count(len(pairings), 'pairing')} of problem and budget"
    )
    exceptions = [
        f"{known.solvers[cell.solver]} on {known.subjects[cell.problem].title} with "
        f"{budget_label(known.budgets[cell.budget])}"
        for cells in pairings
        for cell in cells
        if cell.solver != first
    ]
    if len(exceptions) > FEW_EXCEPTIONS:
        exceptions = [f"{known.solvers[s]} in {won}" for s, won in others[:3]]
    if exceptions:
        sentence += f"; ahead otherwise: {_joined(exceptions)}"
    gaps = {solver: np.array(found) for solver, found in _final_gaps(known).items()}
    ranked = sorted(gaps, key=lambda solver: float(np.median(gaps[solver])))[:2]
    said = [
        f"{known.solvers[solver]} at {percent(float(np.median(gaps[solver])))} (at "
        f"worst {percent(float(gaps[solver].max()))})"
        for solver in ranked
    ]
    return [
        f"{sentence}.",
        "With the longest budget, the median gap over the problems (0: best known, "
        f"100{SPACE}%: rounding to nearest) is least for {_joined(said)}.",
    ]


def _pairings(known: Overview) -> list[list[Cell]]:
    """For each problem and budget, the cells whose median is lowest."""
    groups: dict[tuple[int, int], list[tuple[float, Cell]]] = {}
    for cell in known.cells:
        if len(gaps := known.gaps(cell)):
            entry = float(np.median(gaps)), cell
            groups.setdefault((cell.problem, cell.budget), []).append(entry)
    best = []
    for entries in groups.values():
        lowest = min(gap for gap, _ in entries)
        best.append([cell for gap, cell in entries if gap == lowest])
    return best


def _final_gaps(known: Overview) -> dict[int, list[float]]:
    """Median gaps on all problems with the longest budget, by solver."""
    found: dict[int, list[float]] = {}
    for (_, solver), at in known.last.items():
        if len(gaps := known.gaps(known.cells[at])):
            found.setdefault(solver, []).append(float(np.median(gaps)))
    return found


def _effort(known: Overview) -> str:
    """How many runs there are, what they took, and how many failed."""
    lines = known.shown()
    statuses = Counter(known.table["status"][lines].tolist())
    failed = [f"{statuses[name]:,} {name}" for name in FAULTS if statuses[name]]
    seeds = sorted({len(cell.lines) for cell in known.cells})
    each = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    taken = float(np.nansum(known.table["seconds"][lines]))
    text = (
        f"This is from {_count(len(lines), 'run')} of "
        f"{_count(len(known.solvers), 'solver')} on "
        f"{_count(len(known.subjects), 'problem')} with {each} "
        f"{'seed' if each == '1' else 'seeds'} each, {_duration(taken)} of solving; "
    )
    if not failed:
        return f"{text}none of them failed."
    count = sum(statuses[name] for name in FAULTS)
    share = f"{100 * count / len(lines):.1f}{SPACE}%"
    return f"{text}{count:,} of them ({share}) failed: {_joined(failed)}."


def limits(known: Overview, answers: Answers) -> list[str]:
    """What a reader should not take from the page."""
    elsewhere = sum(subject.known is not None for subject in known.subjects)
    registry = ""
    if elsewhere:
        registry = f" and, for {_count(elsewhere, 'problem')}, of the registry"
    said = [
        f"The best known value of a problem is the lowest of the runs in this store"
        f"{registry}: a gap of 0 means that nothing better is known here, not that the "
        "optimum is proven."
    ]
    tight = sum(
        int(np.isclose(answers.best[p], bound, rtol=1e-6).sum())
        for p, bound in answers.bounds.items()
        if p in answers.best
    )
    rows = sum(len(best) for best in answers.best.values())
    if answers.bounds:
        said.append(f"Of {rows:,} rows, {tight:,} are proven optimal by a bound.")
    fewest = min(len(cell.lines) for cell in known.cells)
    if fewest < FEW_SEEDS:
        said.append(
            f"Some results rest on {_count(fewest, 'run')} only; a median and a band "
            f"over fewer than {FEW_SEEDS} seeds say little about the next run."
        )
    layers = {subject.layer for subject in known.subjects}
    if len(layers) < FEW_LAYERS:
        said.append(
            f"{_count(len(layers), 'layer').capitalize()} cannot stand for all "
            "networks: the rows of one layer share their matrix and are no independent "
            "samples."
        )
    missing = len(known.subjects) * len(known.solvers) - len(known.last)
    if missing:
        said.append(
            f"{_count(missing, 'pairing')} of problem and solver "
            f"{'has' if missing == 1 else 'have'} no runs; figures over all problems "
            "weigh only what is there."
        )
    if len(answers.environments) > 1:
        said.append(
            f"The runs come from {len(answers.environments)} environments: compare "
            "seconds within one of them only."
        )
    if known.outdated:
        said.append(
            f"{_count(known.outdated, 'run')} by earlier versions of the code "
            f"{'is' if known.outdated == 1 else 'are'} left out."
        )
    if known.left_out:
        said.append(
            f"{_count(known.left_out, 'problem')} with the fewest runs "
            f"{'is' if known.left_out == 1 else 'are'} left out to keep the page small."
        )
    said.append(
        "Seconds are wall-clock seconds of the machines named above, which may have "
        "been doing other things; ratios between solvers carry over better than times."
    )
    return said


def spans(known: Overview) -> str:
    """The budgets in words."""
    return _joined([budget_label(budget) for budget in known.budgets])


def percent(share: float) -> str:
    """A share as percent, with three digits."""
    if share and share < 1e-5:
        return f"<{SPACE}0.001{SPACE}%"
    return f"{float(f'{100 * share:.3g}'):g}{SPACE}%"


def _joined(parts: Sequence[str]) -> str:
    *front, last = parts
    return f"{', '.join(front)} and {last}" if front else last


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{round(seconds / size, 1):g}{SPACE}{unit}"
    return f"{seconds:.3g}{SPACE}s"
