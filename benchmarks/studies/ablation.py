"""What each part of `lattice` gains: its moves, its pool, its start.

    python -m benchmarks ablation --problem FILE.npz --figure FILE.svg

The table has a line for each variant; none is polished. Libraries and starts are
compared with one anneal and no pool. For the pool, one anneal is compared with restarts
from other decodings, and with restarts and recombination. Errors are ratios to rounding
to nearest, recomputed from the rounded weights: after the same number of sweeps in
every anneal, and in the same seconds for all rows together, the library's included (one
anneal is then as long as they allow; a pool may end before). Kernels are compiled
before the clock starts.

The figure shows, against time, how far a variant is above the lowest error of all runs:
the best that any of its runs, long or short, has reached by then, as the median over
the seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.harness import figures, tables
from benchmarks.harness.problems import headline, load_problem
from benchmarks.harness.store import open_store
from benchmarks.harness.trials import Trial, Trials, fault_of
from benchmarks.harness.worker import open_workers
from benchmarks.options import add
from solvers.lattice.solver import Lattice
from solvers.qubo import Float

ONE = Lattice(elites=1, polish="none")
POOL = Lattice(polish="none")
# Part of the solver, variant, solver; each part has a panel of the figure.
VARIANTS = (
    ("moves", "singles", Lattice(moves="singles", elites=1, polish="none")),
    ("moves", "+ pairs", Lattice(moves="pairs", elites=1, polish="none")),
    ("moves", "+ quads", Lattice(moves="quads", elites=1, polish="none")),
    ("moves", "+ longer", Lattice(moves="longer", elites=1, polish="none")),
    ("pool", "one anneal", ONE),
    ("pool", "+ restarts", Lattice(rounds=0, polish="none")),
    ("pool", "+ recombination", POOL),
    ("start", "nearest", Lattice(start="nearest", elites=1, polish="none")),
    ("start", "babai", Lattice(start="babai", elites=1, polish="none")),
    ("start", "kbest", ONE),
)
TITLES = {
    "moves": "Moves (one anneal)",
    "pool": "Pool of states",
    "start": "Start (one anneal)",
}
# Number of points of a curve; percent above the lowest error that count as nothing; the
# factors by which the figure's axis reaches above the end of the highest curve, and
# down from there at most.
POINTS, FLOOR, HEADROOM, DEEPEST = 600, 1e-3, 4.0, 1e4

# Sweeps of every anneal, or seconds of a run.
Column = tuple[int | None, float | None]
# By part and variant: for each column, the trials of all seeds.
TrialsByVariant = Mapping[tuple[str, str], Sequence[Sequence[Trial]]]


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "problem", required=True)
    add(parser, "sweeps", default="30,300")
    add(parser, "budgets", default="1")
    add(parser, "rows", "saturated")
    add(parser, "seed", help="the first seed")
    add(parser, "seeds", default=1)
    add(parser, "threads", "isolate", "store", "rerun", "rerun-failed", "figure")


def run(options: argparse.Namespace) -> int:
    """Print a line for each variant, and draw the figure; return the exit code."""
    columns: list[Column] = [(sweeps, None) for sweeps in options.sweeps]
    columns += [(None, seconds) for seconds in options.seconds]
    problem = load_problem(options.problem, options.saturated, options.rows)
    seeds = range(options.seed, options.seed + options.seeds)
    results = {}
    with open_store(options) as store, open_workers(options) as workers:
        name, threads = options.problem.stem, options.threads
        trials = Trials(
            lambda: problem, store, name=name, threads=threads, workers=workers
        )
        trials.require_ratio()
        print(headline(options.problem, problem))
        if options.seeds > 1:
            print(f"median [lowest, highest] of {options.seeds} seeds")
        try:
            for part, variant, solver in tqdm(VARIANTS, desc="variants", disable=None):
                found = [runs(trials, solver, column, seeds) for column in columns]
                results[part, variant] = found
        finally:
            if results:
                print(table(results, columns))
    # Runs that failed have no curve.
    drawn = {
        key: found
        for key, found in results.items()
        if all(len(trial.falls) for trials in found for trial in trials)
    }
    if options.figure is not None and drawn:
        figure(options.figure, drawn, options.problem.stem)
    return trials.exit_code


def runs(
    trials: Trials, solver: Lattice, column: Column, seeds: Sequence[int]
) -> list[Trial]:
    """A run for each seed, with the sweeps or the seconds of the column."""
    sweeps, seconds = column
    if sweeps is not None:
        solver = replace(solver, num_sweeps=sweeps)
    return [trials.run(solver, seed, seconds=seconds) for seed in seeds]


def table(results: TrialsByVariant, columns: Sequence[Column]) -> str:
    """A line for each variant, with ratio and seconds for each of `columns`."""
    heading = ["variant", "moves", "library s"]
    for sweeps, seconds in columns:
        heading += [f"{seconds:g} s" if sweeps is None else f"{sweeps} sweeps", "s"]
    lines = [heading]
    for (part, name), trials_by_column in results.items():
        first = trials_by_column[0]
        library = [trial.total("library_seconds") for trial in first]
        cells = [f"{part}: {name}", f"{first[0].total('moves'):.0f}"]
        cells.append(f"{np.median(library):.3f}")
        for trials in trials_by_column:
            seconds_taken = np.median([trial.run.seconds for trial in trials])
            cells += [_ratio(trials), tables.number(float(seconds_taken), 3)]
        lines.append(cells)
    return tables.columns(lines)


def _ratio(trials: Sequence[Trial]) -> str:
    if (fault := fault_of(trials)) is not None:
        return fault
    return tables.median_and_range([t.ratio for t in trials if t.ratio is not None])


def curve(trials_by_column: Sequence[Sequence[Trial]], at: Float) -> Float:
    """The lowest ratio that any run has reached by each of the times `at`.

    `trials_by_column` has a trial for each seed in each column; the result is the
    median over the seeds.
    """
    lowest = []
    for trials in zip(*trials_by_column, strict=True):
        steps = np.concatenate([trial.falls for trial in trials])
        seconds, ratios = steps[np.lexsort(steps.T[::-1])].T
        best = np.append(np.inf, np.minimum.accumulate(ratios))
        lowest.append(best[np.searchsorted(seconds, at, side="right")])
    median: Float = np.median(lowest, axis=0)
    return median


def figure(path: Path, results: TrialsByVariant, title: str) -> None:
    """Draw error against seconds, with a panel for each part of the solver.

    Raises
    ------
    InputError
        `path` cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    taken = [
        trial.run.seconds
        for trials_by_column in results.values()
        for trials in trials_by_column
        for trial in trials
    ]
    at = np.geomspace(min(taken) / 10, max(taken), POINTS)
    curves = {key: curve(trials, at) for key, trials in results.items()}
    lowest = min(float(ratios[-1]) for ratios in curves.values())
    above = {key: 100 * (ratios / lowest - 1) for key, ratios in curves.items()}
    low, high = span(list(above.values()))
    with figures.style():
        drawing = Figure(figsize=(7.2, 3.4), layout="constrained")
        panels = drawing.subplots(1, len(TITLES), sharex=True, sharey=True)
        for panel, (part, heading) in zip(panels, TITLES.items(), strict=True):
            lines = [
                (name, line) for (group, name), line in above.items() if group == part
            ]
            styles = figures.STYLES[len(figures.STYLES) - len(lines) :]
            for (name, line), (colour, dashes) in zip(lines, styles, strict=True):
                panel.plot(
                    at,
                    # The curve of the lowest error leaves the figure at the bottom.
                    np.maximum(line, low / 10),
                    color=colour,
                    linestyle=dashes,
                    linewidth=1.6,
                    drawstyle="steps-post",
                    label=name,
                )
            panel.set_title(heading, fontsize=9)
            panel.set_xlabel("time, all rows (s)")
            panel.grid(True, which="major", color="0.9", linewidth=0.6)
            panel.spines[["top", "right"]].set_visible(False)
            panel.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, -0.2),
                ncols=2,
                frameon=False,
                handlelength=2.6,
                columnspacing=1.0,
            )
        panels[0].set(xscale="log", yscale="log", ylim=(low, high))
        panels[0].set_ylabel("error above the lowest (%)")
        for axis in (panels[0].xaxis, panels[0].yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        heading = f"{title}: the lowest error is {lowest:.5f} of that of nearest"
        drawing.suptitle(heading, fontsize=9, x=0.01, ha="left")
        figures.save(path, drawing)


def span(above: Sequence[Float]) -> tuple[float, float]:
    """Lower and upper end of the axis, for curves of errors above the lowest.

    The upper end cuts off the fall from the start, which dwarfs all differences.
    """
    steps = np.concatenate(above)
    lowest = steps[steps > FLOOR].min(initial=np.inf)
    last = max(float(line[-1]) for line in above)
    high = HEADROOM * max(last, 10 * FLOOR)
    return max(min(lowest, high / 100), high / DEEPEST), high
