"""Runs in cells: one for each problem, solver and budget, over the seeds."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.harness.runs import STATUSES, Problem
from benchmarks.harness.store import Store
from benchmarks.stats.traces import ROUNDING, gaps
from solvers.errors import InputError
from solvers.qubo import Float

FAULTS = tuple(status for status in STATUSES if status != "ok")
# Cells that a page holds; beyond, the problems with most runs are shown.
MOST_CELLS = 20_000

# Seconds, sweeps, threads.
Budget = tuple[float | None, int | None, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A problem with runs, and the scale on which its gaps are measured.

    Attributes
    ----------
    problem
        As the store has it.
    title
        What distinguishes it from the others, such as ``resnet18.conv1, 4 bits``.
    layer, bits
        What it is filtered by.
    best
        The lowest objective of a run that bears out its claim, or what is known from
        elsewhere, if that is lower; NaN without any.
    known : float64 [R], optional
        What is known of the rows from elsewhere; infinite where nothing is.
    """

    problem: Problem
    title: str
    layer: str
    bits: str
    best: float
    known: Float | None = None

    @property
    def scale(self) -> float:
        """What a gap of 1 is: from the best known to nearest, or the best's size."""
        nearest = self.problem.nearest
        if nearest is not None and nearest - self.best > ROUNDING * abs(nearest):
            return nearest - self.best
        return abs(self.best) or 1.0

    def gap(self, objective: ArrayLike) -> Float:
        """The gap of an objective, or of an array of them."""
        return gaps(objective, self.best, self.best + self.scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """The runs of a solver on a problem with a budget, one for each seed.

    Attributes
    ----------
    problem, solver, budget
        Numbers of `Overview.subjects`, `Overview.solvers`, `Overview.budgets`.
    lines
        Numbers of its runs in the table, with an answer and without.
    code
        Digest of the code that made them.
    """

    problem: int
    solver: int
    budget: int
    lines: NDArray[np.int64]
    code: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Overview:
    """All that is known without looking at answers.

    Attributes
    ----------
    table
        Columns of the store's runs.
    subjects
        The problems that have runs.
    solvers
        Labels, with the settings of the runs where there are any; the best come first.
    budgets
        In increasing order.
    cells
        Those of the problems that are shown, in the order of their numbers.
    last
        For each problem and solver the number of its cell with the longest budget.
    outdated
        Number of runs left out because newer code has made the same.
    left_out
        Number of problems left out because there are too many.
    """

    table: dict[str, NDArray[Any]]
    subjects: Sequence[Subject]
    solvers: Sequence[str]
    budgets: Sequence[Budget]
    cells: Sequence[Cell]
    last: dict[tuple[int, int], int]
    outdated: int = 0
    left_out: int = 0
    index: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def answers(self, cell: Cell) -> NDArray[np.int64]:
        """Lines of the table of a cell's runs that have an answer with an objective."""
        return cell.lines[_answered(self.table, cell.lines)]

    def gaps(self, cell: Cell) -> Float:
        """Gaps of a cell's answers, in increasing order."""
        objectives: Float = np.sort(self.table["objective"][self.answers(cell)])
        if not len(objectives):
            return objectives
        return self.subjects[cell.problem].gap(objectives)

    def shown(self) -> NDArray[np.int64]:
        """Lines of the table of all runs that are shown."""
        return np.concatenate([cell.lines for cell in self.cells])


def overview(store: Store, known: Mapping[str, Float] | None = None) -> Overview:
    """Sort the runs of a store into cells.

    Parameters
    ----------
    store
        The store.
    known
        By digest of a problem, best known energies of its rows from elsewhere; infinite
        where nothing is known.

    Raises
    ------
    InputError
        There are no runs.
    """
    table = store.table()
    if not len(table["run_id"]):
        raise InputError("the store has no runs to report on")
    labels = _labels(table)
    spans = list(zip(*map(_optional, _budget_columns(table)), strict=True))
    places = list(zip(table["problem"], labels, spans, strict=True))
    newest = _newest(places, table)
    groups: dict[tuple[str, str, Budget], list[int]] = defaultdict(list)
    for line, place in enumerate(places):
        if newest[place][1] == table["code"][line]:
            groups[place].append(line)
    digests = _chosen(groups)
    subjects = _subjects(store, digests, table, known or {})
    budgets = sorted(
        {span for digest, _, span in groups if digest in digests}, key=_size
    )
    ranked = _ranked(groups, subjects, table)
    number = {label: i for i, label in enumerate(ranked)}
    cells = sorted(
        (
            Cell(
                problem=digests[digest],
                solver=number[label],
                budget=budgets.index(span),
                lines=np.array(lines),
                code=newest[digest, label, span][1],
            )
            for (digest, label, span), lines in groups.items()
            if digest in digests
        ),
        key=lambda cell: (cell.problem, cell.solver, cell.budget),
    )
    return Overview(
        table=table,
        subjects=subjects,
        solvers=ranked,
        budgets=budgets,
        cells=cells,
        last={(cell.problem, cell.solver): i for i, cell in enumerate(cells)},
        outdated=len(places) - sum(map(len, groups.values())),
        left_out=len({digest for digest, *_ in groups}) - len(digests),
        index={
            (
                subjects[cell.problem].problem.digest,
                ranked[cell.solver],
                budgets[cell.budget],
                cell.code,
            ): i
            for i, cell in enumerate(cells)
        },
    )


def label_of(solver: str, settings: dict[str, Any]) -> str:
    """A solver's label, followed by what else decided its answers."""
    if not settings:
        return solver
    return f"{solver} {', '.join(f'{k}={v}' for k, v in sorted(settings.items()))}"


def budget_label(budget: Budget) -> str:
    """A budget as tables name it."""
    seconds, sweeps, threads = budget
    parts = [] if seconds is None else [f"{seconds:g} s"]
    parts += [] if sweeps is None else [f"{sweeps} sweeps"]
    parts += [] if threads == 1 else [f"{threads} threads"]
    return ", ".join(parts) or "no limit"


def _answered(
    table: dict[str, NDArray[Any]], lines: NDArray[np.int64] | slice
) -> NDArray[np.bool_]:
    """Which runs have an answer that bears out its claim, and an objective."""
    objectives: Float = table["objective"][lines]
    return np.asarray(table["status"][lines] == "ok") & ~np.isnan(objectives)


def _labels(table: dict[str, NDArray[Any]]) -> list[str]:
    known: dict[tuple[str, str], str] = {}
    pairs = list(zip(table["solver"], table["settings"], strict=True))
    for pair in pairs:
        if pair not in known:
            known[pair] = label_of(pair[0], json.loads(pair[1]))
    return [known[pair] for pair in pairs]


def _budget_columns(table: dict[str, NDArray[Any]]) -> Sequence[NDArray[Any]]:
    return table["seconds_limit"], table["sweeps"], table["threads"]


def _optional(column: NDArray[Any]) -> list[Any]:
    """Numbers of a column, None for NaN, and whole ones as such."""
    if column.dtype.kind == "i":
        return list(column.tolist())
    return [None if math.isnan(value) else value for value in column.tolist()]


def _newest(
    places: Sequence[tuple[str, str, Budget]], table: dict[str, NDArray[Any]]
) -> dict[tuple[str, str, Budget], tuple[str, str]]:
    """When the last run of each cell began, and the code that made it."""
    newest: dict[tuple[str, str, Budget], tuple[str, str]] = {}
    stamps = zip(table["began"], table["code"], strict=True)
    for place, stamp in zip(places, stamps, strict=True):
        newest[place] = max(newest.get(place, stamp), stamp)
    return newest


def _chosen(groups: dict[tuple[str, str, Budget], list[int]]) -> dict[str, int]:
    """Numbers of the problems to show, by digest: all, or those with most runs."""
    runs: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    for (digest, *_), lines in groups.items():
        runs[digest] += len(lines)
        cells[digest] += 1
    chosen: list[str] = []
    size = 0
    for digest, _ in runs.most_common():
        size += cells[digest]
        if size > MOST_CELLS and chosen:
            break
        chosen.append(digest)
    return {digest: i for i, digest in enumerate(chosen)}


def _subjects(
    store: Store,
    digests: dict[str, int],
    table: dict[str, NDArray[Any]],
    known: Mapping[str, Float],
) -> list[Subject]:
    """The problems in the order of their titles; `digests` is numbered anew."""
    problems = store.problems()
    best = {
        digest: float(known[digest].sum()) if digest in known else math.inf
        for digest in digests
    }
    good = _answered(table, slice(None))
    for digest, objective in zip(
        table["problem"][good], table["objective"][good], strict=True
    ):
        if objective < best.get(digest, -math.inf):
            best[digest] = objective
    named = {digest: _title(problems[digest]) for digest in digests}
    times = Counter(named.values())
    subjects = []
    for digest in sorted(digests, key=lambda digest: (named[digest], digest)):
        problem, title = problems[digest], named[digest]
        subjects.append(
            Subject(
                problem=problem,
                title=title if times[title] == 1 else f"{title}, {digest[:6]}",
                layer=problem.name.partition("[")[0],
                bits=_bits(problem),
                best=best[digest] if math.isfinite(best[digest]) else math.nan,
                known=known.get(digest),
            )
        )
    digests.update({s.problem.digest: i for i, s in enumerate(subjects)})
    return subjects


def _bits(problem: Problem) -> str:
    bits = problem.meta.get("bits")
    return "none" if bits is None else str(bits)


def _title(problem: Problem) -> str:
    bits = _bits(problem)
    return problem.name if bits == "none" else f"{problem.name}, {bits} bits"


def _size(budget: Budget) -> tuple[float, float, int]:
    seconds, sweeps, threads = budget
    return seconds or 0.0, sweeps or 0.0, threads


def _ranked(
    groups: dict[tuple[str, str, Budget], list[int]],
    subjects: Sequence[Subject],
    table: dict[str, NDArray[Any]],
) -> list[str]:
    """The solvers by their mean rank over problems, each at its longest budget."""
    numbers = {subject.problem.digest: subject for subject in subjects}
    longest: dict[tuple[str, str], Budget] = {}
    for digest, label, span in groups:
        if digest in numbers:
            before = longest.get((digest, label), span)
            longest[digest, label] = max(before, span, key=_size)
    good = _answered(table, slice(None))
    medians: dict[str, dict[str, float]] = defaultdict(dict)
    for (digest, label), span in longest.items():
        lines = np.array(groups[digest, label, span])
        answers = table["objective"][lines[good[lines]]]
        medians[digest][label] = float(np.median(answers)) if len(answers) else math.inf
    ranks: dict[str, list[float]] = defaultdict(list)
    for found in medians.values():
        values = np.array(list(found.values()))
        for label, value in found.items():
            ranks[label].append(float((values < value).mean()))
    return sorted(ranks, key=lambda label: (float(np.mean(ranks[label])), label))
