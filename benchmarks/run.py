"""Round one layer with one or more solvers and score the answers.

    python -m benchmarks.run --layer resnet18.conv1 --solver cem,sa

Exit code 0: done; 1: a solver's answer did not bear out its claim; 2: input that cannot
be used, said in one line; 130: interrupted (what was finished is kept).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import report, subject
from benchmarks.harness.command import exit_code
from benchmarks.harness.race import run_solver
from qubo_rounding.problem.grid import Grid
from qubo_rounding.problem.problem import OBJECTIVES
from solvers import Budget, InputError, Solver, available, label, parse_solvers
from solvers.registry import parse_solver


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"

    def work() -> int:
        options = _parse(arguments)
        return _list(options) if options.list else _run(options)

    return exit_code(work)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m benchmarks.run",
        description="Round one layer with one or more solvers and score the answers.",
    )
    what = parser.add_argument_group("what is rounded")
    what.add_argument("--layer", metavar="MODEL.LAYER", help="such as resnet18.conv1")
    what.add_argument(
        "--problem", type=Path, metavar="FILE", help="a saved problem instead (.npz)"
    )
    what.add_argument(
        "--weights",
        metavar="auto|imagenet|embedded|PATH",
        help="auto: torch hub's cache, a download, else the embedded network",
    )
    what.add_argument(
        "--images", type=Path, metavar="DIR", help="class folders; default: embedded"
    )
    what.add_argument("--calibration", type=int, metavar="N", help="images (256)")
    what.add_argument(
        "--evaluation", type=int, metavar="N", help="images (all the others)"
    )
    what.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help="the layer's output (default) or the task loss",
    )
    grid = parser.add_argument_group("grid")
    grid.add_argument("--bits", type=int, help="2 to 8 (4)")
    grid.add_argument(
        "--grid",
        metavar="RULE[,RANGE]",
        help="RULE: weight-mse (default), output-mse, minmax, percentile or "
        "percentile:99.9; RANGE: symmetric (default), restricted, asymmetric",
    )
    grid.add_argument(
        "--granularity", metavar="tensor|channel|group:SIZE", help="default: tensor"
    )
    grid.add_argument("--saturated", choices=("fixed", "free"), help="default: fixed")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--solver",
        default="auto",
        metavar="NAME[,NAME…]",
        help="default: auto; with options: cem[samples=500],mine.py:MySolver[option=2]",
    )
    how.add_argument("--seed", type=int, default=0)
    how.add_argument("--seconds", type=float, help="limit of each solver")
    how.add_argument(
        "--threads", type=int, default=1, help="share the rows of a batch (1)"
    )
    out = parser.add_argument_group("output")
    out.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    out.add_argument("--save", type=Path, metavar="FILE.npz", help="write the weights")
    out.add_argument(
        "--save-problem", type=Path, metavar="FILE.npz", help="write the problem"
    )
    out.add_argument("--list", choices=("layers", "solvers", "models"))
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    if options.seed < 0:
        raise InputError(f"--seed must not be negative: {options.seed}")
    solvers = _solvers(options.solver)
    budget = Budget(seconds=options.seconds, threads=options.threads)
    _check_outputs(options)
    chosen = _subject(options)
    if options.save_problem:
        chosen.problem.save(options.save_problem)
    record: dict[str, Any] = {
        "spec": {
            k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()
        },
        "environment": report.environment(options.threads),
        "problem": chosen.description,
        "full_precision": chosen.accuracy and chosen.accuracy.full_precision(),
        "results": [],
    }
    states: dict[str, NDArray[np.integer[Any]]] = {}
    interrupted = False
    try:
        data = None
        if any(solver.uses_data for solver in solvers):
            data = chosen.layer_data()
        for solver in solvers:
            found, result = run_solver(
                solver, chosen.problem, options.seed, budget, data
            )
            result["local_mse"] = chosen.local_mse(found)
            nearest = (record["results"] or [result])[0]["local_mse"]
            result["ratio_to_nearest"] = (
                result["local_mse"] / nearest if nearest else float(nearest == 0)
            )
            if chosen.accuracy is not None:
                result |= chosen.accuracy.score(
                    chosen.problem.weight, chosen.problem.decode(found), label(solver)
                )
            record["results"].append(result)
            states[_unused(solver.name, states)] = found
    except KeyboardInterrupt:
        interrupted = True
    if not record["results"]:
        raise KeyboardInterrupt
    print(report.table(record))
    try:
        if options.json:
            report.write_json(options.json, record | {"interrupted": interrupted})
    finally:
        if options.save:
            report.save_roundings(options.save, chosen, states)
    if interrupted:
        raise KeyboardInterrupt
    return int(any(result["status"] == "invalid" for result in record["results"]))


def _solvers(text: str) -> list[Solver]:
    """The solvers asked for, after nearest, with which all are compared."""
    nearest = parse_solver("nearest")
    return [nearest, *(s for s in parse_solvers(text) if s != nearest)]


def _subject(options: argparse.Namespace) -> subject.Subject:
    if (options.layer is None) == (options.problem is None):
        raise InputError("give one of --layer MODEL.LAYER and --problem FILE")
    if options.problem is not None:
        for name in (
            *("bits", "grid", "granularity", "images", "weights"),
            *("calibration", "evaluation", "objective"),
        ):
            if getattr(options, name) is not None:
                raise InputError(f"--{name} does not go with --problem, which has it")
        return subject.from_file(options.problem, options.saturated)
    return subject.from_layer(
        options.layer,
        parse_grid(options),
        weights=options.weights or "auto",
        images=options.images,
        calibration=256 if options.calibration is None else options.calibration,
        evaluation=options.evaluation,
        objective=options.objective or OBJECTIVES[0],
        seed=options.seed,
        say=lambda line: print(line, file=sys.stderr),
    )


def parse_grid(options: argparse.Namespace) -> Grid:
    """The grid of ``--bits --grid --granularity --saturated``."""
    rule, _, span = (options.grid or "weight-mse").partition(",")
    rule, _, percentile = rule.partition(":")
    granularity, _, size = (options.granularity or "tensor").partition(":")
    if percentile and rule != "percentile":
        raise InputError(f"--grid {rule} takes no :{percentile}")
    if (granularity == "group") != bool(size):
        raise InputError("--granularity is tensor, channel or group:SIZE, as group:32")
    if span not in ("", "symmetric", "restricted", "asymmetric"):
        raise InputError(
            f"--grid: range must be symmetric, restricted or asymmetric, not {span!r}"
        )
    try:
        more: dict[str, Any] = {"percentile": float(percentile)} if percentile else {}
        if size:
            more["group_size"] = int(size)
    except ValueError as error:
        raise InputError(f"--grid and --granularity: {error}") from error
    return Grid(
        bits=4 if options.bits is None else options.bits,
        symmetric=span != "asymmetric",
        restricted=span == "restricted",
        granularity=granularity,  # type: ignore[arg-type]  # checked by Grid
        scale=rule,  # type: ignore[arg-type]
        saturated=options.saturated or "fixed",
        **more,
    )


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse outputs that could not be written, before the work rather than after."""
    for path in (options.json, options.save, options.save_problem):
        if path is None:
            continue
        if not path.resolve().parent.is_dir():
            raise InputError(f"cannot write {path}: its folder does not exist")
        if path.is_dir() or not os.access(path.resolve().parent, os.W_OK):
            raise InputError(f"cannot write {path}")
    for path in (options.save, options.save_problem):
        if path is not None and path.suffix not in (".npz", ".safetensors"):
            raise InputError(f"cannot write {path}: name it .npz or .safetensors")


def _unused(name: str, taken: dict[str, Any]) -> str:
    """`name`, or with a number where a solver is run twice."""
    count = sum(key == name or key.startswith(f"{name}_") for key in taken)
    return f"{name}_{count + 1}" if count else name


def _list(options: argparse.Namespace) -> int:
    if options.list == "solvers":
        names = available()
    elif options.list == "models":
        from qubo_rounding.network.models import list_models

        names = list_models()
    else:
        from qubo_rounding.network.layers import supported_layers
        from qubo_rounding.network.models import architecture

        if options.layer is None:
            raise InputError("--list layers needs --layer MODEL")
        package, colon, rest = options.layer.rpartition(":")
        model = package + colon + rest.partition(".")[0]
        names = [f"{model}.{name}" for name in supported_layers(architecture(model))]
    print("\n".join(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
