"""Layers in a row through which factors of channels can be moved."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from qubo_rounding.network.exposed import plain_layer
from qubo_rounding.network.folding import FoldedNorm
from qubo_rounding.network.layers import groups, supported_layers

# Operations f with f(s x) = s f(x) for a factor s > 0 of each channel. First those
# that work on single values, as modules, functions and names of methods.
ELEMENTWISE: set[object] = {
    *(nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, FoldedNorm),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(F.relu, F.relu_, torch.relu, torch.relu_, F.leaky_relu, F.leaky_relu_),
    *(F.prelu, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d),
    *("relu", "relu_", "contiguous", "clone"),
}
# Then those that work on each channel's positions, by the number of their axes.
POSITIONS: dict[object, int] = {
    getattr(home, name.format(axes)): axes
    for axes in (1, 2, 3)
    for home, names in (
        (nn, ("MaxPool{}d", "AvgPool{}d", "AdaptiveMaxPool{}d", "AdaptiveAvgPool{}d")),
        (nn, ("ZeroPad{}d", "ReflectionPad{}d", "ReplicationPad{}d")),
        (F, ("max_pool{}d", "avg_pool{}d")),
        (F, ("adaptive_max_pool{}d", "adaptive_avg_pool{}d")),
        (torch, ("max_pool{}d",)),
    )
    for name in names
}
# What a step does to what it is given: nothing that channels would notice, or making
# each channel's positions a block of one axis.
PASSES, FLATTENS = "passes", "flattens"


@dataclass(frozen=True)
class Clip:
    """A step that clips at 0 and at an upper bound, as ReLU6 does.

    Attributes
    ----------
    step
        The step's name in the graph.
    bound
        The upper bound.
    flat
        Whether channels are blocks of the last axis; else they are the second axis.
    """

    step: str
    bound: float
    flat: bool


@dataclass(frozen=True)
class Pair:
    """Two layers of which the first feeds the second, and nothing else.

    Attributes
    ----------
    first, second
        The layers' names.
    channels
        Number of channels that the first gives and the second takes.
    clips
        Clips between the two.
    """

    first: str
    second: str
    channels: int
    clips: tuple[Clip, ...] = ()


def pairs_in(network: nn.Module, graph: fx.Graph) -> list[Pair]:
    """The pairs of a network's layers, in the order of its graph.

    Parameters
    ----------
    network
        In eval mode, batch norms folded.
    graph
        Its graph, as `qubo_rounding.network.folding.trace` gives it.
    """
    layers = _own_layers(network, graph)
    found = (_pair(network, layers, node) for node in graph.nodes if node in layers)
    return [pair for pair in found if pair is not None]


def _own_layers(network: nn.Module, graph: fx.Graph) -> dict[fx.Node, Any]:
    """The layers whose weights do nothing but serve the one call of the layer."""
    calls: Counter[nn.Module] = Counter()
    read = set()
    for node in graph.nodes:
        if node.op == "call_module":
            calls.update(network.get_submodule(str(node.target)).modules())
        elif node.op == "get_attr":
            read.add(str(node.target).rpartition(".")[0])
    owners = Counter(
        id(parameter)
        for module in network.modules()
        for parameter in module._parameters.values()
    )
    names = set(supported_layers(network)) - read
    layers: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "call_module" and str(node.target) in names:
            module = network.get_submodule(str(node.target))
            layer = plain_layer(module)
            alone = all(owners[id(parameter)] == 1 for parameter in layer.parameters())
            hooked = any(map(_has_hooks, module.modules()))
            plain = layer is module or _passes_factors(module, layer)
            if calls[layer] == 1 and alone and not hooked and plain:
                layers[node] = layer
    return layers


def _passes_factors(module: nn.Module, layer: Any) -> bool:
    """Whether factors of a module's inputs and outputs may go into a layer of it.

    Tried with random inputs, since the module may do whatever it likes beside.
    """
    linear = isinstance(layer, nn.Linear)
    inputs = layer.in_features if linear else layer.in_channels
    # Twice what the layer reaches, for modules that do not pad.
    reach = () if linear else zip(layer.kernel_size, layer.dilation, strict=True)
    sides = [2 * max(8, dilation * (size - 1) + 1) for size, dilation in reach]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, inputs, *sides, generator=generator).to(layer.weight)
    # Powers of two, which round nothing.
    into, out = (
        2.0 ** torch.randint(-2, 3, (count,), generator=generator).to(layer.weight)
        for count in (inputs, len(layer.weight))
    )
    scaled = copy.deepcopy(module)
    other: Any = plain_layer(scaled)
    try:
        with torch.no_grad():
            blocks = by_channel(layer) / into.view(groups(layer), 1, -1, 1)
            rows = out[:, None] * blocks.reshape(len(out), -1)
            other.weight.copy_(rows.view(layer.weight.shape))
            if layer.bias is not None:
                other.bias.copy_(out * layer.bias)
            expected = module(x) * out.view(-1, *[1] * len(sides))
            found = scaled(x * into.view(-1, *[1] * len(sides)))
            return torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    except Exception:  # it runs the module's own code
        return False


def _pair(
    network: nn.Module, layers: Mapping[fx.Node, Any], node: fx.Node
) -> Pair | None:
    """The pair that begins with the layer of a step, if there is one."""
    first = layers[node]
    axes = 0 if isinstance(first, nn.Linear) else len(first.kernel_size)
    channels, flat = len(first.weight), axes == 0
    clips: list[Clip] = []
    chain = [node]
    while True:
        users = [user for user in chain[-1].users if not _asks_for_shape(user)]
        if len(users) != 1 or chain[-1] is not _given(users[0]):
            return None
        (step,) = users
        if step in layers:
            break
        bound = _upper_bound(network, step)
        effect = PASSES if bound else _effect(network, step, 0 if flat else axes, chain)
        if effect is None:
            return None
        if bound:
            clips.append(Clip(step.name, bound, flat))
        flat = flat or effect == FLATTENS
        chain.append(step)
    second = layers[step]
    if isinstance(second, nn.Linear):
        # Positions of a linear layer's outputs cannot become part of their last axis.
        block, rest = divmod(second.in_features, channels)
        fits = flat and rest == 0 and (axes > 0 or block == 1)
    else:
        same_axes = len(second.kernel_size) == axes
        fits = not flat and same_axes and second.in_channels == channels
    if not fits:
        return None
    return Pair(str(node.target), str(step.target), channels, tuple(clips))


def _upper_bound(network: nn.Module, step: fx.Node) -> float | None:
    """Where a step clips from above, if clipping at 0 and there is all it does."""
    target = _called(network, step)
    low: Any = 0
    high: Any = None
    if target in (nn.ReLU6, nn.Hardtanh):
        module: Any = network.get_submodule(str(step.target))
        low, high = module.min_val, module.max_val
    elif target is F.relu6:
        high = 6.0
    elif target in (F.hardtanh, F.hardtanh_):
        low = _argument(step, 1, "min_val", -1.0)
        high = _argument(step, 2, "max_val", 1.0)
    elif target in (torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_"):
        low, high = _argument(step, 1, "min", None), _argument(step, 2, "max", None)
    numbers = isinstance(low, int | float) and isinstance(high, int | float)
    return float(high) if numbers and low == 0 < high else None


def _effect(
    network: nn.Module, step: fx.Node, axes: int, chain: list[fx.Node]
) -> str | None:
    """What a step does to channels with so many axes of positions; None: none of these.

    Parameters
    ----------
    chain
        The steps before it, from the layer on.
    """
    target = _called(network, step)
    if target in ELEMENTWISE or (axes and POSITIONS.get(target) == axes):
        return PASSES
    if target is F.pad and axes:
        zeros = not _argument(step, 3, "value", None)
        return (
            PASSES if zeros and len(_argument(step, 1, "pad", ())) <= 2 * axes else None
        )
    if target is nn.Flatten:
        module: Any = network.get_submodule(str(step.target))
        return FLATTENS if (module.start_dim, module.end_dim) == (1, -1) else None
    if target in (torch.flatten, "flatten"):
        ends = _argument(step, 1, "start_dim", 0), _argument(step, 2, "end_dim", -1)
        return FLATTENS if ends == (1, -1) else None
    if target in ("view", "reshape", torch.reshape):
        return FLATTENS if _keeps_only_images(step, chain) else None
    if target in ("mean", torch.mean) and axes:
        over = _argument(step, 1, "dim", None)
        over = {over} if isinstance(over, int) else set(over or ())
        if {axis % (axes + 2) for axis in over} != set(range(2, axes + 2)):
            return None
        return PASSES if _argument(step, 2, "keepdim", False) else FLATTENS
    return None


def _called(network: nn.Module, step: fx.Node) -> object:
    """The class, function or name of a method that a step calls; None: a hook, too."""
    if step.op != "call_module":
        return step.target
    module = network.get_submodule(str(step.target))
    return None if _has_hooks(module) else type(module)


def _keeps_only_images(step: fx.Node, chain: list[fx.Node]) -> bool:
    """Whether the new shape is the number of images and one axis for the rest."""
    sizes = step.args[1:] or (step.kwargs.get("shape"),)
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    if len(sizes) != 2 or sizes[1] != -1 or not isinstance(sizes[0], fx.Node):
        return False
    length = sizes[0]
    if length.target == "size":
        source, axis = _given(length), _argument(length, 1, "dim", None)
    else:
        shape = _given(length)
        if getattr(length.target, "__name__", "") != "getitem" or shape is None:
            return False
        source, axis = _given(shape), length.args[1]
        if not _asks_for_shape(shape):
            return False
    images = source in chain or (source is not None and source.op == "placeholder")
    return images and axis == 0


def _asks_for_shape(step: fx.Node) -> bool:
    if step.op == "call_method":
        return step.target in ("size", "dim")
    return step.target is getattr and step.args[1] == "shape"


def _given(step: fx.Node) -> fx.Node | None:
    """The value that a step is given in the first place."""
    first = step.args[0] if step.args else step.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None


def _argument(step: fx.Node, place: int, name: str, default: Any) -> Any:
    if len(step.args) > place:
        return step.args[place]
    return step.kwargs.get(name, default)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def by_channel(layer: Any, channels: int | None = None) -> Tensor:
    """Weights ``[groups, outputs of a group, its input channels, weights of these]``.

    Parameters
    ----------
    channels
        Number of channels that a linear layer's inputs hold, block by block.
    """
    weight: Tensor = layer.weight.detach()
    count = groups(layer)
    channels = channels or weight.shape[1] * count
    return weight.reshape(count, len(weight) // count, channels // count, -1)
