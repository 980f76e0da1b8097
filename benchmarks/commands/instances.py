"""Solvers side by side on QUBO files: best known values reached, gaps, seconds.

    python -m benchmarks instances folder/ --best-known folder/best_known.csv

Every solver gets every instance for the same seconds, on one thread, and stops when it
reaches the best known value; kernels are compiled before. The table has a line for each
class of instances and solver: how many of the best known values were reached, the gaps
to them in percent (mean and worst), and the median seconds to the solver's own best
value, where a miss counts as the whole budget. Solvers with limits of their own
(sweeps, samples) often end long before the seconds do. Solvers of other packages build
their models within the seconds.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.failures import FAULTS
from benchmarks.harness.store import open_store
from benchmarks.harness.tables import columns, number
from benchmarks.harness.trials import Trial, Trials
from benchmarks.harness.worker import open_workers
from benchmarks.options import add
from solvers import InputError, QuboBatch, Solver, parse_solvers
from solvers import read_qubo as read
from solvers.io.files import COMPRESSED, format_of

SOLVERS = "descent,babai,kbest,klein,cem,hopfield,sa,qbsolv,tabu,exact,neal,dwave-tabu"
# A value is reached if it is missed by no more than this, relatively.
REACHED = 1e-9


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "files", "best-known")
    add(parser, "solver", default=SOLVERS)
    add(parser, "seconds", default=1.0, help="time limit per instance")
    add(parser, "seed", "largest", "isolate", "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """Print a line for each class and solver; return the exit code."""
    instances = collect(options.files, options.best_known, options.largest)
    solvers = parse_solvers(options.solver)
    runs: list[dict[str, Any]] = []
    with open_store(options) as store, open_workers(options) as workers:

        def trials_on(qubo: QuboBatch, name: str) -> Trials:
            return Trials(lambda: qubo, store, name=name, workers=workers)

        try:
            for name, qubo, known in tqdm(instances, desc="instances", disable=None):
                trials = trials_on(qubo, name)
                runs += race(trials, solvers, options.seconds, options.seed, known)
        finally:
            if runs:
                print(table(runs))
    return int(any(run["status"] in FAULTS for run in runs))


# Name, problem to minimise, and best known minimum.
Instance = tuple[str, QuboBatch, float | None]


def collect(
    paths: Sequence[Path], best_known: Path | None, largest: int | None = None
) -> list[Instance]:
    """All instances in files and folders, of at most `largest` variables.

    Raises
    ------
    InputError
        A file cannot be read or holds several rows, two instances have the same name,
        or there is no instance.
    """
    values = {} if best_known is None else _best_known(best_known)
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no file or folder {path}")
    files = [
        file for path in paths for file in (_files(path) if path.is_dir() else [path])
    ]
    instances: list[Instance] = []
    for file in files:
        name, value, maximise = values.get(file.name, (_name(file), None, None))
        qubo = read(file, maximise=maximise)
        if qubo.rows != 1:
            raise InputError(f"{file} holds {qubo.rows} rows; an instance is one")
        if any(name == other for other, _, _ in instances):
            raise InputError(f"two instances are called {name}: {file} is the second")
        if largest is None or qubo.n <= largest:
            instances.append((name, qubo, value))
    if not instances:
        which = "" if largest is None else f" of at most {largest} variables"
        raise InputError(f"no instance{which} in {', '.join(map(str, paths))}")
    return instances


def _name(file: Path) -> str:
    return Path(file.name.removesuffix(COMPRESSED)).stem


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if format_of(file))


def _best_known(path: Path) -> dict[str, tuple[str, float, bool]]:
    """By file name: name, best known minimum, and whether the file maximises."""
    try:
        lines = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a table: {error}") from error
    values = {}
    for at, line in enumerate(lines, 2):
        try:
            maximise = bool(line.get("best_known_max"))
            value = float(line["best_known_max" if maximise else "best_known_min"])
            name = line.get("name") or Path(line["file"]).stem
            values[line["file"]] = (name, -value if maximise else value, maximise)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}:{at}: needs file and best_known_max or best_known_min"
            ) from error
        if not math.isfinite(value):
            raise InputError(f"{path}:{at}: the best known value is {value}")
    return values


def race(
    trials: Trials,
    solvers: Sequence[Solver],
    seconds: float,
    seed: int,
    known: float | None,
) -> Iterator[dict[str, Any]]:
    """A record of every run on an instance: of each solver that supports it.

    `known` is the best known minimum, if there is one.
    """
    name, n = trials.known.name, trials.known.n
    reasons = [trials.refusal(solver) for solver in solvers]
    able = [s for s, why in zip(solvers, reasons, strict=True) if why is None]
    if not able:
        raise InputError(f"solver {solvers[0].name}: {reasons[0]} ({name})")
    done = [trials.run(s, seed, seconds=seconds, target=known) for s in able]
    runs = [_record(trial) | {"budget": seconds} for trial in done]
    energies = [run["energy"] for run in runs if "energy" in run]
    best = min(energies, default=0.0) if known is None else known
    for run in runs:
        # Without an answer there is no gap.
        gap = (run.get("energy", math.nan) - best) / max(abs(best), 1e-300)
        yield (
            run
            | {"instance": name, "class": _class(name), "n": n}
            | {"best_known": best, "gap": gap, "reached": gap <= REACHED}
        )


def _record(trial: Trial) -> dict[str, Any]:
    """What the table says about a run."""
    run = trial.run
    record: dict[str, Any] = {"solver": run.spec.solver, "status": run.status}
    if run.falls is None:
        return record
    return record | {"energy": run.objective, "seconds_to_best": run.falls[-1, 0]}


def _class(name: str) -> str:
    """The class of an instance: gka*d for ``gka12d``, bqp50-* for ``bqp50-1``."""
    return re.sub(r"(?<=-)\d+$|(?<=_)\d+$|\d+(?=[a-z]?$)", "*", name)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """A line for each class and solver, and one for each solver on all instances."""
    heading = ["class", "n", "solver", "reached", "mean gap %", "worst gap %", "s"]
    lines = [heading]
    solvers = list(dict.fromkeys(run["solver"] for run in runs))
    for group in [*dict.fromkeys(run["class"] for run in runs), "all"]:
        for solver in solvers:
            own = [
                run
                for run in runs
                if run["solver"] == solver and group in (run["class"], "all")
            ]
            if not own:
                continue
            sizes = [run["n"] for run in own]
            gaps = [100 * run["gap"] for run in own if "energy" in run] or [math.nan]
            times = [
                run["seconds_to_best"] if run["reached"] else run["budget"]
                for run in own
            ]
            span = f"{min(sizes)}-{max(sizes)}"
            lines.append(
                [
                    group,
                    str(sizes[0]) if len(set(sizes)) == 1 else span,
                    solver,
                    f"{sum(run['reached'] for run in own)}/{len(own)}",
                    number(statistics.fmean(gaps), 4),
                    number(max(gaps), 4),
                    f"{statistics.median(times):.3f}",
                ]
            )
    return columns(lines)
