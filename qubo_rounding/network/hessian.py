"""The Hessian of the task loss, one block for each output row of a layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qubo_rounding.network.layers import (
    find_layer,
    forward,
    groups,
    like_weights,
    output_rows,
    refuse_non_finite,
    refuse_training,
    unfold,
    weight_rows,
)
from solvers.errors import InputError
from solvers.memory import require_memory
from solvers.threads import one_blas_thread

Array = NDArray[np.float64]


def fisher_blocks(
    network: nn.Module, layer_name: str, batches: Iterable[Tensor], seed: int = 0
) -> Array:
    """Row blocks H_r = E[Σ_p (∂ℓ/∂z_rp)² x_p x_pᵀ] of the task loss.

    The Hessian of the loss with respect to a row's weights is E[∇²_z ℓ · x xᵀ]
    (AdaRound, Nagel et al. 2020, eq. 17-18). Its curvature ∇²_z ℓ is replaced by the
    Gauss-Newton (Fisher) diagonal (∂ℓ/∂z_r)², where ℓ is the cross-entropy to a
    label sampled from the network's own softmax. Sums run over the output positions
    of an image, the mean over images; cross terms between positions are dropped.

    Parameters
    ----------
    network
        A classifier in eval mode with logits ``[N, classes]``.
    layer_name
        Name of the layer, as in `qubo_rounding.network.layers.find_layer`.
    batches
        Inputs of the network. How they are split does not change the labels.
    seed
        Seed of the generator that samples the labels.

    Returns
    -------
    ``float64[R, n, n]``, symmetric and positive semi-definite.

    Raises
    ------
    InputError
        If the blocks do not fit in the available memory, there are no images, the
        outputs are not finite logits, or the layer is not called exactly once.
    """
    module = find_layer(network, layer_name)
    refuse_training(network)
    rows, n = weight_rows(module).shape
    require_memory(
        f"the Fisher blocks of layer {layer_name!r} ({rows} x {n}² x 8 bytes)",
        8 * rows * n * n,
        "take a smaller layer or the objective second-moment",
    )
    blocks = np.zeros((rows, n, n))
    generator = torch.Generator().manual_seed(seed)
    images = 0
    for batch in batches:
        batch = like_weights(network, batch)
        x, gradient = _inputs_and_gradients(
            network, module, layer_name, batch, generator
        )
        per_image = zip(torch.split(x, 1), torch.split(gradient, 1), strict=True)
        with one_blas_thread(n):
            # One image at a time: columns of a whole batch may be gigabytes.
            for own_x, own_gradient in per_image:
                columns = unfold(module, own_x).cpu().double().numpy()
                slopes = output_rows(module, own_gradient).cpu().double().numpy()
                _accumulate(blocks, columns, slopes, groups(module))
        images += len(batch)
    if images == 0:
        raise InputError(
            f"no images to compute the Fisher blocks of {layer_name!r} from"
        )
    blocks /= images
    return blocks


def _accumulate(blocks: Array, columns: Array, slopes: Array, groups: int) -> None:
    """Add Σ_p slope² x xᵀ of one image to each row's block."""
    for r, slope in enumerate(slopes):
        # After a max-pool or a ReLU most positions have no slope at all.
        active = np.flatnonzero(slope)
        scaled = columns[r * groups // len(blocks)][:, active] * slope[active]
        blocks[r] += scaled @ scaled.T


def _inputs_and_gradients(
    network: nn.Module,
    module: nn.Module,
    layer_name: str,
    batch: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return the layer's inputs and, per image, ∂ℓ/∂z of its output z."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def restart(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if outputs:
            raise InputError(
                f"layer {layer_name!r} is called more than once in a forward pass; "
                "its Fisher blocks are not supported"
            )
        refuse_non_finite(args[0], layer_name)
        # The graph starts here: nothing before the layer is differentiated. The copy
        # lets what follows work in place.
        inputs.append(args[0].detach().clone())
        outputs.append(output.detach().requires_grad_())
        return outputs[0].clone()

    handle = module.register_forward_hook(restart)
    try:
        with torch.enable_grad():
            logits = forward(network, batch)
    finally:
        handle.remove()
    if not outputs:
        raise InputError(
            f"the network never calls layer {layer_name!r} in a forward pass"
        )
    _refuse_logits(logits, len(batch))
    labels = _sample_labels(logits.detach(), generator)
    # Summed, not averaged: in eval mode each image then has its own gradient.
    loss = F.cross_entropy(logits, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, outputs[0])
    return inputs[0], gradient


def _sample_labels(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One label per row by inverting the distribution function of the softmax.

    A uniform number per image, in order: the split into batches does not matter.
    """
    cumulative = logits.cpu().double().softmax(dim=1).cumsum(dim=1)
    uniform = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64)
    draws = uniform * cumulative[:, -1:]
    return torch.searchsorted(cumulative, draws, right=True)[:, 0].to(logits.device)


def _refuse_logits(logits: Any, images: int) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != images:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else "no tensor"
        raise InputError(
            "Fisher blocks need a classifier with logits [images, classes]; the "
            f"network returns {type(logits).__name__} ({shape})"
        )
    if not torch.isfinite(logits).all():
        raise InputError("the network's logits hold NaN or inf")
