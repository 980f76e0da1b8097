"""Error against seconds, and seconds to a target error, on one rounding problem.

    python -m benchmarks anytime --problem FILE.npz --target dwave-tabu@6.5

The first table has the ratios to rounding to nearest that every solver reaches in the
given seconds for all rows together, recomputed from the rounded weights. With
``--target``, a second table has the seconds until the rows' summed error is at the
target. Since a solver may plan with the seconds that it is given, or take row after
row, the seconds grow from run to run, by a factor of about √2, until a run reaches the
target; the time at which this run reaches it is the result. It is at most √2 times too
long for a solver whose trace falls only at its end, and exact for one whose trace does
not depend on the seconds. Seeds that miss the target in the longest run count as longer
than that run; they are never left out.

Both tables count everything that a solver does with the problem; ``building`` says how
much of it went into other packages' models or libraries of moves. Kernels are compiled
before the clock starts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from tqdm import tqdm

from benchmarks.harness.failures import refusal
from benchmarks.harness.problems import headline, load_problem, suited_betas
from benchmarks.harness.readers import read_entry, read_target
from benchmarks.harness.store import open_store
from benchmarks.harness.tables import columns, median_and_range
from benchmarks.harness.traces import LATE, budgets, time_to
from benchmarks.harness.trials import Trial, Trials, fault_of
from benchmarks.harness.worker import open_workers
from benchmarks.options import add
from benchmarks.peers.base import Peer
from benchmarks.stats.intervals import bootstrap
from benchmarks.stats.weighted import median
from qubo_rounding.problem import RoundingProblem
from solvers import InputError, Solver, label
from solvers.qubo import Float
from solvers.registry import available, parse_solver, solver_class, split_solvers

# Built-in solvers that are compared by default; all peers come after them.
SOLVERS = (
    "auto",
    "lattice",
    "kbest",
    "tabu",
    "sa",
    "qbsolv",
    "descent[moves=pair-flip]",
)
# The solver that speed-ups are relative to.
BASELINE = "dwave-tabu"


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "problem", required=True)
    add(parser, "solver", metavar="NAME[…],…", note="all")
    add(parser, "budgets", default="0.05,0.5,5")
    add(parser, "target")
    add(parser, "baseline", note=BASELINE)
    add(parser, "seeds", default=10)
    add(parser, "rows", "saturated", "threads")
    add(parser, "isolate", "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """Print the ratios, and with a target the seconds to it; return the exit code."""
    seconds: list[float] = options.seconds
    target = None if options.target is None else read_target(options.target)
    if target is None and options.baseline is not None:
        raise InputError("--baseline goes with --target, whose speed-ups it is for")
    if isinstance(target, tuple):
        seconds = sorted({*seconds, target[1]})
    problem = load_problem(options.problem, options.saturated, options.rows)
    solvers, missing = chosen(options.solver, problem)
    baseline = parse_solver(options.baseline or BASELINE)
    if target is not None and baseline not in solvers:
        solvers.append(baseline)
    with open_store(options) as store, open_workers(options) as workers:
        name, threads = options.problem.stem, options.threads
        trials = Trials(
            lambda: problem, store, name=name, threads=threads, workers=workers
        )
        trials.require_ratio()
        for solver in (*solvers, *(target[:1] if isinstance(target, tuple) else ())):
            trials.require_support(solver)
        print(headline(options.problem, problem))
        for reason in missing:
            print(f"left out: {reason}")
        print(f"ratio to nearest in so many seconds, {_spread(options.seeds)}")
        rows: list[list[str]] = []
        try:
            for solver in tqdm(solvers, desc="solvers", disable=None):
                rows.append(row(trials, options.seeds, solver, seconds))
        finally:
            if rows:
                print(columns([heading(seconds), *rows]))
        if target is not None:
            ratio, origin = _ratio_of(target, trials, options)
            print(f"\nseconds to ratio {ratio:.6g}, {origin}")
            print(
                target_table(trials, options.seeds, solvers, baseline, ratio, seconds)
            )
    return trials.exit_code


def _ratio_of(
    target: float | tuple[Solver, float], trials: Trials, options: argparse.Namespace
) -> tuple[float, str]:
    """The ratio that a target stands for, and where it comes from."""
    if not isinstance(target, tuple):
        return target, "as given"
    ratios = _ratios(_runs(trials, options.seeds, *target))
    if not ratios:
        raise InputError(f"there is no target: {label(target[0])} has failed")
    origin = f"{options.target} (median of {options.seeds})"
    return float(np.median(ratios)), origin


def chosen(
    texts: str | None, problem: RoundingProblem
) -> tuple[list[Solver], list[str]]:
    """The solvers asked for, or all that can be used, and why others cannot."""
    if texts is not None:
        entries = [read_entry(text) for text in split_solvers(texts)]
        if any(seconds is not None for _, seconds in entries):
            raise InputError("--solver takes no @SECONDS here; --seconds gives them")
        return list(dict.fromkeys(solver for solver, _ in entries)), []
    solvers = [parse_solver(text) for text in (*SOLVERS, *peers(problem))]
    qubo = problem.to_qubos()[0]
    reasons = {solver: refusal(solver, qubo) for solver in solvers}
    missing = [f"{label(s)}: {reason}" for s, reason in reasons.items() if reason]
    return [solver for solver in solvers if not reasons[solver]], missing


def peers(problem: RoundingProblem) -> list[str]:
    """Texts of other packages' solvers, also at temperatures that suit the problem."""
    texts = []
    for name in available():
        cls = solver_class(name)
        if issubclass(cls, Peer):
            texts += [name]
            texts += [f"{name}[{suited_betas(problem)}]"] if cls.thermal else []
    return texts


def _runs(trials: Trials, seeds: int, solver: Solver, seconds: float) -> list[Trial]:
    return [trials.run(solver, seed, seconds=seconds) for seed in range(seeds)]


def _ratios(runs: Sequence[Trial]) -> list[float]:
    return [trial.ratio for trial in runs if trial.ratio is not None]


def heading(seconds: Sequence[float]) -> list[str]:
    """The heading of the first table, with a column for each budget."""
    return ["solver", *(f"{s:g} s" for s in seconds), "building s"]


def row(
    trials: Trials, seeds: int, solver: Solver, seconds: Sequence[float]
) -> list[str]:
    """A solver's line of the first table."""
    runs_by_budget = [_runs(trials, seeds, solver, s) for s in seconds]
    cells = [_cell(runs, s) for runs, s in zip(runs_by_budget, seconds, strict=True)]
    building = np.median([trial.building for trial in runs_by_budget[-1]])
    return [label(solver), *cells, f"{building:.3f}"]


def _cell(runs: Sequence[Trial], seconds: float) -> str:
    if (fault := fault_of(runs)) is not None:
        return fault
    text = median_and_range(_ratios(runs))
    took = float(np.median([trial.run.seconds for trial in runs]))
    return f"({took:.3g} s) {text}" if took > LATE * seconds else text


def _spread(seeds: int) -> str:
    what = "one seed" if seeds == 1 else f"median [lowest, highest] of {seeds} seeds"
    return f"{what}; (s): it took longer"


def target_table(
    trials: Trials,
    seeds: int,
    solvers: Sequence[Solver],
    baseline: Solver,
    ratio: float,
    seconds: Sequence[float],
) -> str:
    """A line for each solver: when it reached the ratio, and the speed-up."""
    ladder, limit = list(budgets(seconds)), seconds[-1]

    def times_to(solver: Solver) -> Float:
        def run(seed: int) -> Callable[[float], Trial]:
            return lambda s: trials.run(solver, seed, seconds=s)

        return np.array([time_to(run(seed), ratio, ladder) for seed in range(seeds)])

    times = {s: times_to(s) for s in tqdm(solvers, desc="targets", disable=None)}
    heading = ["solver", "reached", "s", "95 % interval", "speed-up"]
    lines = [[*heading, "s without building", "speed-up"]]
    # Columns of the times: with building the models or the library, and without.
    baseline_whole, baseline_search = np.median(times[baseline], axis=0)
    for solver, solver_times in times.items():
        interval = bootstrap(partial(median, solver_times[:, 0]), seeds)
        whole, search = np.median(solver_times, axis=0)
        lines.append(
            [
                label(solver),
                f"{np.isfinite(solver_times[:, 0]).sum()}/{seeds}",
                _seconds(whole, limit),
                f"[{_seconds(interval.low, limit)}, {_seconds(interval.high, limit)}]",
                _quotient(baseline_whole, whole, limit),
                _seconds(search, limit),
                _quotient(baseline_search, search, limit),
            ]
        )
    return columns(lines)


def _seconds(value: float, limit: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else f">{limit:g}"


def _quotient(baseline: float, own: float, limit: float) -> str:
    """How many times as fast as the baseline; a bound if one of the two was cut off."""
    cut = [not math.isfinite(time) for time in (baseline, own)]
    if all(cut) or not own:
        return "-"
    sign = ">" if cut[0] else "<" if cut[1] else ""
    return f"{sign}{min(baseline, limit) / min(own, limit):.3g}"
