"""Scales and biases fitted to the outputs of the original network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qubo_rounding import (
    Grid,
    fit_outputs,
    load_quantized,
    quantize_network,
    save_quantized,
)
from qubo_rounding.network.layers import find_layer
from solvers.errors import InputError
from tests.network_cases import images, small_network

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def rounded(network: nn.Module, grid: Grid):
    return quantize_network(
        network, [images(24)], bits=2, grid=grid, solver="babai", progress=False
    )


@pytest.mark.parametrize(
    "grid",
    [
        Grid(bits=2),
        Grid(bits=2, granularity="channel", symmetric=False),
        Grid(bits=2, granularity="group", group_size=3),
    ],
    ids=lambda grid: grid.granularity,
)
def test_outputs_come_closer_and_the_integers_stay(grid, tmp_path) -> None:
    network = small_network()
    before = rounded(network, grid)
    after = fit_outputs(network, before, [images(24)], steps=30, progress=False)
    told = after.meta["outputs"]
    assert told["after"] < 0.9 * told["before"]
    for name, layer in after.layers.items():
        old = before.layers[name]
        np.testing.assert_array_equal(layer.codes, old.codes)
        assert (layer.scale > 0).all()
        units = np.unique(layer.scale / old.scale)
        if grid.granularity == "tensor":
            assert len(units) == 1
        if grid.granularity == "group":
            np.testing.assert_array_equal(units, [1.0])
        weight = find_layer(after.network, name).weight.detach().flatten(1).numpy()
        np.testing.assert_array_equal(weight, layer.weight().astype(np.float32))
    save_quantized(tmp_path / "fitted.safetensors", after)
    again = load_quantized(tmp_path / "fitted.safetensors", small_network())
    with torch.no_grad():
        assert torch.equal(again.network(images(8)), after.network(images(8)))


def test_the_same_seed_gives_the_same_answer_and_leaves_what_it_is_given() -> None:
    network = small_network()
    given = rounded(network, Grid(bits=2))
    kept = {k: v.clone() for k, v in given.network.state_dict().items()}
    one, other, third = (
        fit_outputs(network, given, [images(24)], steps=3, seed=seed, progress=False)
        for seed in (1, 1, 2)
    )
    assert one.meta["outputs"]["after"] == other.meta["outputs"]["after"]
    assert one.meta["outputs"]["after"] != third.meta["outputs"]["after"]
    for name, value in given.network.state_dict().items():
        assert torch.equal(value, kept[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"rate": -1.0}, "rate must be positive, not -1"),
        ({"batches": []}, "needs batches of images, as tensors"),
        ({"batches": [{"x": 1}]}, "needs batches of images, as tensors"),
        ({"rate": 1e30}, "diverges at rate 1e"),
        ({"model": nn.Flatten(0).eval()}, r"needs class scores \[B, C\]; the network"),
    ],
)
def test_what_is_wrong_is_one_line(change, message) -> None:
    network = small_network()
    given = {"model": network, "quantized": rounded(network, Grid(bits=2))}
    given |= {"batches": [images(24)], "steps": 2, "progress": False} | change
    with pytest.raises(InputError, match=message):
        fit_outputs(**given)
