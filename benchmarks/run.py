"""Round a layer, or a whole network, with one or more solvers and score the answers.

    python -m benchmarks.run --layer resnet18.conv1 --solver cem,sa
    python -m benchmarks.run --layer resnet18 --bits 3

Exit code 0: done; 1: a solver failed, or its answer does not bear out its claim; 2:
unusable input, reported in one line; 130: interrupted (finished results are kept).
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks import networks
from benchmarks.harness import report, subject
from benchmarks.harness.command import execute
from benchmarks.harness.environment import environment
from benchmarks.harness.failures import FAULTS, SolverFailure
from benchmarks.harness.failures import report as report_failure
from benchmarks.harness.race import about, run_in_turn
from benchmarks.harness.readers import names, parse_grid
from benchmarks.harness.runs import States
from benchmarks.harness.store import Store, open_store
from benchmarks.harness.trials import Trial, Trials
from benchmarks.harness.whole import is_network
from benchmarks.harness.worker import Workers, open_workers
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.problem import OBJECTIVES
from solvers import Budget, InputError, Solver, available, label, parse_solvers
from solvers.registry import parse_solver


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    what = parser.add_argument_group("problem")
    add(
        what,
        "layer",
        help="the layer, such as resnet18.conv1, or a whole network, such as resnet18",
        metavar="MODEL[.LAYER]",
    )
    add(what, "problem", help="a saved problem instead (.npz)", metavar="FILE")
    add(what, "weights", "images", "calibration-images")
    add(what, "calibration", note="256")
    add(what, "evaluation", "objective")
    grid = parser.add_argument_group("grid")
    add(grid, "bits", "grid", "granularity", "saturated")
    how = parser.add_argument_group("solving")
    add(how, "solver", note="auto; with less effort for whole networks")
    add(how, "seed", "seconds", "threads")
    whole = parser.add_argument_group("whole networks")
    add(whole, "layers", read=names)
    add(whole, "exclude", "bits-of", "data", "fit-outputs", "activations", "without")
    add(whole, "memory", "keep", "export", "onnx")
    out = parser.add_argument_group("output")
    add(out, "json", "save", "save-problem", "list")
    add(out, "isolate", "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """List names, or round the layer or network; return the exit code."""
    if options.list:
        return _list(options)
    if options.calibration_images is not None and options.images is None:
        raise InputError("--calibration-images needs --images, the ones to score on")
    if is_network(options.layer):
        from qubo_rounding.network.whole.quantize import SOLVER

        options.solver = options.solver or SOLVER
        if options.store is not None or options.isolate:
            raise InputError(
                "--store and --isolate are for a single layer; a whole network's "
                "layers are kept with --keep DIR"
            )
        return networks.run(options, _solvers(options.solver))
    for name in networks.OF_NETWORKS:
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} goes with a whole network, --layer MODEL")
    options.solver = options.solver or "auto"
    return _run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of ``benchmarks.run``; return the exit code."""
    command = sys.modules[__name__]
    return execute(command, "python -m benchmarks.run", arguments)


def _run(options: argparse.Namespace) -> int:
    """Round the layer with every solver, print and write the record."""
    solvers = _solvers(options.solver)
    chosen = _subject(options)
    if options.save_problem:
        chosen.problem.save(options.save_problem)
    record: dict[str, Any] = {
        "spec": report.spec(options),
        "environment": environment(options.threads),
        "problem": chosen.description,
        "full_precision": chosen.accuracy and chosen.accuracy.full_precision(),
        "results": [],
    }
    roundings: dict[str, tuple[RoundingProblem, States]] = {}
    stopped: BaseException | None = None
    with open_store(options) as store, open_workers(options) as workers:
        trials = _trials(options, chosen, store, workers)
        for solver in solvers:
            trials.require_support(solver)
        wanting = [label(solver) for solver in solvers if solver.uses_data]
        if wanting and chosen.in_turn:
            print(
                f"in turn, {', '.join(wanting)} sees the quadratic form alone",
                file=sys.stderr,
            )
        known = [about(solver, options.seed) for solver in solvers]
        try:
            for solver, name in zip(solvers, known, strict=True):
                problem, states, result = _answer(
                    solver, trials, chosen, options, name["label"], record["results"]
                )
                record["results"].append(name | result)
                if states is not None:
                    roundings[_unused(name["solver"], roundings)] = problem, states
        except (KeyboardInterrupt, MemoryError) as error:
            if not record["results"]:
                raise
            stopped = error
    print(report.table(record))
    try:
        if options.json:
            record["interrupted"] = stopped is not None
            report.write_json(options.json, record)
    finally:
        if options.save:
            report.save_roundings(options.save, chosen, roundings)
    if stopped is not None:
        raise stopped
    return int(any(result["status"] in FAULTS for result in record["results"]))


def _trials(
    options: argparse.Namespace,
    chosen: subject.Subject,
    store: Store,
    workers: Workers | None,
) -> Trials:
    """Runs on the layer or the saved problem."""
    # The layer's data are those of one scale.
    given = chosen.has_data and not chosen.in_turn
    return Trials(
        lambda: chosen.problem,
        store,
        name=options.layer or options.problem.stem,
        about=chosen.origin,
        threads=options.threads,
        data=functools.cache(chosen.layer_data) if given else None,
        workers=workers,
    )


def _answer(
    solver: Solver,
    trials: Trials,
    chosen: subject.Subject,
    options: argparse.Namespace,
    name: str,
    before: Sequence[dict[str, Any]],
) -> tuple[RoundingProblem, States | None, dict[str, Any]]:
    """The problem a solver has answered, its states and its part of the record.

    `before` are the results so far, the first of which is nearest's.
    """
    problem = chosen.problem
    if before and chosen.grid is not None and chosen.in_turn:
        budget = Budget(seconds=options.seconds, threads=options.threads)
        try:
            problem, states, result = run_in_turn(
                solver, problem, chosen.grid, options.seed, budget
            )
        except SolverFailure as failure:
            report_failure(failure)
            return problem, None, {"status": "error", "error": str(failure)}
        result["scale"] = subject.describe_scale(problem)
        result |= chosen.scores(problem, states, name)
    else:
        trial = trials.run(
            solver,
            options.seed,
            seconds=options.seconds,
            score=chosen.score(name),
        )
        run = trial.run
        if run.states is None and not before:
            raise InputError("without nearest's answer there is nothing to compare")
        if run.states is None:
            return problem, None, {"status": run.status, "error": run.message}
        states = run.states
        result = {**_judged(trial, problem.nearest()), **trial.scores}
    result["local_mse"] = replace(chosen, problem=problem).local_mse(states)
    nearest = (before or [result])[0]["local_mse"]
    result["ratio_to_nearest"] = (
        result["local_mse"] / nearest if nearest else float(nearest == 0)
    )
    return problem, states, result


def _judged(trial: Trial, nearest: States) -> dict[str, Any]:
    """What a record says about a run that has states."""
    run = trial.run
    assert run.states is not None
    return {
        "objective": run.objective,
        "seconds": run.seconds,
        "status": trial.status,
        "timing": run.timing,
        "flipped": int((run.states != nearest).sum()),
        "info": list(run.info),
    }


def _solvers(text: str) -> list[Solver]:
    """`nearest`, with which all solvers are compared, then the solvers asked for."""
    nearest = parse_solver("nearest")
    return [nearest, *(s for s in parse_solvers(text) if s != nearest)]


def _subject(options: argparse.Namespace) -> subject.Subject:
    """The layer or the saved problem that the options name."""
    if (options.layer is None) == (options.problem is None):
        raise InputError("give one of --layer MODEL.LAYER and --problem FILE")
    if options.problem is not None:
        for name in (
            "bits",
            "grid",
            "granularity",
            "images",
            "weights",
            "calibration",
            "evaluation",
            "objective",
        ):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} does not go with --problem, which has it")
        return subject.from_file(options.problem, options.saturated)
    grid = parse_grid(options, in_turn=True)
    if grid.turns and (options.store is not None or options.isolate):
        raise InputError(
            "--store and --isolate are for runs at one scale; leave in-turn out of "
            "--grid"
        )
    if grid.turns and options.save_problem:
        raise InputError(
            "--save-problem writes a problem at one scale; leave in-turn out of --grid"
        )
    return subject.from_layer(
        options.layer,
        grid,
        weights=options.weights or "auto",
        images=options.images,
        calibration_images=options.calibration_images,
        calibration=256 if options.calibration is None else options.calibration,
        evaluation=options.evaluation,
        objective=options.objective or OBJECTIVES[0],
        seed=options.seed,
        say=lambda line: print(line, file=sys.stderr),
    )


def _unused(name: str, taken: dict[str, Any]) -> str:
    """`name`, with a number if it is taken: a solver may be run several times."""
    count = sum(key == name or key.startswith(f"{name}_") for key in taken)
    return f"{name}_{count + 1}" if count else name


def _list(options: argparse.Namespace) -> int:
    """Print the names that ``--list`` asks for."""
    if options.list == "solvers":
        names = available()
    elif options.list == "models":
        from qubo_rounding.network.models import list_models

        names = list_models()
    else:
        from qubo_rounding.network.models import architecture
        from qubo_rounding.network.prepare import likely_layers

        if options.layer is None:
            raise InputError("--list layers needs --layer MODEL")
        package, colon, rest = options.layer.rpartition(":")
        model = package + colon + rest.partition(".")[0]
        names = [f"{model}.{name}" for name in likely_layers(architecture(model))]
    print("\n".join(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
