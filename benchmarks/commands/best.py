"""Best known states of rounding problems: show them, verify them, find better ones.

    python -m benchmarks best show
    python -m benchmarks best verify --layer resnet18.conv1 --weights embedded
    python -m benchmarks best update --problem FILE.npz --states ROUNDED.npz
    python -m benchmarks best update --problem FILE.npz --store RUNS.db
    python -m benchmarks best update --layer resnet18.conv1 --bits 4,3 --solver lattice

The registry that ships is data/best_known.json; --registry names another. It takes
states alone, computes their energies itself, and keeps the first of equal ones. Rows
are marked as proved only by a run of `exact` in this command.

Exit code 0: done; 1: a row is not what the registry says, a proof contradicts a better
state, or a solver failed; 2: unusable input, reported in one line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.failures import SolverFailure, report, require_support
from benchmarks.harness.race import run_solver
from benchmarks.harness.readers import parse_grid, split_layer
from benchmarks.harness.runs import Run
from benchmarks.harness.store import Store
from benchmarks.harness.tables import columns, number
from benchmarks.library.posing import pose_layer
from benchmarks.library.registry import SHIPPED, Registry, Update, count_rows, proofs
from benchmarks.options import add
from qubo_rounding.network.paths import data_path
from qubo_rounding.problem import RoundingProblem
from solvers import Budget, InputError, label, parse_solvers
from solvers.io.files import read_arrays

# Beginning of the names of arrays that hold states in the files of `run --save`.
STATES = "states_"
# Options of a problem that is posed; a saved one has its own.
POSED = ("bits", "grid", "granularity", "weights", "images")


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options to the parser."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="a line for each problem")
    add(show, "registry")
    verify = actions.add_parser("verify", help="compute the energies anew")
    update = actions.add_parser("update", help="take better states")
    for action in (verify, update):
        add(action, "registry", "problem", "layer", "weights", "images")
        add(action, "calibration", default=256)
        add(action, "widths", flag="--bits", note="4")
        add(action, "grid", "granularity", "saturated")
    add(update, "states", "solver", "seed", "seconds", "threads")
    add(update, "store", help="take the answers of a store's runs on the problem")


def run(options: argparse.Namespace) -> int:
    """Do what the action says; return the exit code."""
    path = options.registry or data_path(SHIPPED)
    if options.action == "show":
        print(table(Registry.load(path)))
        return 0
    registry = Registry.load(path) if path.exists() else Registry()
    if options.action == "verify":
        return verify(registry, options)
    sources = (options.states, options.solver, options.store)
    if sum(source is not None for source in sources) != 1:
        raise InputError(
            "give one of --states FILE, --solver NAME and --store STORE: a claim "
            "without states is not taken"
        )
    if options.store is not None and not options.store.exists():
        raise InputError(f"{options.store} does not exist")
    code = 0
    for name, problem in problems(options):
        code |= update(registry, name, problem, options)
        registry.save(path)
    return code


def table(registry: Registry) -> str:
    """A line for each problem."""
    lines = [
        ["layer", "bits", "grid", "rows", "proved", "error", "solvers", "known by"]
    ]
    for key, entry in registry.entries.items():
        about, rows = entry.about, entry.rows.values()
        rule = about.get("grid", {})
        lines.append(
            [
                str(about.get("layer", "-")),
                str(about.get("bits", "-")),
                " ".join(str(rule[k]) for k in ("scale", "granularity") if k in rule),
                str(len(rows)),
                str(sum(best.proved for best in rows)),
                number(sum(best.energy for best in rows), 8),
                ", ".join(sorted({best.solver.partition("[")[0] for best in rows})),
                key,
            ]
        )
    return columns(lines)


def verify(registry: Registry, options: argparse.Namespace) -> int:
    """Compute all energies of the problems anew; return the exit code."""
    code = 0
    for name, problem in problems(options):
        wrong = registry.mismatches(problem)
        known = registry.find(problem)
        print(f"{name}: {len(known)} of {count_rows(problem)} rows are as stored")
        for line in wrong:
            print(f"{name}, {line}")
        code |= bool(wrong)
    return code


def update(
    registry: Registry,
    name: str,
    problem: RoundingProblem,
    options: argparse.Namespace,
) -> int:
    """Take better states of a problem from a file, from solvers or from a store."""
    code = 0
    for solver, found in taken(registry, problem, options):
        if found is None:
            code = 1
            continue
        print(
            f"{name}: {solver} is better in {len(found.better)} of "
            f"{count_rows(problem)} rows, {len(found.proved)} newly proved"
        )
        for line in found.contradictions:
            print(f"{name}, {line}")
        code |= bool(found.contradictions)
    return code


def taken(
    registry: Registry, problem: RoundingProblem, options: argparse.Namespace
) -> Iterator[tuple[str, Update | None]]:
    """Each solver's label and what was taken of its answer; None if it has failed.

    Of a store, these are the best run and others of which something was taken.
    """
    if options.store is not None:
        for at, run in enumerate(stored_runs(options.store, problem)):
            found = registry.take_run(problem, run)
            if at == 0 or found.better or found.proved or found.contradictions:
                yield run.spec.solver, found
        return
    for solver, states, proved in answers(problem, options):
        if states is None:
            yield solver, None
        else:
            found = registry.take(problem, states, solver=solver, proved=proved)
            yield solver, found


def stored_runs(path: Path, problem: RoundingProblem) -> list[Run]:
    """The runs on a problem that have states in its set, the best first.

    Raises
    ------
    InputError
        There are none.
    """
    with Store(path) as store:
        runs = [
            run
            for run in store.runs(states=True, falls=False, problem=problem.digest)
            # Steps of a solver out of the set are of another type.
            if run.states is not None and run.states.dtype == np.uint8
        ]
    if not runs:
        raise InputError(f"{path} has no answer to this problem")
    return sorted(runs, key=lambda run: run.objective)


Answer = tuple[str, Any, list[bool] | None]


def answers(problem: RoundingProblem, options: argparse.Namespace) -> Iterator[Answer]:
    """Label, states and proofs of each solver; no states of one that has failed."""
    if options.states is not None:
        for name, states in saved_states(options.states, problem):
            yield name, states, None
        return
    solvers = parse_solvers(options.solver)
    for solver in solvers:
        if solver.out_of_set:
            raise InputError(f"solver {solver.name} is out of the set of the problem")
        require_support(solver, problem.to_qubos()[0])
    budget = Budget(seconds=options.seconds, threads=options.threads)
    for solver in solvers:
        try:
            states, record = run_solver(solver, problem, options.seed, budget)
        except SolverFailure as failure:
            report(failure)
            yield label(solver), None, None
        else:
            yield label(solver), states, proofs(solver, record["info"])


def saved_states(path: Path, problem: RoundingProblem) -> Iterator[tuple[str, Any]]:
    """Solvers and states from a file that ``run --save`` has written.

    Raises
    ------
    InputError
        The file holds no states, or states of another problem.
    """
    arrays = read_arrays(path)
    base = arrays.get("base")
    if base is None or not np.array_equal(base, problem.base):
        raise InputError(f"{path} holds no states of this problem: its base is another")
    # Of a solver with a base of its own, states are those of another scale.
    names = [
        name.removeprefix(STATES)
        for name in arrays
        if name.startswith(STATES) and f"base_{name.removeprefix(STATES)}" not in arrays
    ]
    if not names:
        raise InputError(f"{path} holds no {STATES}SOLVER of this scale")
    for name in names:
        yield name, arrays[STATES + name]


def problems(options: argparse.Namespace) -> Iterator[tuple[str, RoundingProblem]]:
    """The saved problem, or the layer's problem with each number of bits."""
    if (options.layer is None) == (options.problem is None):
        raise InputError("give one of --layer MODEL.LAYER and --problem FILE")
    if options.problem is not None:
        for name in POSED:
            if getattr(options, name) is not None:
                raise InputError(f"--{name} does not go with --problem, which has it")
        problem = RoundingProblem.load(options.problem, options.saturated)
        yield options.problem.stem, problem
        return
    from qubo_rounding.network.models import architecture
    from qubo_rounding.network.prepare import require_likely_layer
    from qubo_rounding.network.source import load_source

    model, layer = split_layer(options.layer)
    require_likely_layer(architecture(model), layer)
    grids = [
        parse_grid(argparse.Namespace(**{**vars(options), "bits": bits}))
        for bits in options.bits or [4]
    ]
    source = load_source(
        model,
        options.weights or "auto",
        options.images,
        options.calibration,
        evaluation=0,
        say=lambda line: print(line, file=sys.stderr),
    )
    for problem in pose_layer(source, source.held(), layer, grids):
        yield f"{options.layer}, {problem.meta['bits']} bits", problem
