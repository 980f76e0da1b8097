"""Problems of a network's layers on several grids, each layer's moments taken once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor

    from qubo_rounding.network.source import Source


def pose_layer(
    source: Source, batches: Sequence[Tensor], layer: str, grids: Sequence[Grid]
) -> Iterator[RoundingProblem]:
    """The layer's problem on each grid, as `benchmarks.run` poses it.

    Parameters
    ----------
    source
        The network and its images.
    batches
        The calibration images, decoded.
    layer
        The layer's name in the network.
    grids
        At least one grid.
    """
    from qubo_rounding.network.pose import grid_meta, pose

    meta = source.meta(layer)
    posed = pose(source.network, layer, lambda: batches, grids[0], meta=meta)
    yield posed.problem
    for grid in grids[1:]:
        yield RoundingProblem.from_moments(
            posed.problem.weight, grid, posed.moments, {**grid_meta(grid), **meta}
        )
