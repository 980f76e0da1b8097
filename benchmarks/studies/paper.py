"""The AdaRound paper's comparisons of solvers, on one layer of a real network.

    python -m benchmarks paper --layer resnet18.conv1 --weights imagenet --images DIR

Tables 10 and 3 of Nagel et al. 2020: only the layer is rounded, and every method runs
for several seeds, each with calibration images of its own (a random half of those
given) besides its random numbers. The local error is measured on all the calibration
images, accuracy on the evaluation images, and both are quoted as mean and standard
deviation over the seeds, beside the paper's accuracy on ImageNet's validation images.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness import log, report, subject
from benchmarks.harness.command import exit_code
from benchmarks.harness.race import run_solver
from qubo_rounding.problem.grid import Grid
from qubo_rounding.problem.problem import OBJECTIVES
from solvers import Budget, InputError, Solver, parse_solver

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Method:
    """A method of the paper.

    Attributes
    ----------
    name
        As the paper calls it.
    solver
        What it is here.
    top1
        The paper's, in percent, for ResNet18 with its first layer at 4 bits.
    """

    name: str
    solver: str
    top1: str


TABLES = {
    "Table 10, general solvers": (
        Method("nearest", "nearest", "52.29"),
        Method("cross-entropy method", "cem", "68.62 ± 0.17"),
        Method("qbsolv, random start", "qbsolv[initial=random]", "41.98 ± 3.04"),
        Method("(qbsolv from nearest)", "qbsolv", "-"),
    ),
    "Table 3, relaxations": (
        Method("sigmoid + T annealing", "hopfield[form=sigmoid]", "69.31 ± 0.21"),
        Method("sigmoid + f_reg", "hopfield[form=sigmoid+reg]", "69.58"),
        Method(
            "rectified sigmoid + f_reg",
            "hopfield[form=rectified+reg]",
            "69.58 ± 0.03",
        ),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks paper",
        description="The AdaRound paper's comparisons of solvers, on one layer.",
    )
    parser.add_argument("--layer", default="resnet18.conv1", metavar="MODEL.LAYER")
    parser.add_argument("--weights", default="auto", help="as of benchmarks.run")
    parser.add_argument("--images", type=Path, metavar="DIR", help="default: embedded")
    parser.add_argument("--calibration", type=int, default=256, metavar="N")
    parser.add_argument("--evaluation", type=int, metavar="N", help="all the others")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--log", type=Path, metavar="FILE", help=log.HELP)
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {options.seeds}")
    solvers = {
        method.solver: parse_solver(method.solver)
        for table in TABLES.values()
        for method in table
    }
    grid = Grid(bits=options.bits)
    chosen = subject.from_layer(
        options.layer,
        grid,
        weights=options.weights,
        images=options.images,
        calibration=options.calibration,
        evaluation=options.evaluation,
        objective=OBJECTIVES[0],
        seed=0,
        say=print,
    )
    runs = log.RunLog(
        options.log,
        vars(options)
        | {"log": None, "seeds": None, "command": "paper"}
        | {k: chosen.description[k] for k in ("weights_hash", "calibration_digest")},
        {"environment": report.environment(1), "problem": chosen.description},
    )
    found: dict[str, list[dict[str, Any]]] = {text: [] for text in solvers}
    inputs = _calibration_images(chosen)
    plan = [(seed, text) for seed in range(options.seeds) for text in solvers]
    for seed, text in tqdm(plan, desc="runs", disable=None):
        make = partial(_measure, chosen, grid, inputs, solvers[text], seed)
        found[text].append(runs.run(f"{text} seed {seed}", make))
    assert chosen.accuracy is not None
    print(f"full precision: top-1 {chosen.accuracy.full_precision()['top1']:.1f}")
    for title, methods in TABLES.items():
        print(f"\n{title}\n{_table(methods, found)}\n{_orders(methods, found)}")
    return 0


def _calibration_images(chosen: subject.Subject) -> Tensor:
    import torch

    assert chosen.source is not None
    return torch.cat(list(chosen.source.batches()))


def _measure(
    chosen: subject.Subject, grid: Grid, inputs: Tensor, solver: Solver, seed: int
) -> dict[str, Any]:
    from qubo_rounding.network.pose import pose
    from qubo_rounding.network.source import BATCH

    accuracy = chosen.accuracy
    assert accuracy is not None
    half = np.random.default_rng(seed).permutation(len(inputs))[: len(inputs) // 2]
    chosen_images = inputs[np.sort(half)]
    batches = [
        chosen_images[i : i + BATCH] for i in range(0, len(chosen_images), BATCH)
    ]
    problem = pose(
        *(accuracy.network, accuracy.layer, lambda: batches, grid), progress=False
    ).problem
    states, run = run_solver(solver, problem, seed, Budget())
    nearest = chosen.local_mse(chosen.problem.nearest())
    run["ratio"] = chosen.local_mse(states) / nearest
    scores = accuracy.score(problem.weight, problem.decode(states), run["label"])
    return run | {name: scores[name] for name in ("top1", "agreement", "heldout_mse")}


def _table(methods: Sequence[Method], found: dict[str, list[dict[str, Any]]]) -> str:
    lines = [["method", "solver", "local MSE / nearest", "top-1 %", "paper's", "s"]]
    for method in methods:
        runs = found[method.solver]
        lines.append(
            [
                method.name,
                method.solver,
                _spread([run["ratio"] for run in runs], 4),
                _spread([run["top1"] for run in runs], 2),
                method.top1,
                f"{statistics.median(run['seconds'] for run in runs):.2f}",
            ]
        )
    return report.columns(lines)


def _orders(methods: Sequence[Method], found: dict[str, list[dict[str, Any]]]) -> str:
    """The methods from best to worst, by each of the three figures."""
    named = [method for method in methods if method.top1 != "-"]

    def mean(method: Method, key: str) -> float:
        return statistics.fmean(run[key] for run in found[method.solver])

    orders = {
        "local MSE": sorted(named, key=lambda m: mean(m, "ratio")),
        "top-1": sorted(named, key=lambda m: -mean(m, "top1")),
        "the paper's top-1": sorted(named, key=lambda m: -float(m.top1.split()[0])),
    }
    return "\n".join(
        f"best to worst by {key}: {', '.join(method.name for method in order)}"
        for key, order in orders.items()
    )


def _spread(values: Sequence[float], digits: int) -> str:
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    deviation = statistics.stdev(values)
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
