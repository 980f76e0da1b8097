"""From a layer of a network and calibration images to a rounding problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from qubo_rounding.network.hessian import fisher_blocks
from qubo_rounding.network.layer_rows import weight_rows
from qubo_rounding.network.layers import find_layer, layer_moments
from qubo_rounding.problem.grid import Grid
from qubo_rounding.problem.moments import Moments
from qubo_rounding.problem.problem import OBJECTIVES, RoundingProblem
from solvers.errors import UnknownNameError


@dataclass(frozen=True, eq=False)
class Posed:
    """A layer's rounding problem, the moments it was made of, and the seconds it took.

    Attributes
    ----------
    problem
        The problem for solvers to minimise.
    moments
        Moments of the layer's inputs on the calibration images, undamped.
    moments_seconds
        Seconds of the passes over the images.
    grid_seconds
        Seconds of the search for the grid's scale.
    """

    problem: RoundingProblem
    moments: Moments
    moments_seconds: float
    grid_seconds: float


def pose(
    network: nn.Module,
    layer: str,
    batches: Callable[[], Iterable[Tensor]],
    grid: Grid,
    objective: str = OBJECTIVES[0],
    *,
    meta: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Posed:
    """Pose the rounding of one layer.

    Parameters
    ----------
    network
        A network in eval mode; batch norms should be folded.
    layer
        The layer's name in ``network.named_modules()``.
    batches
        Returns batches of the calibration images, from the first image to the last; it
        is called for every pass over them.
    objective
        ``"second-moment"``: the error of the layer's output; ``"fisher"``: the
        Gauss-Newton approximation of the task loss, an H for each row.
    meta
        Where network and images come from; the grid's rule and the number of positions
        are added.
    seed
        Seed of the labels that are drawn for the task loss.
    progress
        Whether to show a progress bar.

    Raises
    ------
    UnknownNameError
        The layer or the objective does not exist.
    InputError
        The layer's problem cannot be posed.
    """
    if objective not in OBJECTIVES:
        raise UnknownNameError("objective", objective, OBJECTIVES)
    rows = weight_rows(find_layer(network, layer))
    meta = {**grid_meta(grid), **(meta or {})}
    begun = time.perf_counter()
    moments = layer_moments(network, layer, batches(), progress=progress)
    blocks = None
    if objective == "fisher":
        blocks = fisher_blocks(network, layer, batches(), seed)
    passed = time.perf_counter()
    if blocks is None:
        problem = RoundingProblem.from_moments(rows, grid, moments, meta)
    else:
        problem = RoundingProblem.from_hessian(
            rows,
            grid,
            blocks,
            second_moment=moments.second_moment,
            meta={"count": moments.count, **meta},
        )
    return Posed(
        problem=problem,
        moments=moments,
        moments_seconds=passed - begun,
        grid_seconds=time.perf_counter() - passed,
    )


def grid_meta(grid: Grid) -> dict[str, Any]:
    """What the `meta` of a problem says about its grid."""
    # Bits and saturated weights are the problem's own, and turns begin at this grid.
    own = ("bits", "saturated", "turns")
    return {"grid": {k: v for k, v in asdict(grid).items() if k not in own}}
