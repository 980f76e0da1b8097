"""Cross-layer equalization: weight ranges evened out between successive layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from qubo_rounding.network.folding import fold_batch_norms, trace
from qubo_rounding.network.layer_pairs import Pair, by_channel, pairs_in
from qubo_rounding.network.layers import find_layer, groups
from solvers.checks import require_count


class ChannelClip(nn.Module):
    """Clips at 0 and at an upper bound of each channel's own.

    Parameters
    ----------
    bounds
        Upper bounds, to be broadcast to the inputs.
    """

    def __init__(self, bounds: Tensor) -> None:
        super().__init__()
        self.register_buffer("bounds", bounds)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` clipped."""
        return torch.minimum(torch.relu(x), self.get_buffer("bounds"))


def find_pairs(network: nn.Module) -> list[Pair]:
    """The pairs of layers that `equalize` evens out, in the order of the graph.

    Between the two layers of a pair there are only operations that a positive factor
    per channel passes through: ReLU, leaky ReLU, PReLU, ReLU6, pooling, padding with
    zeros, dropout, flattening. Each layer runs once and shares no weight. Layers that
    `qubo_rounding.network.prepare` has made of others count if factors pass through
    what they do beside. Inputs are taken to have a leading batch axis.

    Raises
    ------
    InputError
        torch.fx cannot trace the network.
    """
    network = fold_batch_norms(network)
    return pairs_in(network, trace(network, "equalize the layers of"))


def equalize(network: nn.Module, *, iterations: int = 20) -> nn.Module:
    """Return a copy whose layers have weights of more even ranges.

    Each output channel of a layer is divided by a factor by which the next layer's
    weights for that channel are multiplied, such that both have the same largest
    weight: cross-layer equalization, section 4.1 of Nagel et al., *Data-Free
    Quantization Through Weight Equalization and Bias Correction*, ICCV 2019. That
    changes nothing that the network computes. The upper bound of a ReLU6 between two
    such layers is divided by the factors, too. (AIMET makes it a ReLU, which costs
    EfficientNet-Lite0 most of its accuracy.)

    Parameters
    ----------
    network
        Any network; it is not changed. Batch norms of the copy are folded first.
        Where no two layers can be evened out, the copy is just that; see `find_pairs`.
    iterations
        How often each pair is evened out, since a layer may belong to two pairs.

    Returns
    -------
    nn.Module
        In eval mode, with layers of the same names. It is a `torch.fx.GraphModule` if
        there was a ReLU6, or the like, to be replaced by a `ChannelClip` (then without
        modules that never run), else of the network's own class.

    Raises
    ------
    InputError
        torch.fx cannot trace the network, or `iterations` is no whole number from 1.
    """
    require_count("iterations", iterations)
    network = fold_batch_norms(network)
    graph = trace(network, "equalize the layers of")
    pairs = pairs_in(network, graph)
    clips: dict[str, ChannelClip] = {}
    for pair, factors in _factors(network, pairs, iterations).items():
        first: Any = find_layer(network, pair.first)
        second: Any = find_layer(network, pair.second)
        with torch.no_grad():
            rows = first.weight.flatten(1) / factors[:, None]
            first.weight.copy_(rows.view(first.weight.shape))
            if first.bias is not None:
                first.bias.copy_(first.bias / factors)
            blocks = by_channel(second, pair.channels)
            blocks = blocks * factors.view(groups(second), 1, -1, 1)
            second.weight.copy_(blocks.view(second.weight.shape))
        for clip in pair.clips:
            bounds = (clip.bound / factors).to(first.weight.dtype)
            if clip.flat:
                bounds = bounds.repeat_interleave(second.in_features // pair.channels)
            else:
                bounds = bounds.view(-1, *[1] * len(first.kernel_size))
            clips[clip.step] = ChannelClip(bounds)
    return _with_clips(network, graph, clips) if clips else network


def _factors(
    network: nn.Module, pairs: list[Pair], iterations: int
) -> dict[Pair, Tensor]:
    """The factors ``[channels]`` by which each pair is to be evened out."""
    channels = {pair.second: pair.channels for pair in pairs}
    largest: dict[str, Tensor] = {}
    for pair in pairs:
        for name in (pair.first, pair.second):
            layer = find_layer(network, name)
            blocks = by_channel(layer, channels.get(name))
            largest[name] = blocks.abs().amax(3).float()
    found = {
        pair: largest[pair.first].new_ones(pair.channels, dtype=torch.float64)
        for pair in pairs
    }
    for _ in range(iterations):
        for pair, factors in found.items():
            first, second = largest[pair.first], largest[pair.second]
            before, after = first.amax(2).flatten(), second.amax(1).flatten()
            step = (before / after).sqrt()
            # Channels without weights on one side stay as they are.
            usable = (before > 0) & (after > 0) & step.isfinite()
            step = step.where(usable, torch.ones_like(step))
            first /= step.view(len(first), -1, 1)
            second *= step.view(len(second), 1, -1)
            factors *= step
    return found


def _with_clips(
    network: nn.Module, graph: fx.Graph, clips: Mapping[str, ChannelClip]
) -> nn.Module:
    """The network with other clips in place of some steps."""
    home = "equalized"
    while hasattr(network, home):
        home += "_"
    network.add_module(home, nn.ModuleList(clips.values()))
    places = {step: f"{home}.{index}" for index, step in enumerate(clips)}
    for node in list(graph.nodes):
        if node.name in clips:
            with graph.inserting_after(node):
                values = (node.all_input_nodes[0],)
                clip = graph.call_module(places[node.name], values)
            node.replace_all_uses_with(clip)
            graph.erase_node(node)
    return fx.GraphModule(network, graph, type(network).__name__).eval()
