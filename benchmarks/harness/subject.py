"""`Subject`: what is rounded and scored, a layer of a network or a saved problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.accuracy import HeldOut
from benchmarks.harness.digests import modules_digest
from benchmarks.harness.packing import hash_of
from benchmarks.harness.readers import split_layer
from benchmarks.harness.trials import Score
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from qubo_rounding.problem.problem import OBJECTIVES
from solvers.layer_data import LayerData

if TYPE_CHECKING:
    from torch import nn

    from qubo_rounding.network.source import Source

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subject:
    """A rounding problem and all that scores its answers.

    Attributes
    ----------
    problem
        The problem for solvers to minimise.
    moment
        ``[n, n]`` or ``[G, n, n]``: the undamped second moment of the calibration
        inputs, with which the local MSE is measured whatever the objective; None for a
        saved problem with an objective of its own.
    shape
        Shape of the layer's weight.
    description
        The ``problem`` part of the record.
    accuracy
        Scores rounded rows on the network; None for a problem from a file.
    source
        The network and the images behind the problem; None for one from a file.
    grid
        The grid that the problem was posed on; None for one from a file.
    origin
        All that the problem comes from; None for one from a file.
    """

    problem: RoundingProblem
    moment: Array | None
    shape: tuple[int, ...]
    description: dict[str, Any]
    accuracy: Accuracy | None = None
    source: Source | None = None
    grid: Grid | None = None
    origin: dict[str, Any] | None = None

    @property
    def in_turn(self) -> bool:
        """Whether the scale is fitted to the answers."""
        return self.grid is not None and self.grid.turns > 0

    @property
    def has_data(self) -> bool:
        """Whether there are data of the layer on which its output's error is posed."""
        return (
            self.source is not None and self.description["objective"] == OBJECTIVES[0]
        )

    def scores(
        self, problem: RoundingProblem, states: NDArray[np.integer[Any]], name: str
    ) -> dict[str, Any]:
        """What the network says to the rounded layer; nothing about a saved problem."""
        if self.accuracy is None:
            return {}
        nearest = self.problem.nearest()
        first = self.accuracy.held_out.nearest is None
        if first and not np.array_equal(states, nearest):
            # The store had its scores, but others are compared with its predictions.
            rounded = self.problem.decode(nearest)
            self.accuracy.score(self.problem.weight, rounded, "nearest")
        return self.accuracy.score(problem.weight, problem.decode(states), name)

    def score(self, name: str) -> Score | None:
        """The same of answers to the problem itself, for runs that are kept."""
        if self.accuracy is None or self.origin is None:
            return None
        settings = {
            **self.origin,
            "evaluation_digest": self.description["evaluation_digest"],
            "code": modules_digest("benchmarks.harness.accuracy"),
        }
        return Score(
            key=f"on the network {hash_of(settings)}",
            of=lambda states: self.scores(self.problem, states, name),
        )

    def local_mse(self, states: NDArray[np.integer[Any]]) -> float:
        """The mean squared error on the calibration inputs, summed over the rows."""
        if self.moment is None:
            return float(self.problem.local_mse(states).sum())
        from qubo_rounding.network.evaluate import output_mse

        rounded = self.problem.decode(states)
        return float(output_mse(self.problem.weight, rounded, self.moment).sum())

    def layer_data(self) -> list[LayerData] | None:
        """The layer's data on the calibration images for each batch of the problem.

        None for a saved problem, or if the objective is not the layer's output.
        """
        if not self.has_data or self.accuracy is None or self.source is None:
            return None
        from qubo_rounding.network.layer_data import layer_data

        network, layer = self.accuracy.network, self.accuracy.layer
        return layer_data(network, layer, self.source.batches(), self.problem)


@dataclass(eq=False)
class Accuracy:
    """Scores of a network with one layer rounded, on held-out images.

    The first rounding to be scored must be the nearest one: later roundings are
    compared with it.

    Attributes
    ----------
    network, layer
        The original network, and the name of the layer.
    moment
        Second moment of the layer's inputs on the held-out images.
    held_out
        The held-out images.
    """

    network: nn.Module
    layer: str
    moment: Array
    held_out: HeldOut

    def full_precision(self) -> dict[str, float | None]:
        """Top-1 and top-5 of the original network in percent; None without labels."""
        return self.held_out.full_precision()

    def score(self, weight: Array, rounded: Array, name: str) -> dict[str, Any]:
        """Held-out error, SQNR, accuracy and agreement of rounded rows [R, n]."""
        from qubo_rounding.network import evaluate

        network = evaluate.with_weights(self.network, self.layer, rounded)
        mse = evaluate.output_mse(weight, rounded, self.moment)
        return {
            "heldout_mse": float(mse.sum()),
            "sqnr_db": _finite(evaluate.sqnr_db(weight, rounded, self.moment)),
            **self.held_out.score(network, name),
        }


def from_file(path: Path, saturated: str | None) -> Subject:
    """A saved problem, which is scored by its local MSE alone."""
    problem = RoundingProblem.load(path, saturated)
    objective = problem.meta.get("objective", "second-moment")
    if problem.gradient is not None or problem.blocks.shape[-1] != problem.n:
        objective = "its own"
    moment = problem.moment if objective == "second-moment" else None
    return Subject(
        problem=problem,
        moment=moment,
        shape=problem.weight.shape,
        description={
            "layer": problem.meta.get("layer", path.stem),
            "objective": objective,
            "file": str(path),
            **_describe(problem),
            "weights_hash": problem.meta.get("weights_hash"),
            "images": problem.meta.get("images"),
        },
    )


def from_layer(
    layer: str,
    grid: Grid,
    *,
    weights: str,
    images: Path | None,
    calibration_images: Path | None = None,
    calibration: int,
    evaluation: int | None,
    objective: str,
    seed: int,
    say: Callable[[str], None],
) -> Subject:
    """A layer ``MODEL.LAYER`` of a network, on calibration images.

    Raises
    ------
    InputError
        The network, the layer, the weights or the images do not exist or do not fit;
        see `load_network` and `load_images`.
    """
    from qubo_rounding.network import evaluate
    from qubo_rounding.network.digests import network_digest
    from qubo_rounding.network.layers import find_layer, layer_moments
    from qubo_rounding.network.models import architecture
    from qubo_rounding.network.pose import pose
    from qubo_rounding.network.prepare import require_likely_layer
    from qubo_rounding.network.source import BATCH, image_count, load_source

    model, name = split_layer(layer)
    # Before the network is loaded: a misspelt layer should cost no download.
    require_likely_layer(architecture(model), name)
    source = load_source(
        model, weights, images, calibration, evaluation, say, calibration_images
    )
    network, held_out = source.network, source.evaluation
    say(image_count("evaluation", held_out))
    if held_out.labels is None:
        say("the images' labels are not the network's: accuracy is not reported")
    meta = source.meta(name, objective)
    posed = pose(network, name, source.batches, grid, objective, meta=meta, seed=seed)
    problem = posed.problem
    accuracy = Accuracy(
        network=network,
        layer=name,
        moment=layer_moments(network, name, held_out.batches(BATCH)).second_moment,
        held_out=HeldOut(
            held_out,
            evaluate.predict(network, held_out, description="full precision"),
        ),
    )
    weight = find_layer(network, name).get_parameter("weight")
    return Subject(
        problem=problem,
        moment=posed.moments.second_moment,
        shape=tuple(weight.shape),
        description={
            **meta,
            "count": posed.moments.count,
            **_describe(problem),
            "turns": grid.turns,
            "calibration_images": len(source.calibration),
            "evaluation_images": len(held_out),
            "evaluation_digest": held_out.digest,
        },
        accuracy=accuracy,
        source=source,
        grid=grid,
        origin={
            "layer": layer,
            "weights_hash": source.weights_hash,
            "network": network_digest(model, network),
            "calibration_digest": meta["calibration_digest"],
            "grid": asdict(grid),
            "objective": objective,
            # Of it, labels of the task loss are drawn.
            "seed": None if objective == OBJECTIVES[0] else seed,
            "code": modules_digest("qubo_rounding.network.pose"),
        },
    )


def _describe(problem: RoundingProblem) -> dict[str, Any]:
    """Size, grid and pinned weights of a problem, for the record."""
    fixed = problem.fixed
    return {
        "rows": problem.rows,
        "n": problem.n,
        "bits": problem.meta.get("bits"),
        "scale": describe_scale(problem),
        "saturated": problem.saturated,
        "fixed_weights": 0 if fixed is None else int((fixed >= 0).sum()),
    }


def describe_scale(problem: RoundingProblem) -> float | list[float] | dict[str, float]:
    """The scale briefly: one number, one for each row, or the least and the largest."""
    scale = np.unique(problem.scale)
    if len(scale) == 1:
        return float(scale[0])
    if problem.scale.shape[1] == 1:
        rows: list[float] = problem.scale[:, 0].tolist()
        return rows
    return {"min": float(scale[0]), "max": float(scale[-1])}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
