"""Networks rounded to nearest, for the tests of what is made of rounded networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qubo_rounding.network.layers import (
    find_layer,
    fold_batch_norms,
    set_weight_rows,
    supported_layers,
    weight_rows,
)
from qubo_rounding.network.whole.result import QuantizedLayer, QuantizedNetwork
from qubo_rounding.problem.grid import Grid

GRIDS = {
    "tensor": Grid(bits=4),
    "restricted": Grid(bits=3, restricted=True),
    "channel": Grid(bits=8, granularity="channel"),
    "group": Grid(bits=4, granularity="group", group_size=16, scale="minmax"),
    "two bits": Grid(bits=2, granularity="channel"),
    "tensor, asymmetric": Grid(bits=8, symmetric=False),
    "channel, asymmetric": Grid(bits=4, granularity="channel", symmetric=False),
    "ragged groups": Grid(
        bits=5, granularity="group", group_size=7, symmetric=False, scale="minmax"
    ),
}


class Small(nn.Module):
    """Grouped and depthwise convolutions, a batch norm, an addition, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.hidden = nn.Linear(32, 33)
        self.norm = nn.LayerNorm(33)
        self.head = nn.Linear(33, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(x + self.depthwise(self.grouped(x)))
        x = F.relu(self.hidden(F.adaptive_avg_pool2d(x, 2).flatten(1)))
        return self.head(self.norm(x))


def small_network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Small()
        for bound in (network.bn1.weight, network.bn1.running_var):
            nn.init.uniform_(bound, 0.5, 2)
        nn.init.normal_(network.bn1.running_mean)
    return network.eval()


def images(count: int = 8, size: int = 8, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)


def rounded(network: nn.Module, grid: Grid, exclude: tuple = ()) -> QuantizedNetwork:
    """All layers of a network rounded to nearest, with float32 scales."""
    network = fold_batch_norms(network)
    layers = {}
    for name in supported_layers(network):
        if name in exclude:
            continue
        layer = find_layer(network, name)
        rows = weight_rows(layer)
        found = grid.fit(rows)
        scale = found.scale.astype(np.float32).astype(np.float64)
        codes = np.clip(np.rint(rows / scale), found.lo, found.hi).astype(np.int16)
        bias = None if layer.bias is None else layer.bias.detach().numpy().copy()
        layers[name] = QuantizedLayer(
            name=name,
            shape=tuple(layer.weight.shape),
            grid=grid,
            codes=codes,
            scale=scale,
            lo=found.lo,
            hi=found.hi,
            bias=bias,
        )
        set_weight_rows(layer, layers[name].weight())
    return QuantizedNetwork(network=network, layers=layers, meta={"seed": 0})
