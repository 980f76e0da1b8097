"""The AdaRound paper's comparisons of solvers, on one layer of a real network.

    python -m benchmarks paper --layer resnet18.conv1 --weights imagenet --images DIR

Tables 10 and 3 of Nagel et al. 2020: only the layer is rounded, and every method runs
with several seeds; each seed has random numbers and calibration images of its own (a
random half of those given). The local error is measured on all the calibration images,
accuracy on the evaluation images, and both are quoted as mean and standard deviation
over the seeds, beside the paper's accuracy on ImageNet's validation images.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from benchmarks.harness.digests import modules_digest
from benchmarks.harness.packing import hash_of
from benchmarks.harness.readers import split_layer
from benchmarks.harness.runs import States
from benchmarks.harness.store import open_store
from benchmarks.harness.subject import Subject, from_layer
from benchmarks.harness.tables import columns, mean_and_deviation, number
from benchmarks.harness.trials import Score, Trial, Trials, fault_of
from benchmarks.harness.worker import open_workers
from benchmarks.options import add
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from qubo_rounding.problem.problem import OBJECTIVES
from solvers import InputError, parse_solver

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Method:
    """A method of the paper.

    Attributes
    ----------
    name
        The paper's name of the method.
    solver
        The text of the solver that it corresponds to.
    top1
        The paper's accuracy, in percent, of ResNet18 with its first layer at 4 bits.
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


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "layer", required=True)
    add(parser, "weights", default="auto")
    add(parser, "images")
    add(parser, "calibration", default=256)
    add(parser, "evaluation")
    add(parser, "bits", default=4)
    add(parser, "seeds", default=5)
    add(parser, "isolate", "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """Print the paper's tables; return the exit code."""
    solvers = {
        method.solver: parse_solver(method.solver)
        for table in TABLES.values()
        for method in table
    }
    grid = Grid(bits=options.bits)
    chosen = from_layer(
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
    from qubo_rounding.network.digests import network_digest, tensors_digest

    assert chosen.accuracy is not None
    inputs = _calibration_images(chosen)
    origin = {
        "layer": options.layer,
        "weights_hash": chosen.description["weights_hash"],
        "network": network_digest(
            split_layer(options.layer)[0], chosen.accuracy.network
        ),
        "calibration_digest": tensors_digest([inputs]),
        "grid": asdict(grid),
        "code": modules_digest("qubo_rounding.network.pose"),
    }
    judged = {
        **origin,
        "evaluation_digest": chosen.description["evaluation_digest"],
        "code": modules_digest("benchmarks.harness.accuracy"),
    }
    nearest = chosen.local_mse(chosen.problem.nearest())
    if not nearest:
        raise InputError(
            "there is no ratio to nearest: rounding to nearest has no error"
        )
    results: dict[str, list[Trial]] = {text: [] for text in solvers}
    plan = list(itertools.product(range(options.seeds), solvers.items()))
    try:
        with open_store(options) as store, open_workers(options) as workers:
            halves = [
                Trials(
                    partial(_half, chosen, grid, inputs, seed),
                    store,
                    name=f"{options.layer}, half {seed}",
                    about={**origin, "half": seed},
                    workers=workers,
                )
                for seed in range(options.seeds)
            ]
            for seed, (text, solver) in tqdm(plan, desc="runs", disable=None):
                trials = halves[seed]
                score = Score(
                    key=f"on all images {hash_of(judged)}",
                    of=partial(_score, chosen, nearest, trials, text),
                )
                results[text].append(trials.run(solver, seed, score=score))
    finally:
        full = chosen.accuracy.full_precision()["top1"]
        print(f"full precision: top-1 {number(full, 1)}")
        for title, methods in TABLES.items():
            if known := [method for method in methods if results[method.solver]]:
                print(f"\n{title}\n{_table(known, results)}\n{_orders(known, results)}")
    every = [trial for trials in results.values() for trial in trials]
    return int(fault_of(every) is not None)


def _calibration_images(chosen: Subject) -> Tensor:
    import torch

    assert chosen.source is not None
    return torch.cat(chosen.source.held(copies=2))


def _half(chosen: Subject, grid: Grid, inputs: Tensor, seed: int) -> RoundingProblem:
    """The layer's problem on a random half of the calibration images."""
    from qubo_rounding.network.pose import pose
    from qubo_rounding.network.source import BATCH

    assert chosen.accuracy is not None
    order = np.random.default_rng(seed).permutation(len(inputs))
    half = inputs[np.sort(order[: len(inputs) // 2])]
    batches = [half[i : i + BATCH] for i in range(0, len(half), BATCH)]
    network, layer = chosen.accuracy.network, chosen.accuracy.layer
    return pose(network, layer, lambda: batches, grid, progress=False).problem


def _score(
    chosen: Subject, nearest: float, trials: Trials, name: str, states: States
) -> dict[str, float]:
    """The error on all calibration images; the accuracy on the evaluation images."""
    assert chosen.accuracy is not None
    problem = trials.problem
    assert isinstance(problem, RoundingProblem)
    scores = chosen.accuracy.score(problem.weight, problem.decode(states), name)
    kept = {key: scores[key] for key in ("top1", "agreement", "heldout_mse")}
    return {"ratio": chosen.local_mse(states) / nearest, **kept}


def _table(methods: Sequence[Method], results: dict[str, list[Trial]]) -> str:
    """A line for each method, from the trials by the solver's text."""
    lines = [["method", "solver", "local MSE / nearest", "top-1 %", "paper's", "s"]]
    for method in methods:
        runs = results[method.solver]
        lines.append(
            [
                method.name,
                method.solver,
                mean_and_deviation(_scores(runs, "ratio"), 4),
                mean_and_deviation(_scores(runs, "top1"), 2),
                method.top1,
                number(statistics.median(trial.run.seconds for trial in runs), 2),
            ]
        )
    return columns(lines)


def _orders(methods: Sequence[Method], results: dict[str, list[Trial]]) -> str:
    """The methods from best to worst by error, accuracy and the paper's accuracy."""
    named = [method for method in methods if method.top1 != "-"]

    def means(key: str) -> dict[Method, float]:
        """The mean score of each method that has one."""
        found = {m: _scores(results[m.solver], key) for m in named}
        return {m: statistics.fmean(scores) for m, scores in found.items() if scores}

    errors, top1 = means("ratio"), means("top1")
    orders = {
        "local MSE": sorted(errors, key=lambda m: errors[m]),
        "top-1": sorted(top1, key=lambda m: -top1[m]),
        "the paper's top-1": sorted(named, key=lambda m: -float(m.top1.split()[0])),
    }
    return "\n".join(
        f"best to worst by {key}: {', '.join(method.name for method in order)}"
        for key, order in orders.items()
        if order
    )


def _scores(runs: Sequence[Trial], key: str) -> list[float]:
    """A score of the runs that have it.

    Those that failed have none, and none has an accuracy where labels do not fit.
    """
    scores = [run.scores.get(key) for run in runs]
    return [score for score in scores if score is not None]
