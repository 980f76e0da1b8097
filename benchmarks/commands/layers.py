"""Every weight layer of a network, rounded by itself.

    python -m benchmarks layers --model resnet18 --solver auto,babai

Each layer's problem comes from its inputs in the original network, whatever the other
layers are rounded to. Errors are ratios to rounding to nearest; a solver's seconds are
those from the problem to the answer, its preparations included. The work before that
has columns of its own: ``moments`` are the forward passes over the calibration images,
``grid`` is the search for the scale. Kernels are compiled before the clock starts.

Exit code 0: done; 1: a solver failed, or its answer does not bear out its claim; 2:
unusable input, reported in one line; 130: interrupted (finished layers are shown, and
kept with --store).
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from benchmarks.harness.digests import modules_digest
from benchmarks.harness.failures import FAULTS
from benchmarks.harness.readers import parse_grid
from benchmarks.harness.store import Store, open_store
from benchmarks.harness.tables import columns, number
from benchmarks.harness.trials import Trial, Trials
from benchmarks.harness.worker import Workers, open_workers
from benchmarks.options import add
from qubo_rounding.problem.grid import Grid
from solvers import InputError, Solver, parse_solvers
from solvers.layer_data import LayerData

if TYPE_CHECKING:
    from torch import Tensor

    from qubo_rounding.network.pose import Posed
    from qubo_rounding.network.source import Source


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer's finished runs.

    Attributes
    ----------
    name
        The layer's name in ``network.named_modules()``.
    facts
        ``rows``, ``n``, ``groups``, ``fixed`` (number of pinned weights), and the
        seconds of ``moments`` and ``grid``.
    trials
        One trial for each solver.
    """

    name: str
    facts: dict[str, Any]
    trials: list[Trial]


@dataclass(frozen=True, eq=False)
class Work:
    """What the runs of all layers of a network have in common.

    Attributes
    ----------
    source
        The network and its images.
    batches
        The calibration images, decoded.
    grid
        The grid that weights are rounded to.
    solvers, seed, seconds, threads
        What runs on each layer; `seconds` limits each solver in each layer.
    store
        Where finished runs are kept.
    workers
        Make each run in a process of its own; None if runs are made in this one.
    origin
        What the layers' problems come from beside their names.
    folder
        Where problems are saved; None if they are not.
    """

    source: Source
    batches: list[Tensor]
    grid: Grid
    solvers: list[Solver]
    seed: int
    seconds: float | None
    threads: int
    store: Store
    workers: Workers | None
    origin: dict[str, Any]
    folder: Path | None

    def layer(self, name: str) -> Layer:
        """Make a layer's runs, or take them from the store."""

        # Posed once, and not at all if the store has everything.
        @functools.cache
        def posed() -> Posed:
            from qubo_rounding.network.pose import pose

            return pose(
                self.source.network,
                name,
                lambda: self.batches,
                self.grid,
                meta=self.source.meta(name),
            )

        def data() -> list[LayerData]:
            from qubo_rounding.network.layer_data import layer_data

            return layer_data(self.source.network, name, self.batches, posed().problem)

        origin = {**self.origin, "layer": name}
        facts = self.store.fact(origin, lambda: self._facts(name, posed()))
        if self.folder is not None:
            path = self.folder / f"{self.source.model}.{name}.npz"

            def save() -> dict[str, Any]:
                posed().problem.save(path)
                return {}

            self.store.fact({**origin, "saved": str(path)}, save)
            # The store may remember a file that is no longer there.
            if not path.exists():
                save()
        trials = Trials(
            lambda: posed().problem,
            self.store,
            name=f"{self.source.model}.{name}",
            about=origin,
            threads=self.threads,
            data=data,
            workers=self.workers,
        )
        runs = [trials.run(s, self.seed, seconds=self.seconds) for s in self.solvers]
        return Layer(name, facts, runs)

    def _facts(self, name: str, posed: Posed) -> dict[str, Any]:
        """The `facts` of a `Layer`."""
        from qubo_rounding.network.layers import find_layer, groups

        problem = posed.problem
        return {
            "rows": problem.rows,
            "n": problem.n,
            "groups": groups(find_layer(self.source.network, name)),
            "fixed": 0 if problem.fixed is None else int((problem.fixed >= 0).sum()),
            "moments": posed.moments_seconds,
            "grid": posed.grid_seconds,
        }


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "model", required=True)
    add(parser, "layers")
    add(parser, "weights", default="auto")
    add(parser, "images")
    add(parser, "calibration", default=256)
    add(parser, "bits", "grid", "granularity", "saturated")
    add(parser, "solver", default="auto")
    add(parser, "seed")
    add(parser, "seconds", help="time limit of each solver in each layer")
    add(parser, "threads", "save-problems", "isolate", "store", "rerun", "rerun-failed")


def run(options: argparse.Namespace) -> int:
    """Print a line for each layer; return the exit code."""
    solvers = parse_solvers(options.solver)
    grid = parse_grid(options)
    # Before the network is loaded: a misspelt layer should cost no download.
    names = choose(options.model, options.layers)
    if options.save_problems is not None:
        _make_folder(options.save_problems)
    done: list[Layer] = []
    with open_store(options) as store, open_workers(options) as workers:
        work = _prepare(options, grid, solvers, store, workers)
        if options.layers is None:
            names = _proven(names, work)
        try:
            for name in tqdm(names, desc="layers", disable=None):
                done.append(work.layer(name))
        finally:
            if done:
                print(summary(done))
    return int(any(t.status in FAULTS for layer in done for t in layer.trials))


def _prepare(
    options: argparse.Namespace,
    grid: Grid,
    solvers: list[Solver],
    store: Store,
    workers: Workers | None,
) -> Work:
    """Load the network and its images."""
    from qubo_rounding.network.digests import network_digest, tensors_digest
    from qubo_rounding.network.source import load_source

    source = load_source(
        options.model,
        options.weights,
        options.images,
        options.calibration,
        evaluation=0,
        say=lambda line: print(line, file=sys.stderr),
    )
    # Decoding takes a fifth of a layer's forward pass: it is done once for all layers.
    batches = source.held()
    origin = {
        "model": options.model,
        "weights_hash": source.weights_hash,
        "network": network_digest(options.model, source.network),
        "calibration_digest": tensors_digest(batches),
        "grid": asdict(grid),
        "code": modules_digest("qubo_rounding.network.pose"),
    }
    return Work(
        source=source,
        batches=batches,
        grid=grid,
        solvers=solvers,
        seed=options.seed,
        seconds=options.seconds,
        threads=options.threads,
        store=store,
        workers=workers,
        origin=origin,
        folder=options.save_problems,
    )


def choose(model: str, text: str | None) -> list[str]:
    """Names of the layers in a comma-separated list; None: all that can be rounded.

    Raises
    ------
    InputError
        The model or a layer is unknown, or the model has no layer to round.
    """
    from qubo_rounding.network.models import architecture
    from qubo_rounding.network.prepare import likely_layers, require_likely_layer

    network = architecture(model)
    if text is None:
        names = likely_layers(network)
        if not names:
            raise InputError(f"{model} has no layer that can be rounded")
        return names
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        require_likely_layer(network, name)
    return names


def _proven(names: list[str], work: Work) -> list[str]:
    """Those layers that the loaded network turned out to have."""
    from qubo_rounding.network.layers import supported_layers

    found = supported_layers(work.source.network)
    if not found:
        raise InputError(f"none of the layers {', '.join(names)} can be rounded")
    return found


def summary(layers: Sequence[Layer]) -> str:
    """A table with a line for each layer, and one with the totals."""
    lines = [["layer", "rows", "n", "groups"]]
    lines[0] += [
        head for trial in layers[0].trials for head in (trial.run.spec.solver, "s")
    ]
    lines[0] += ["moments s", "grid s"]
    for layer in layers:
        cells = [layer.name, *(str(layer.facts[key]) for key in lines[0][1:4])]
        for trial in layer.trials:
            remark = "" if trial.status == "done" else f" {trial.status}"
            cells += [number(trial.ratio, 5), number(trial.run.seconds, 3) + remark]
        cells += [f"{layer.facts[key]:.2f}" for key in ("moments", "grid")]
        lines.append(cells)
    count = sum(layer.facts["rows"] * layer.facts["n"] for layer in layers)
    fixed = sum(layer.facts["fixed"] for layer in layers)
    totals = [["layers", str(len(layers))], ["binary variables", f"{count:,}"]]
    totals += [["of them fixed", f"{fixed:,}"]] if fixed else []
    seconds = {
        "s of moments": [layer.facts["moments"] for layer in layers],
        "s of grids": [layer.facts["grid"] for layer in layers],
    }
    for i, trial in enumerate(layers[0].trials):
        took = [layer.trials[i].run.seconds for layer in layers]
        seconds[f"s of {trial.run.spec.solver}"] = took
    seconds["s in all"] = [sum(parts) for parts in zip(*seconds.values(), strict=True)]
    totals += [[name, number(sum(each), 2)] for name, each in seconds.items()]
    return f"{columns(lines)}\n\n{columns(totals)}"


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make folder {path}: {error.strerror}") from error
