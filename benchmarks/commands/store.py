"""What is in stores of runs: listed, shown, exported, merged and verified.

    python -m benchmarks store list runs.db --solver lattice --status ok
    python -m benchmarks store merge all.db first.db second.db

`list` has a line for each run; `show` prints all of one, whose id may be cut short;
`export` writes a table; `merge` brings the runs of other stores into the first: where
both have a run, the one that ended well stays. `verify` looks for what cannot be: files
that are damaged, runs under an id that is not theirs, answers of another size than
their problem, energies that do not sum to the objective, and, of problems whose files
are given, energies that the states do not have.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.problems import load_problem
from benchmarks.harness.race import CLAIM_TOLERANCE
from benchmarks.harness.runs import Problem, Run
from benchmarks.harness.store import Store
from benchmarks.harness.tables import columns, number
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from solvers import InputError
from solvers.atomic import replacing

# Runs that ended so stay when stores are merged.
WELL = ("ok", "skipped")
# Runs that are merged in one transaction.
TOGETHER = 500
# Relative difference that rounding may make between sums of the same energies.
ROUNDING = 1e-9
# What a table of runs says about their problems.
OF_PROBLEMS = ("name", "kind", "rows", "n", "nearest")


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options to the parser."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, help: str, *options: str, **changes: Any) -> None:
        add(actions.add_parser(name, help=help), *options, **changes)

    filters = ("problem-name", "solver-label", "status")
    action("list", "a line for each run", "stored-runs", *filters)
    action("show", "all of a run", "stored-runs", "run-id")
    action("export", "a table", "stored-runs", *filters, "csv", "parquet")
    action("merge", "runs of several stores in one", "stored-runs", "more-stores")
    action("verify", "what cannot be", "stored-runs", "problem-files")


def run(options: argparse.Namespace) -> int:
    """Do what the action says; return the exit code."""
    work: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "show": _show,
        "export": _export,
        "merge": _merge,
        "verify": _verify,
    }
    return work[options.action](options)


def _opened(path: Path) -> Store:
    """The store in a file that is there."""
    if not path.exists():
        raise InputError(f"there is no store {path}")
    return Store(path)


def _list(options: argparse.Namespace) -> int:
    with _opened(options.stored_runs) as store:
        table = chosen(store, options)
    lines = [["run", "problem", "solver", "seed", "limit", "status", "objective", "s"]]
    for i, status in enumerate(table["status"]):
        seconds, sweeps = table["seconds_limit"][i], table["sweeps"][i]
        limits = [] if math.isnan(seconds) else [f"{seconds:g} s"]
        limits += [] if math.isnan(sweeps) else [f"{sweeps:.0f} sweeps"]
        objective = table["objective"][i]
        lines.append(
            [
                *(table[name][i] for name in ("run_id", "name", "solver")),
                str(table["seed"][i]),
                ", ".join(limits) or "-",
                status,
                "-" if math.isnan(objective) else f"{objective:.8g}",
                number(float(table["seconds"][i]), 3),
            ]
        )
    print(columns(lines))
    counts = Counter(table["status"]).most_common()
    print(f"{len(lines) - 1} runs" + "".join(f", {n} {status}" for status, n in counts))
    return 0


def chosen(store: Store, options: argparse.Namespace) -> dict[str, NDArray[Any]]:
    """Columns of the runs that the filters leave, and what they say of the problems."""
    known = store.problems()
    given = options.problem_name
    where: dict[str, Any] = {}
    if given is not None:
        where["problem"] = [
            digest
            for digest, problem in known.items()
            if problem.name == given or digest.startswith(given)
        ]
    if options.status is not None:
        where["status"] = options.status
    table = store.table(**where)
    problems = [known[digest] for digest in table["problem"]]
    for name in OF_PROBLEMS:
        values = [getattr(problem, name) for problem in problems]
        kind = {"nearest": np.float64, "rows": np.int64, "n": np.int64}
        table[name] = np.array(values, kind.get(name, object))
    label = options.solver_label
    if label is not None:
        fits = [s == label or s.startswith(f"{label}[") for s in table["solver"]]
        table = {name: column[np.array(fits, bool)] for name, column in table.items()}
    return table


def _show(options: argparse.Namespace) -> int:
    with _opened(options.stored_runs) as store:
        ids = store.table("run_id")["run_id"]
        fitting = [name for name in ids if name.startswith(options.run_id)]
        if len(fitting) != 1:
            raise InputError(
                f"{options.stored_runs} has {len(fitting) or 'no'} runs whose ids "
                f"begin with {options.run_id!r}"
            )
        run = store.get(fitting[0])
        assert run is not None
        problem = store.problems()[run.spec.problem]
    print(json.dumps(described(run, problem), indent=2))
    return 0


def described(run: Run, problem: Problem) -> dict[str, Any]:
    """All of a run as JSON holds it; states are a text of digits for each row."""
    record = {"run_id": run.spec.run_id, **vars(run)}
    record |= {"spec": vars(run.spec), "problem": vars(problem)}
    if run.states is not None:
        small = run.states.dtype == np.uint8
        record["states"] = [
            ("" if small else " ").join(map(str, row)) for row in run.states.tolist()
        ]
    for name in ("energies", "claimed", "falls"):
        value = getattr(run, name)
        record[name] = None if value is None else value.tolist()
    finite: dict[str, Any] = _finite(record)
    return finite


def _finite(value: Any) -> Any:
    """A value in which null stands for what is no number of JSON's."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _export(options: argparse.Namespace) -> int:
    if options.csv is None and options.parquet is None:
        raise InputError("export needs --csv FILE or --parquet FILE")
    with _opened(options.stored_runs) as store:
        table = chosen(store, options)
    if options.csv is not None:
        with (
            replacing(options.csv) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(
                ["" if cell != cell else cell for cell in line]
                for line in zip(*table.values(), strict=True)
            )
    if options.parquet is not None:
        import pyarrow as pa
        from pyarrow import parquet

        with replacing(options.parquet) as partial:
            parquet.write_table(pa.table(table), partial)
    return 0


def _merge(options: argparse.Namespace) -> int:
    with Store(options.stored_runs) as store:
        for path in options.more_stores:
            counts: Counter[str] = Counter()
            with _opened(path) as other:
                for problem in other.problems().values():
                    store.add_problem(problem)
                for settings, content in other.facts():
                    store.fact(settings, partial(dict, content))
                taken = _taken(store, other.runs(states=True), counts)
                while together := list(islice(taken, TOGETHER)):
                    store.add(*together)
            print(
                f"{path}: {counts['new']} runs added, {counts['better']} in place of "
                f"failed ones, {counts['known']} known"
            )
    return 0


def _taken(store: Store, runs: Iterable[Run], counts: Counter[str]) -> Iterator[Run]:
    """Those of another store's runs that are new, or ended better than the known."""
    table = store.table("run_id", "status")
    known = dict(zip(table["run_id"], table["status"], strict=True))
    for run in runs:
        status = known.get(run.spec.run_id)
        better = run.status in WELL and status not in WELL
        kind = "new" if status is None else "better" if better else "known"
        counts[kind] += 1
        if kind != "known":
            yield run


def _verify(options: argparse.Namespace) -> int:
    files = [load_problem(path, None, None) for path in options.problem_files or ()]
    given = {problem.digest: problem for problem in files}
    with _opened(options.stored_runs) as store:
        problems = store.problems()
        faults = store.damage()
        for path, digest in zip(options.problem_files or (), given, strict=True):
            if digest not in problems:
                raise InputError(f"no run of {options.stored_runs} is on {path}")
        ids = store.table("run_id")["run_id"]
        checked = 0
        for run_id in ids:
            try:
                run = store.get(run_id)
                assert run is not None
                problem = given.get(run.spec.problem)
                checked += problem is not None and run.states is not None
                found = list(wrong(run_id, run, problems[run.spec.problem], problem))
            except InputError as error:
                found = [str(error)]
            faults += [f"run {run_id}: {fault}" for fault in found]
    for fault in faults:
        print(fault)
    held = f", {checked} of them by their states" if given else ""
    print(f"{len(ids)} runs verified{held}: {len(faults)} faults")
    return int(bool(faults))


def wrong(
    run_id: str, run: Run, known: Problem, problem: RoundingProblem | None
) -> Iterator[str]:
    """What cannot be about a run; `problem` is its problem, if that is at hand."""
    if run.spec.run_id != run_id:
        yield f"what was asked for has the id {run.spec.run_id}"
    states, energies = run.states, run.energies
    if states is not None and states.shape != (known.rows, known.n):
        yield f"states of shape {states.shape}, of a problem {known.rows, known.n}"
        return
    if energies is not None:
        if run.claimed is not None and run.claimed.shape != energies.shape:
            yield f"{len(energies)} energies, of which {len(run.claimed)} are claimed"
        total = float(energies.sum())
        allowed = ROUNDING * float(np.abs(energies).sum())
        if not abs(total - run.objective) <= allowed:
            yield f"the energies sum to {total:.12g}, not to {run.objective:.12g}"
    if problem is not None and states is not None and energies is not None:
        own = problem.local_mse(states)
        if (
            own.shape != energies.shape
            or (np.abs(own - energies) > CLAIM_TOLERANCE * np.abs(own)).any()
        ):
            yield f"its states have the error {own.sum():.12g}"
