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
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.commands.anytime import read_seconds
from benchmarks.commands.compare import first_rows
from benchmarks.harness import log, report
from benchmarks.harness.command import exit_code
from benchmarks.harness.race import judge, solve
from benchmarks.harness.traces import falls
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, label
from solvers.atomic import replacing
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
# Okabe and Ito's colours, apart for all kinds of colour vision; and grey levels.
STYLES = (("#56B4E9", ":"), ("#E69F00", "-."), ("#0072B2", "--"), ("#D55E00", "-"))
SUFFIXES = (".svg", ".png")
# Points of a curve. Percent that are taken for nothing; how far the figure reaches
# above the end of the highest curve, and down from there, as factors.
POINTS, FLOOR, HEADROOM, DEEPEST = 600, 1e-3, 4.0, 1e4

Run = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks ablation",
        description="What each part of lattice gains.",
    )
    parser.add_argument("--problem", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument(
        "--sweeps", default="30,300", metavar="N,N,…", help="of one anneal (30,300)"
    )
    parser.add_argument(
        "--seconds",
        default="1",
        metavar="S,S,…",
        help="budgets of all rows together (1)",
    )
    parser.add_argument("--rows", type=int, metavar="N", help="the first N (all)")
    parser.add_argument("--saturated", choices=("fixed", "free"))
    parser.add_argument("--seed", type=int, default=0, help="the first (0)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs (1)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log", type=Path, metavar="FILE", help=log.HELP)
    parser.add_argument(
        "--figure", type=Path, metavar="FILE.svg|png", help="error against seconds"
    )
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {options.seeds}")
    if options.seed < 0:
        raise InputError(f"--seed must be at least 0, not {options.seed}")
    lengths = [(sweeps, None) for sweeps in read_sweeps(options.sweeps)]
    limits = [(None, seconds) for seconds in read_seconds(options.seconds)]
    Budget(threads=options.threads)
    if options.figure is not None:
        require_figure(options.figure)
    problem = RoundingProblem.load(options.problem, options.saturated)
    if options.rows is not None:
        problem = first_rows(problem, options.rows)
    runs = Runs(problem, options)
    print(f"{options.problem.stem}: {problem.rows} rows, n = {problem.n}")
    if options.seeds > 1:
        print(f"median [lowest, highest] of {options.seeds} seeds")
    columns = [*lengths, *limits]
    with tqdm(VARIANTS, desc="variants", disable=None) as variants:
        found = {
            (part, name): [runs.of(solver, *column) for column in columns]
            for part, name, solver in variants
        }
    print(table(found, columns))
    if options.figure is not None:
        figure(options.figure, found, options.problem.stem)
    return 0


def read_sweeps(text: str) -> list[int]:
    """Lengths of anneals from ``30,300``, in increasing order."""
    try:
        sweeps = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"cannot read --sweeps {text!r}; write 30,300") from error
    if sweeps[0] < 1:
        raise InputError(f"--sweeps must be at least 1, not {sweeps[0]}")
    return sweeps


def require_figure(path: Path) -> None:
    """Refuse a figure that could not be drawn, before any work is done."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"--figure must end in .svg or .png, not {path.name!r}")
    if not path.parent.is_dir():
        raise InputError(f"--figure: there is no folder {path.parent}")
    if find_spec("matplotlib") is None:
        raise InputError(
            "--figure: matplotlib is not installed; "
            'pip install "qubo-rounding[report]" installs it'
        )


class Runs:
    """Runs of variants on one problem, kept in the log.

    A run holds the ``ratio`` to nearest, the ``seconds``, those of the ``library``, the
    ``moves``, the ``status``, and in ``falls`` every new lowest ratio with its seconds.
    """

    def __init__(self, problem: RoundingProblem, options: argparse.Namespace) -> None:
        self._problem, self._threads = problem, options.threads
        self._seeds = range(options.seed, options.seed + options.seeds)
        self._nearest = float(problem.local_mse(problem.nearest()).sum())
        if not self._nearest:
            raise InputError(
                "there is no ratio to nearest: rounding to nearest has no error"
            )
        self._qubos = problem.to_qubos()
        settings = {name: vars(options)[name] for name in ("rows", "saturated")}
        settings |= {"command": "ablation", "threads": options.threads}
        settings |= {"content": log.digest(options.problem)}
        environment = report.environment(options.threads)
        self._warm = False
        self._log = log.RunLog(options.log, settings, {"environment": environment})

    def of(
        self, solver: Lattice, sweeps: int | None, seconds: float | None
    ) -> list[Run]:
        """A run for each seed; of so many sweeps an anneal, or of so many seconds."""
        if sweeps is not None:
            solver = replace(solver, num_sweeps=sweeps)
        text = label(solver) if seconds is None else f"{label(solver)}@{seconds!r}"
        return [
            self._log.run(f"{text} seed {s}", partial(self._make, solver, seconds, s))
            for s in self._seeds
        ]

    def _make(self, solver: Lattice, seconds: float | None, seed: int) -> Run:
        if not self._warm:
            # On one row, with what a search of a single sweep would leave uncompiled.
            row = self._qubos[0].take(slice(0, 1))
            Lattice(num_sweeps=1, elites=2, rounds=1).solve(row)
            self._warm = True
        budget = Budget(seconds=seconds, threads=self._threads)
        solutions = solve(solver, self._qubos, seed, budget)
        _, record = judge(solver, self._problem, self._qubos, seed, solutions)
        notes = record["info"]
        return {
            "ratio": record["objective"] / self._nearest,
            "seconds": record["seconds"],
            "library": sum(note.get("library_seconds", 0.0) for note in notes),
            "moves": sum(note.get("moves", 0) for note in notes),
            "sweeps": sum(note.get("sweeps", 0) for note in notes),
            "status": record["status"],
            "falls": falls(solutions, self._nearest),
        }


Found = Mapping[tuple[str, str], Sequence[Sequence[Run]]]


def table(found: Found, columns: Sequence[tuple[int | None, float | None]]) -> str:
    """A line for each variant; for every length and budget, ratio and seconds."""
    heading = ["variant", "moves", "library s"]
    for sweeps, seconds in columns:
        heading += [f"{seconds:g} s" if sweeps is None else f"{sweeps} sweeps", "s"]
    lines = [heading]
    for (part, name), several in found.items():
        cells = [f"{part}: {name}", str(several[0][0]["moves"])]
        cells.append(f"{np.median([run['library'] for run in several[0]]):.3f}")
        for runs in several:
            cells += [
                _ratio(runs),
                f"{np.median([run['seconds'] for run in runs]):.3f}",
            ]
        lines.append(cells)
    return report.columns(lines)


def _ratio(runs: Sequence[Run]) -> str:
    if any(run["status"] == "invalid" for run in runs):
        return "invalid"
    ratios = [run["ratio"] for run in runs]
    text = f"{np.median(ratios):.5f}"
    if len(runs) > 1:
        text += f" [{min(ratios):.5f}, {max(ratios):.5f}]"
    return text


def curve(several: Sequence[Sequence[Run]], at: Float) -> Float:
    """The lowest ratio that any run reached by each of the times, median of the seeds.

    `several` are the runs of every length, each with one for every seed.
    """
    lowest = []
    for runs in zip(*several, strict=True):
        steps = sorted(tuple(fall) for run in runs for fall in run["falls"])
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
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    taken = [run["seconds"] for several in found.values() for r in several for run in r]
    at = np.geomspace(min(taken) / 10, max(taken), POINTS)
    curves = {key: curve(several, at) for key, several in found.items()}
    lowest = min(float(ratios[-1]) for ratios in curves.values())
    above = {key: 100 * (ratios / lowest - 1) for key, ratios in curves.items()}
    low, high = span(list(above.values()))
    # A constant salt and no date: the same runs give the same file.
    with matplotlib.rc_context({"font.size": 8, "svg.hashsalt": "ablation"}):
        drawing = Figure(figsize=(7.2, 3.4), layout="constrained")
        panels = drawing.subplots(1, len(TITLES), sharex=True, sharey=True)
        for panel, (part, heading) in zip(panels, TITLES.items(), strict=True):
            lines = [
                (name, line) for (group, name), line in above.items() if group == part
            ]
            styles = STYLES[-len(lines) :]
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
        with replacing(path) as unfinished:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            drawing.savefig(unfinished, dpi=200, metadata=metadata)


def span(above: Sequence[Float]) -> tuple[float, float]:
    """Lower and upper end of the axis, for curves of errors above the lowest.

    The upper end leaves the fall from the start out, which dwarfs all that differs.
    """
    steps = np.concatenate(above)
    lowest = steps[steps > FLOOR].min(initial=np.inf)
    last = max(float(line[-1]) for line in above)
    high = HEADROOM * max(last, 10 * FLOOR)
    return max(min(lowest, high / 100), high / DEEPEST), high


if __name__ == "__main__":
    sys.exit(main())
