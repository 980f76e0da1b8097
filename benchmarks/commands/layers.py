"""Every weight layer of a network, rounded by itself.

    python -m benchmarks layers --model resnet18 --solver auto,babai

Each layer's problem comes from its inputs in the original network, whatever the other
layers are rounded to. Errors are ratios to rounding to nearest; a solver's seconds are
those from the problem to the answer, its preparations included. What comes before is
apart: ``moments`` are the forward passes over the calibration images, ``grid`` is the
search for the scale. Kernels are compiled before the clock.

Exit code 0: done; 1: a solver's answer did not bear out its claim; 2: input that cannot
be used, said in one line; 130: interrupted (finished layers are shown, and kept with
--log).
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from benchmarks.harness import log, report
from benchmarks.harness.command import exit_code
from benchmarks.harness.race import run_solver
from benchmarks.run import parse_grid
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import Budget, InputError, Solver, label, parse_solvers

if TYPE_CHECKING:
    from torch import Tensor

    from qubo_rounding.network.source import Source

Run = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer's finished runs.

    Attributes
    ----------
    name
        As in ``network.named_modules()``.
    facts
        ``rows``, ``n``, ``groups``, ``fixed`` (weights without a choice), ``nearest``
        (local MSE), and the seconds of ``moments`` and ``grid``.
    runs
        One for each solver, with its ``ratio`` to nearest.
    """

    name: str
    facts: Run
    runs: list[Run]


@dataclass(frozen=True, eq=False)
class Work:
    """What the layers of a network have in common.

    Attributes
    ----------
    source
        The network.
    batches
        Its calibration images, decoded.
    """

    source: Source
    batches: list[Tensor]
    grid: Grid
    solvers: list[Solver]
    budget: Budget
    seed: int
    runs: log.RunLog
    folder: Path | None

    def layer(self, name: str) -> Layer:
        """Make a layer's runs, or take them from the log."""

        # Once, and not at all where the log has everything.
        @functools.cache
        def posed() -> tuple[RoundingProblem, Run]:
            return self._pose(name)

        facts = self.runs.run(name, lambda: posed()[1])
        if self.folder is not None:
            path = self.folder / f"{self.source.model}.{name}.npz"

            def save() -> Run:
                posed()[0].save(path)
                return {}

            self.runs.run(f"{name} saved as {path}", save)
        found = [
            self.runs.run(
                f"{name} {label(solver)}",
                functools.partial(self._solve, name, solver, posed),
            )
            for solver in self.solvers
        ]
        return Layer(name, facts, found)

    def _pose(self, name: str) -> tuple[RoundingProblem, Run]:
        from qubo_rounding.network.layers import find_layer, groups
        from qubo_rounding.network.pose import pose

        posed = pose(
            *(self.source.network, name, lambda: self.batches, self.grid),
            meta=self.source.meta(name),
        )
        problem = posed.problem
        return problem, {
            "rows": problem.rows,
            "n": problem.n,
            "groups": groups(find_layer(self.source.network, name)),
            "fixed": 0 if problem.fixed is None else int((problem.fixed >= 0).sum()),
            "nearest": float(problem.local_mse(problem.nearest()).sum()),
            "moments": posed.moments_seconds,
            "grid": posed.grid_seconds,
        }

    def _solve(
        self,
        name: str,
        solver: Solver,
        posed: Callable[[], tuple[RoundingProblem, Run]],
    ) -> Run:
        problem, facts = posed()
        data = None
        if solver.uses_data:
            from qubo_rounding.network.layer_data import layer_data

            data = layer_data(self.source.network, name, self.batches, problem)
        _, run = run_solver(solver, problem, self.seed, self.budget, data)
        nearest = facts["nearest"]
        return run | {"ratio": run["objective"] / nearest if nearest else None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks layers",
        description="Every weight layer of a network, rounded by itself.",
    )
    parser.add_argument("--model", required=True, help="such as resnet18")
    parser.add_argument(
        "--layers", metavar="LAYER,…", help="such as conv1,layer1.0.conv1 (all)"
    )
    parser.add_argument("--weights", default="auto", help="as of benchmarks.run")
    parser.add_argument("--images", type=Path, metavar="DIR", help="default: embedded")
    parser.add_argument(
        "--calibration", type=int, default=256, metavar="N", help="images (256)"
    )
    for name in ("bits", "grid", "granularity", "saturated"):
        parser.add_argument(
            f"--{name}",
            type=int if name == "bits" else str,
            choices=("fixed", "free") if name == "saturated" else None,
            help="as of benchmarks.run",
        )
    parser.add_argument("--solver", default="auto", metavar="NAME[…],…")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="limit of a solver in a layer"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--save-problems", type=Path, metavar="DIR", help="as DIR/MODEL.LAYER.npz"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help=log.HELP)
    options = parser.parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.seed < 0:
        raise InputError(f"--seed must not be negative: {options.seed}")
    solvers = parse_solvers(options.solver)
    budget = Budget(seconds=options.seconds, threads=options.threads)
    grid = parse_grid(options)
    # Misspelt layers should cost no download.
    names = choose(options.model, options.layers)
    if options.save_problems is not None:
        _make_folder(options.save_problems)
    work = _prepare(options, grid, solvers, budget)
    done: list[Layer] = []
    try:
        for name in tqdm(names, desc="layers", disable=None):
            done.append(work.layer(name))
    finally:
        if done:
            print(summary(done))
    return int(any(run["status"] == "invalid" for one in done for run in one.runs))


def _prepare(
    options: argparse.Namespace, grid: Grid, solvers: list[Solver], budget: Budget
) -> Work:
    from qubo_rounding.network.source import load_source

    source = load_source(
        options.model,
        options.weights,
        options.images,
        options.calibration,
        evaluation=1,
        say=lambda line: print(line, file=sys.stderr),
    )
    selection = ("log", "layers", "solver", "save_problems")
    settings = vars(options) | dict.fromkeys(selection) | {"command": "layers"}
    settings["weights_hash"] = source.weights_hash
    settings["calibration_digest"] = source.calibration.digest
    about = {"environment": report.environment(options.threads)}
    return Work(
        source=source,
        # Decoding takes a fifth of a layer's forward pass: it is done once for all.
        batches=list(source.batches()),
        grid=grid,
        solvers=solvers,
        budget=budget,
        seed=options.seed,
        runs=log.RunLog(options.log, settings, about),
        folder=options.save_problems,
    )


def choose(model: str, text: str | None) -> list[str]:
    """The layers of a comma-separated list; None: all that can be rounded.

    Raises
    ------
    InputError
        An unknown model or layer, or a model without such layers.
    """
    from qubo_rounding.network.layers import find_layer, supported_layers
    from qubo_rounding.network.models import architecture

    network = architecture(model)
    if text is None:
        names = supported_layers(network)
        if not names:
            raise InputError(f"{model} has no layer that can be rounded")
        return names
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        find_layer(network, name)
    return names


def summary(layers: Sequence[Layer]) -> str:
    """A line for each layer, and what they come to together."""
    lines = [["layer", "rows", "n", "groups"]]
    lines[0] += [head for run in layers[0].runs for head in (run["label"], "s")]
    lines[0] += ["moments s", "grid s"]
    for layer in layers:
        cells = [layer.name, *(str(layer.facts[key]) for key in lines[0][1:4])]
        for run in layer.runs:
            ratio = "-" if run["ratio"] is None else f"{run['ratio']:.5f}"
            remark = "" if run["status"] == "done" else f" {run['status']}"
            cells += [ratio, f"{run['seconds']:.3f}{remark}"]
        cells += [f"{layer.facts[key]:.2f}" for key in ("moments", "grid")]
        lines.append(cells)
    count = sum(one.facts["rows"] * one.facts["n"] for one in layers)
    fixed = sum(one.facts["fixed"] for one in layers)
    totals = [["layers", str(len(layers))], ["binary variables", f"{count:,}"]]
    totals += [["of them fixed", f"{fixed:,}"]] if fixed else []
    seconds = {
        "s of moments": [one.facts["moments"] for one in layers],
        "s of grids": [one.facts["grid"] for one in layers],
    }
    for i, run in enumerate(layers[0].runs):
        seconds[f"s of {run['label']}"] = [one.runs[i]["seconds"] for one in layers]
    seconds["s in all"] = [sum(parts) for parts in zip(*seconds.values(), strict=True)]
    totals += [[name, f"{sum(each):.2f}"] for name, each in seconds.items()]
    return f"{report.columns(lines)}\n\n{report.columns(totals)}"


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
