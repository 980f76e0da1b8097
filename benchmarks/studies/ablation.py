"""What each part of `lattice` gains: its moves, its pool, its start.

    python -m benchmarks ablation --problem FILE.npz --figure FILE.svg

A line for each variant, all without polish. The libraries and the starts are compared
by one anneal and no pool; the pool by one anneal, by restarts from other decodings, and
by these with recombination. Errors are ratios to rounding to nearest, recomputed from
the rounded weights: after the same number of sweeps in every anneal, and with the same
seconds for all rows together, the library's included (one anneal is then as long as
they allow; a pool may end before). Kernels are compiled before.

The figure shows how far above the lowest error of all runs a variant still is: the best
that any of its runs, long or short, has reached by then; with several seeds the median.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.harness import figures, tables
from benchmarks.harness.log import digest, open_log
from benchmarks.harness.problems import headline, load_problem
from benchmarks.harness.trials import Trial, Trials
from benchmarks.options import add
from solvers.lattice.solver import Lattice
from solvers.qubo import Float

ONE = Lattice(elites=1, polish="none")
POOL = Lattice(polish="none")
# Part, variant, solver; each part is a panel of the figure.
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
# Points of a curve. Percent that are taken for nothing; how far the figure reaches
# above the end of the highest curve, and down from there, as factors.
POINTS, FLOOR, HEADROOM, DEEPEST = 600, 1e-3, 4.0, 1e4

# Sweeps of every anneal, or seconds of a run.
Column = tuple[int | None, float | None]
# By part and variant: for each column the trials of all seeds.
Found = Mapping[tuple[str, str], Sequence[Sequence[Trial]]]


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add(parser, "problem", required=True)
    add(parser, "sweeps", default="30,300")
    add(parser, "budgets", default="1")
    add(parser, "rows", "saturated")
    add(parser, "seed", help="the first")
    add(parser, "seeds", default=1)
    add(parser, "threads", "log", "figure")


def run(options: argparse.Namespace) -> int:
    """Print a line for each variant, and draw the figure; the exit code."""
    columns: list[Column] = [(sweeps, None) for sweeps in options.sweeps]
    columns += [(None, seconds) for seconds in options.seconds]
    problem = load_problem(options.problem, options.saturated, options.rows)
    log = open_log(
        *("ablation", options, "rows", "saturated", "threads"),
        content=digest(options.problem),
    )
    trials = Trials(lambda: problem, log, threads=options.threads)
    trials.require_ratio()
    print(headline(options.problem, problem))
    if options.seeds > 1:
        print(f"median [lowest, highest] of {options.seeds} seeds")
    seeds = range(options.seed, options.seed + options.seeds)
    with tqdm(VARIANTS, desc="variants", disable=None) as variants:
        found = {
            (part, name): [runs(trials, solver, column, seeds) for column in columns]
            for part, name, solver in variants
        }
    print(table(found, columns))
    if options.figure is not None:
        figure(options.figure, found, options.problem.stem)
    return 0


def runs(
    trials: Trials, solver: Lattice, column: Column, seeds: Sequence[int]
) -> list[Trial]:
    """A run for each seed; of so many sweeps an anneal, or of so many seconds."""
    sweeps, seconds = column
    if sweeps is not None:
        solver = replace(solver, num_sweeps=sweeps)
    return [trials.run(solver, seed, seconds=seconds) for seed in seeds]


def table(found: Found, columns: Sequence[Column]) -> str:
    """A line for each variant; for every length and budget, ratio and seconds."""
    heading = ["variant", "moves", "library s"]
    for sweeps, seconds in columns:
        heading += [f"{seconds:g} s" if sweeps is None else f"{sweeps} sweeps", "s"]
    lines = [heading]
    for (part, name), several in found.items():
        library = [trial.total("library_seconds") for trial in several[0]]
        cells = [f"{part}: {name}", f"{several[0][0].total('moves'):.0f}"]
        cells.append(f"{np.median(library):.3f}")
        for trials in several:
            seconds_taken = np.median([trial.seconds for trial in trials])
            cells += [_ratio(trials), f"{seconds_taken:.3f}"]
        lines.append(cells)
    return tables.columns(lines)


def _ratio(trials: Sequence[Trial]) -> str:
    if any(trial.status == "invalid" for trial in trials):
        return "invalid"
    return tables.median_and_range([t.ratio for t in trials if t.ratio is not None])


def curve(several: Sequence[Sequence[Trial]], at: Float) -> Float:
    """The lowest ratio that any run reached by each of the times, median of the seeds.

    `several` are the trials of every length, each with one for every seed.
    """
    lowest = []
    for trials in zip(*several, strict=True):
        steps = sorted(tuple(fall) for trial in trials for fall in trial.falls)
        seconds, ratios = np.array(steps).T
        best = np.append(np.inf, np.minimum.accumulate(ratios))
        lowest.append(best[np.searchsorted(seconds, at, side="right")])
    median: Float = np.median(lowest, axis=0)
    return median


def figure(path: Path, found: Found, title: str) -> None:
    """Draw a panel for each part, error against seconds.

    Raises
    ------
    InputError
        A place that cannot be written to.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    every = [t for several in found.values() for trials in several for t in trials]
    taken = [trial.seconds for trial in every]
    at = np.geomspace(min(taken) / 10, max(taken), POINTS)
    curves = {key: curve(several, at) for key, several in found.items()}
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
            styles = figures.STYLES[-len(lines) :]
            for (name, line), (colour, dashes) in zip(lines, styles, strict=True):
                panel.plot(
                    # The lowest error of all leaves through the bottom.
                    *(at, np.maximum(line, low / 10)),
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

    The upper end leaves the fall from the start out, which dwarfs all that differs.
    """
    steps = np.concatenate(above)
    lowest = steps[steps > FLOOR].min(initial=np.inf)
    last = max(float(line[-1]) for line in above)
    high = HEADROOM * max(last, 10 * FLOOR)
    return max(min(lowest, high / 100), high / DEEPEST), high
