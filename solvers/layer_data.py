"""`LayerData`: what a layer does with a row of weights, beside its quadratic form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class LayerData:
    """The calibration data of the layer that the rows of a batch belong to.

    A quadratic form knows the layer's inputs through their second moment alone. What is
    not quadratic, such as AdaRound's eq. (25) with the activation in the loss, needs
    the inputs themselves; these functions give their effect and hide the layer.

    Parameters
    ----------
    floor : float64 [R, n]
        The weights of state 0: those of a state x are ``floor + scale * x``.
    images
        Number of calibration images.
    outputs
        ``(rows [R, n], images [B]) -> [B, R, positions]``: what the layer gives for
        these images with these rows for weights, bias and all, before the activation;
        differentiable in the rows, which may be of any floating-point type and on any
        device. Its inputs are those that the layer will see, from the layers before it
        as they are rounded. Row r of the outputs depends on row r of the weights alone.
    targets
        ``(images [B]) -> [B, R, positions]``: what the original layer gives on the
        original inputs; of the type and on the device of `outputs`.
    activation
        What the network applies to each output alone, never in place; None where
        another operation, such as an addition, comes first.
    """

    floor: NDArray[np.float64]
    images: int
    outputs: Callable[[Tensor, Tensor], Tensor]
    targets: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor] | None = None
