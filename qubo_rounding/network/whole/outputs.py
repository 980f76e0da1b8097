"""Scales and biases of a rounded network, fitted together to the original's outputs."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from qubo_rounding.network.layers import find_layer, forward, like_weights
from qubo_rounding.network.whole.quantize import write
from qubo_rounding.network.whole.result import QuantizedLayer, QuantizedNetwork
from qubo_rounding.problem.in_turn import in_float32
from solvers.checks import is_number, require_count
from solvers.errors import InputError, shown

STEPS = 200
# Images of a step, and the learning rate of Adam to begin with, which falls to 0 along
# a cosine. Scales are measured in units of themselves.
BATCH, RATE = 128, 3e-3


@dataclass(frozen=True, eq=False)
class _Fit:
    """What is fitted of a layer.

    Attributes
    ----------
    layer
        The layer as it was rounded.
    weight
        Its weights, of the shape of the network's parameter.
    factor
        What its scales are multiplied by, broadcastable to the rows of the weight.
    bias
        Its bias; None if it has none.
    """

    layer: QuantizedLayer
    weight: Tensor
    factor: Tensor
    bias: Tensor | None

    def scaled(self) -> Tensor:
        """The weights with the scales of now."""
        rows = self.weight.flatten(1) * self.factor
        return rows.reshape(self.weight.shape)

    def fitted(self) -> QuantizedLayer:
        """The layer with the scales and the bias of now; the integers stay."""
        factor = self.factor.detach().double().cpu().numpy()
        scale = in_float32(self.layer.scale * factor[:, : self.layer.scale.shape[1]])
        bias = self.bias
        if bias is None:
            return replace(self.layer, scale=scale)
        values = bias.detach().float().cpu().numpy()
        return replace(self.layer, scale=scale, bias=values)


def fit_outputs(
    model: nn.Module,
    quantized: QuantizedNetwork,
    batches: Iterable[Tensor],
    *,
    steps: int = STEPS,
    rate: float = RATE,
    seed: int = 0,
    progress: bool = True,
) -> QuantizedNetwork:
    """Fit scales and biases of all layers together to the original network's outputs.

    Rounding knows each layer by itself; this makes up for what adds up. The integers
    stay. Minimised is the Kullback-Leibler divergence of the rounded network's class
    probabilities from the original one's, by Adam on random batches of the calibration
    images; no labels are needed. Scales stay positive. Layers with a scale for each
    group of weights keep theirs; their biases alone are fitted.

    Parameters
    ----------
    model
        The original network, in eval mode.
    quantized
        What `quantize_network` made of it, with activations that are not rounded.
    batches
        The calibration images ``[B, …]``; all are held in memory.
    steps
        Steps of Adam, with 128 images each.
    rate
        The learning rate.
    seed
        Decides which images make up a batch.
    progress
        Whether to show a progress bar; it stays quiet where there is no terminal.

    Returns
    -------
    The network with the same integers and other scales and biases; ``outputs`` in its
    meta has the divergence on all images before and after, in nats. The reports of its
    layers are those of the rounding. With another number of threads of torch the last
    bits of scales and biases may differ.

    Raises
    ------
    InputError
        Activations are rounded already; the batches are no tensors or there are none;
        the network does not give class scores ``[B, C]``; the steps or the rate are not
        positive, or so large that the fit diverges.
    """
    require_count("steps", steps)
    if not (is_number(rate) and rate > 0):
        raise InputError(f"rate must be positive, not {shown(rate)}")
    if quantized.activations:
        raise InputError("fit the outputs before activations are rounded")
    images = _images(batches, quantized.network)
    with torch.inference_mode():
        goal = torch.cat([_scores(model, part) for part in torch.split(images, BATCH)])
    # Tensors of inference mode cannot be part of a gradient.
    goal = F.log_softmax(goal.clone().to(images.device), dim=1)
    network = copy.deepcopy(quantized.network).requires_grad_(False)
    fits = {name: _fit_of(network, layer) for name, layer in quantized.layers.items()}
    names = {id(value): name for name, value in network.named_parameters()}
    free = [fit.factor for fit in fits.values() if fit.factor.requires_grad]
    free += [fit.bias for fit in fits.values() if fit.bias is not None]
    adam = torch.optim.Adam(free, lr=rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    generator = torch.Generator().manual_seed(seed)

    def divergence(chosen: Tensor) -> Tensor:
        values = {}
        for name, fit in fits.items():
            module: Any = find_layer(network, name)
            values[names[id(module.weight)]] = fit.scaled()
            if fit.bias is not None:
                values[names[id(module.bias)]] = fit.bias
        scores = torch.func.functional_call(network, values, (images[chosen],))
        log = F.log_softmax(scores, dim=1)
        return F.kl_div(log, goal[chosen], reduction="batchmean", log_target=True)

    def over_all() -> float:
        with torch.no_grad():
            parts = torch.split(torch.arange(len(images)), BATCH)
            total = sum(float(divergence(part)) * len(part) for part in parts)
        return total / len(images)

    before = over_all()
    size = min(BATCH, len(images))
    for _ in tqdm(range(steps), desc="outputs", disable=None if progress else True):
        loss = divergence(torch.randperm(len(images), generator=generator)[:size])
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        cosine.step()
        with torch.no_grad():
            for fit in fits.values():
                fit.factor.clamp_(min=0.1)
    after = over_all()
    if not np.isfinite(after):
        raise InputError(f"the fit of the outputs diverges at rate {rate:g}")
    layers = {name: fit.fitted() for name, fit in fits.items()}
    for layer in layers.values():
        write(network, layer)
    told = {"steps": steps, "rate": rate, "before": before, "after": after}
    meta = {**quantized.meta, "outputs": told}
    return replace(quantized, network=network, layers=layers, meta=meta)


def _images(batches: Iterable[Any], network: nn.Module) -> Tensor:
    parts = list(batches)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise InputError("fitting the outputs needs batches of images, as tensors")
    return like_weights(network, torch.cat(parts))


def _scores(model: nn.Module, images: Tensor) -> Tensor:
    scores = forward(model, like_weights(model, images))
    if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < 2:
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores)
        raise InputError(
            f"fitting the outputs needs class scores [B, C]; the network gives {given}"
        )
    return scores


def _fit_of(network: nn.Module, layer: QuantizedLayer) -> _Fit:
    module: Any = find_layer(network, layer.name)
    weight = module.weight.detach().clone()
    shared = layer.grid.granularity == "tensor"
    factor = torch.ones(1 if shared else len(layer.scale), 1).to(weight)
    factor.requires_grad_(layer.grid.granularity != "group")
    bias = None if module.bias is None else module.bias.detach().clone()
    if bias is not None:
        bias.requires_grad_()
    return _Fit(layer, weight, factor, bias)
