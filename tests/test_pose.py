"""From a layer and images to its rounding problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qubo_rounding.network.hessian import fisher_blocks
from qubo_rounding.network.layers import layer_moments, weight_rows
from qubo_rounding.network.pose import grid_meta, pose
from qubo_rounding.problem import RoundingProblem
from qubo_rounding.problem.grid import Grid
from solvers import InputError

GRID = Grid(bits=3, granularity="channel")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    return nn.Sequential(*parts).eval()


@pytest.fixture
def images() -> list[torch.Tensor]:
    return list(torch.randn(6, 3, 8, 8, generator=torch.manual_seed(1)).split(2))


def test_the_error_of_the_layers_output(network, images):
    posed = pose(network, "0", lambda: images, GRID, meta={"layer": "tiny.0"})
    moments = layer_moments(network, "0", images)
    rows = weight_rows(network[0])
    assert posed.problem.digest == (
        RoundingProblem.from_moments(rows, GRID, moments).digest
    )
    np.testing.assert_array_equal(posed.moments.second_moment, moments.second_moment)
    expected = {"bits": 3, "layer": "tiny.0", "count": 6 * 36, **grid_meta(GRID)}
    assert posed.problem.meta == expected
    assert expected["grid"]["granularity"] == "channel"
    assert posed.moments_seconds > 0
    assert posed.grid_seconds > 0


def test_the_task_loss(network, images):
    passes = []

    def batches():
        passes.append(1)
        return iter(images)

    posed = pose(network, "0", batches, GRID, "fisher", seed=3)
    blocks = fisher_blocks(network, "0", images, 3)
    np.testing.assert_allclose(posed.problem.moment, blocks / 2)
    assert posed.problem.meta["count"] == 6 * 36
    assert len(passes) == 2


@pytest.mark.parametrize(
    ("layer", "objective", "message"),
    [
        ("0", "fischer", "unknown objective 'fischer'; did you mean fisher"),
        ("00", "fisher", "unknown layer '00'; did you mean 0"),
        ("1", "fisher", "layer '1' is a ReLU"),
    ],
)
def test_refused(network, images, layer, objective, message):
    with pytest.raises(InputError, match=message):
        pose(network, layer, lambda: images, GRID, objective)
