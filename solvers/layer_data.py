"""`LayerData`: a layer's outputs as a function of its weights, for solvers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from solvers.checks import read_only

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
        The weights at state 0, read-only; at a state x they are ``floor + scale * x``.
    images
        Number of calibration images.
    outputs
        ``(rows [R, n], images [B]) -> [B, R, positions]``: the layer's outputs for the
        given images, by index, with the given rows as its weights; with the bias and
        before the activation. Differentiable in the rows, which may be of any
        floating-point type and on any device. The layer's inputs are those that it will
        see once the layers before it are rounded. Row r of the outputs depends on row r
        of the weights alone.
    targets
        ``(images [B]) -> [B, R, positions]``: the original layer's outputs on the
        original inputs, with the type and device of those of `outputs`.
    activation
        The elementwise function that the network applies to the outputs, never in
        place; None where another operation, such as an addition, comes first.
    """

    floor: NDArray[np.float64]
    images: int
    outputs: Callable[[Tensor, Tensor], Tensor]
    targets: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "floor", read_only(self.floor))
