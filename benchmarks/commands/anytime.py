"""Error against seconds, and seconds to a target error, on one rounding problem.

    python -m benchmarks anytime --problem FILE.npz --target dwave-tabu@6.5

First the ratios to rounding to nearest that every solver reaches in the given seconds
for all rows together, recomputed from the rounded weights. With ``--target`` also the
seconds until the rows' summed error is at the target. A solver may plan with the
seconds that it is given, or take row after row, so they grow, by about √2 a run, until
a run reaches the target; what counts is when this run does so. That is at most √2 times
too long for a solver whose trace falls only at its end, and exact for one whose
trace does not depend on the seconds. Seeds that miss it in the longest run count as
longer than that; they are never left out.

Everything a solver does with the problem counts, in both tables; ``building`` says how
much of it went into other packages' models or libraries of moves. Kernels are compiled
before.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.commands.compare import BETAS, first_rows, read_entry
from benchmarks.harness import log, report
from benchmarks.harness.command import exit_code
from benchmarks.harness.traces import LATE, Races, budgets, interval, time_to
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, Solver, label
from solvers.registry import parse_solver, split_solvers

SOLVERS = (
    *("auto", "lattice", "kbest", "tabu", "sa", "qbsolv", "descent[moves=pair-flip]"),
    *("dwave-tabu", "dwave-sa", "dwave-sa[{betas}]", "dwave-greedy"),
    *("dwave-path-integral", "dwave-rotor", "openjij-sa", "openjij-sa[{betas}]"),
    *("openjij-sqa", "simulated-bifurcation", "qubolite-sa", "qubolite-descent"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks anytime",
        description="Error against seconds, and seconds to a target error.",
    )
    parser.add_argument("--problem", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--solver", metavar="NAME[…],…", help="default: all")
    parser.add_argument(
        "--seconds",
        default="0.05,0.5,5",
        metavar="S,S,…",
        help="budgets of all rows together (0.05,0.5,5)",
    )
    parser.add_argument("--target", metavar="RATIO|SOLVER@SECONDS")
    parser.add_argument(
        "--baseline",
        default="dwave-tabu",
        metavar="SOLVER",
        help="what speed-ups are measured against (dwave-tabu)",
    )
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="runs (10)")
    parser.add_argument("--rows", type=int, metavar="N", help="the first N (all)")
    parser.add_argument("--saturated", choices=("fixed", "free"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log", type=Path, metavar="FILE", help=log.HELP)
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {options.seeds}")
    seconds = read_seconds(options.seconds)
    target = None if options.target is None else read_target(options.target)
    if isinstance(target, tuple):
        seconds = sorted({*seconds, target[1]})
    problem = RoundingProblem.load(options.problem, options.saturated)
    if options.rows is not None:
        problem = first_rows(problem, options.rows)
    solvers, missing = chosen(options.solver, problem)
    baseline = parse_solver(options.baseline)
    if target is not None and baseline not in solvers:
        solvers.append(baseline)
    races = Races(problem, options)
    for solver in (*solvers, *(target[:1] if isinstance(target, tuple) else ())):
        races.require_support(solver)
    print(f"{options.problem.stem}: {problem.rows} rows, n = {problem.n}")
    for reason in missing:
        print(f"left out: {reason}")
    print(f"ratio to nearest in so many seconds, {_spread(options.seeds)}")
    print(table(races, solvers, seconds))
    if target is None:
        return 0
    if isinstance(target, tuple):
        ratio = float(np.median([run["ratio"] for run in races.runs(*target)]))
        origin = f"{options.target} (median of {options.seeds})"
    else:
        ratio, origin = target, "as given"
    print(f"\nseconds to ratio {ratio:.6g}, {origin}")
    print(target_table(races, solvers, baseline, ratio, seconds))
    return 0


def read_seconds(text: str) -> list[float]:
    """Budgets from ``0.05,0.5,5``, in increasing order."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"cannot read --seconds {text!r}; write 0.05,0.5,5") from error
    for seconds in found:
        # Refuses what no budget can be.
        Budget(seconds=seconds)
    return found


def read_target(text: str) -> float | tuple[Solver, float]:
    """A ratio, or a solver and the seconds it gets to reach the target."""
    try:
        ratio = float(text)
    except ValueError:
        solver, seconds = read_entry(text)
        if seconds is None:
            raise InputError(
                f"--target takes a ratio or SOLVER@SECONDS, not {text!r}"
            ) from None
        Budget(seconds=seconds)
        return solver, seconds
    if not 0 < ratio < math.inf:
        raise InputError(f"--target must be a positive ratio, not {text}")
    return ratio


def chosen(
    texts: str | None, problem: RoundingProblem
) -> tuple[list[Solver], list[str]]:
    """The solvers asked for, or all whose packages are there and why others are not."""
    if texts is not None:
        entries = [read_entry(text) for text in split_solvers(texts)]
        if any(seconds is not None for _, seconds in entries):
            raise InputError("--solver takes no @SECONDS here; --seconds gives them")
        return list(dict.fromkeys(solver for solver, _ in entries)), []
    low, high = BETAS / problem.scale.mean() ** 2
    betas = f"beta_min={low:.4g},beta_max={high:.4g}"
    solvers = [parse_solver(text.format(betas=betas)) for text in SOLVERS]
    qubo = problem.to_qubos()[0]
    reasons = {solver: solver.supports(qubo) for solver in solvers}
    missing = [f"{label(s)}: {reason}" for s, reason in reasons.items() if reason]
    return [solver for solver in solvers if not reasons[solver]], missing


def table(races: Races, solvers: Sequence[Solver], seconds: Sequence[float]) -> str:
    """A line for each solver, a column for each budget."""
    lines = [["solver", *(f"{s:g} s" for s in seconds), "building s"]]
    for solver in tqdm(solvers, desc="solvers", disable=None):
        several = [races.runs(solver, s) for s in seconds]
        cells = [_cell(runs, s) for runs, s in zip(several, seconds, strict=True)]
        building = np.median([run["building"] for run in several[-1]])
        lines.append([label(solver), *cells, f"{building:.3f}"])
    return report.columns(lines)


def _cell(runs: Sequence[dict[str, Any]], seconds: float) -> str:
    if any(run["status"] == "invalid" for run in runs):
        return "invalid"
    ratios = [run["ratio"] for run in runs]
    text = f"{np.median(ratios):.5f}"
    if len(runs) > 1:
        text += f" [{min(ratios):.5f}, {max(ratios):.5f}]"
    took = float(np.median([run["seconds"] for run in runs]))
    return f"({took:.3g} s) {text}" if took > LATE * seconds else text


def _spread(seeds: int) -> str:
    what = "one seed" if seeds == 1 else f"median [lowest, highest] of {seeds} seeds"
    return f"{what}; (s): it took longer"


def target_table(
    races: Races,
    solvers: Sequence[Solver],
    baseline: Solver,
    ratio: float,
    seconds: Sequence[float],
) -> str:
    """A line for each solver: when it reached the ratio, and the speed-up."""
    ladder, limit = list(budgets(seconds)), seconds[-1]
    times = {
        solver: np.array(
            [time_to(races, solver, ratio, ladder, s) for s in range(races.seeds)]
        )
        for solver in tqdm(solvers, desc="targets", disable=None)
    }
    heading = ["solver", "reached", "s", "95 % interval", "speed-up"]
    lines = [[*heading, "s without building", "speed-up"]]
    whole, search = np.median(times[baseline], axis=0)
    for solver, both in times.items():
        low, high = interval(both[:, 0])
        middle, rest = np.median(both, axis=0)
        lines.append(
            [
                label(solver),
                f"{np.isfinite(both[:, 0]).sum()}/{races.seeds}",
                _seconds(middle, limit),
                f"[{_seconds(low, limit)}, {_seconds(high, limit)}]",
                _quotient(whole, middle, limit),
                _seconds(rest, limit),
                _quotient(search, rest, limit),
            ]
        )
    return report.columns(lines)


def _seconds(value: float, limit: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else f">{limit:g}"


def _quotient(baseline: float, own: float, limit: float) -> str:
    """How many times faster; a bound where one of the two was cut off."""
    cut = [not math.isfinite(time) for time in (baseline, own)]
    if all(cut) or not own:
        return "-"
    sign = ">" if cut[0] else "<" if cut[1] else ""
    return f"{sign}{min(baseline, limit) / min(own, limit):.3g}"


if __name__ == "__main__":
    sys.exit(main())
