"""Rounded activations: where, to which values, and simulated in the network."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from tqdm import tqdm

from qubo_rounding.network.folding import trace
from qubo_rounding.network.layers import (
    find_layer,
    forward,
    like_weights,
    refuse_training,
)
from qubo_rounding.network.whole.ranges import (
    BINS,
    ActivationRange,
    Histogram,
    choose,
    parse_rule,
)
from qubo_rounding.network.whole.result import QuantizedNetwork
from solvers.errors import InputError, UnknownNameError

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
# Submodule of a layer that is given the layer's input.
_CHILD = "activation"


@torch.library.custom_op("qubo_rounding::round_to_grid", mutates_args=())
def round_to_grid(x: Tensor, scale: float, zero_point: int, lo: int, hi: int) -> Tensor:
    """Round to ``scale * (q - zero_point)``, q from lo to hi.

    The arithmetic is that of ONNX's QuantizeLinear and DequantizeLinear. An operator
    of its own, so that exporters can tell it, which torch's fake_quantize is not.
    """
    q = torch.div(x, scale).round_().clamp_(lo - zero_point, hi - zero_point)
    return q.mul_(scale)


@round_to_grid.register_fake
def _(x: Tensor, scale: float, zero_point: int, lo: int, hi: int) -> Tensor:
    return torch.empty_like(x)


class RoundActivations(nn.Module):
    """Rounds a tensor to the values of a range, in floating-point numbers."""

    def __init__(self, values: ActivationRange) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Any) -> Any:
        """Round ``x``; what is no floating-point tensor stays as it is."""
        if not _is_real(x):
            return x
        r = self.values
        return round_to_grid(x, r.scale, r.zero_point, r.lo, r.hi)


class _Ends(nn.Module):
    """Observes the lowest and the highest number."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.low, self.high = np.inf, -np.inf

    def forward(self, x: Any) -> Any:
        if _is_real(x) and x.numel():
            low, high = (float(end) for end in torch.aminmax(x))
            if not np.isfinite([low, high]).all():
                raise InputError(
                    f"the activations at {self.name!r} run from {low} to {high}; they "
                    "must be finite"
                )
            self.low, self.high = min(low, self.low), max(high, self.high)
        return x


class _Counts(nn.Module):
    """Observes how many numbers lie where between two ends."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = min(low, 0.0), max(high, 0.0)
        self.counts = np.zeros(BINS)
        self.zeros = 0.0

    def forward(self, x: Any) -> Any:
        if _is_real(x) and self.low < self.high:
            bins = torch.histc(x.float(), BINS, self.low, self.high)
            self.counts += bins.cpu().double().numpy()
            self.zeros += float(x.numel() - torch.count_nonzero(x))
        return x

    def histogram(self) -> Histogram:
        return Histogram(self.low, self.high, self.counts, self.zeros)


def quantize_activations(
    quantized: QuantizedNetwork,
    batches: Callable[[], Iterable[Tensor]],
    *,
    bits: int = 8,
    rule: str = "minmax",
    symmetric: bool = False,
    progress: bool = True,
) -> QuantizedNetwork:
    """Round the activations of a network whose weights are rounded already.

    Rounded are the input of every quantized layer and, where torch.fx traces the
    network, both operands of every addition of two tensors; each such place has one
    range for the whole tensor, observed in the network with rounded weights and
    activations as they are. The network's outputs are not rounded. Zero is always
    among the values.

    Parameters
    ----------
    quantized
        A network without rounded activations.
    batches
        Returns batches of the calibration images; called twice unless the rule is
        ``"minmax"``.
    bits
        2 to 8.
    rule
        ``"minmax"`` (as in the AdaRound paper's W4A8), ``"percentile:99.99"``,
        ``"mse"`` or ``"kl"``, see `qubo_rounding.network.whole.ranges.choose`.
    symmetric
        Signed integers around zero; otherwise unsigned ones with a zero point, which
        is 0 for what is never negative.
    progress
        Whether to show a progress bar; it stays quiet where there is no terminal.

    Returns
    -------
    The same layers with a network that rounds its activations, their ranges in
    ``activations`` by place: a layer's name for its input, ``"add_1[0]"`` for the first
    operand of an addition. If there are additions, the network is a
    `torch.fx.GraphModule` with the modules of the original one.

    Raises
    ------
    InputError
        Unknown rule or wrong bits; there are no images; activations are rounded
        already or not finite; a layer never runs.
    """
    parse_rule(rule)
    if quantized.activations:
        raise InputError(
            "the activations of this network are rounded already; start from the one "
            "with rounded weights alone"
        )
    # Refuses wrong bits before any pass over the images.
    ActivationRange.cover(0, 1, bits, symmetric)
    refuse_training(quantized.network)
    network, places = quantized.network, list(quantized.layers)
    places += _additions(network)

    ends = {name: _Ends(name) for name in places}
    _run(_placed(network, ends), batches(), "ranges", progress)
    seen = {name: e for name, e in ends.items() if e.low <= e.high}
    for name in quantized.layers:
        if name not in seen:
            raise InputError(f"layer {name!r} never runs on the calibration images")
    counts = {name: _Counts(e.low, e.high) for name, e in seen.items()}
    if parse_rule(rule)[0] != "minmax":
        _run(_placed(network, counts), batches(), "histograms", progress)
    ranges = {
        name: choose(rule, c.histogram(), bits, symmetric)
        for name, c in tqdm(
            counts.items(),
            desc=rule,
            unit="range",
            leave=False,
            disable=None if progress else True,
        )
    }
    options = {"bits": bits, "rule": rule, "symmetric": symmetric}
    return replace(
        quantized,
        network=round_activations(network, ranges),
        activations=ranges,
        meta={**quantized.meta, "activations": options},
    )


def round_activations(
    network: nn.Module, ranges: Mapping[str, ActivationRange]
) -> nn.Module:
    """A copy of the network that rounds its activations at the places of `ranges`.

    Raises
    ------
    InputError
        The network has no such place.
    """
    return _placed(network, {name: RoundActivations(r) for name, r in ranges.items()})


def _placed(network: nn.Module, modules: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of the network in which modules are given activations, and give others."""
    network = copy.deepcopy(network)
    known = {name for name, _ in network.named_modules(remove_duplicate=False)}
    for name in modules.keys() & known:
        layer = find_layer(network, name)
        layer.add_module(_CHILD, modules[name].eval())
        layer.register_forward_pre_hook(_change_input, with_kwargs=True)
    if modules.keys() <= known:
        return network
    graph = trace(network)
    operands = _operands(graph)
    for name in modules.keys() - known:
        if name not in operands:
            raise UnknownNameError("place of activations", name, [*known, *operands])
    # Hooks of the layers stay; those of the network itself would be lost.
    traced = fx.GraphModule(network, graph)
    for name, (node, k) in operands.items():
        if name in modules:
            child = f"{_CHILD}_{node.name}_{k}"
            traced.add_submodule(child, modules[name])
            with graph.inserting_before(node):
                changed = graph.call_module(child, (node.args[k],))
            node.update_arg(k, changed)
    traced.recompile()
    return traced.eval()


def _change_input(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    change = layer.get_submodule(_CHILD)
    if args:
        return (change(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "input": change(kwargs["input"])}


def _additions(network: nn.Module) -> list[str]:
    """Names of the operands of additions; none where torch.fx cannot trace."""
    try:
        return list(_operands(trace(network)))
    except InputError:
        return []


def _operands(graph: fx.Graph) -> dict[str, tuple[fx.Node, int]]:
    """Operands of the additions of two values, by name: the addition and which one."""
    return {
        f"{node.name}[{k}]": (node, k)
        for node in graph.nodes
        if node.op in ("call_function", "call_method")
        and node.target in _ADDITIONS
        and len(node.args) == 2
        and all(isinstance(arg, fx.Node) for arg in node.args)
        for k in (0, 1)
    }


def _run(
    network: nn.Module, batches: Iterable[Tensor], description: str, progress: bool
) -> None:
    batches = tqdm(
        batches, desc=description, unit="batch", disable=None if progress else True
    )
    count = 0
    with torch.inference_mode():
        for batch in batches:
            forward(network, like_weights(network, batch))
            count += 1
    if not count:
        raise InputError("no images to observe the activations on")


def _is_real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()
