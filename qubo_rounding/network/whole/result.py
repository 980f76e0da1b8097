"""What quantizing a network gives: integers, scales and biases of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from qubo_rounding.network.whole.ranges import ActivationRange
from qubo_rounding.problem.grid import Grid

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A layer's weights as integers.

    Attributes
    ----------
    name
        The layer's name in ``network.named_modules()``.
    shape
        Shape of the layer's weight; its first axis are the rows.
    grid
        The grid, for its bits and granularity.
    codes : int16 [R, n]
        The integers, from lo to hi.
    scale : float64 [R, 1] or [R, n]
        Grid steps, every one of them a float32: the weights are the float32 products
        ``scale * codes``, which no rounding changes.
    lo, hi : int32, broadcastable to [R, n]
        The range of the integers. An asymmetric grid's zero point is ``-lo``.
    bias : float32 [R], optional
        The layer's bias.
    report
        How it was solved and what errors are left, see `quantize_network`.
    """

    name: str
    shape: tuple[int, ...]
    grid: Grid
    codes: NDArray[np.int16]
    scale: Array
    lo: NDArray[np.int32]
    hi: NDArray[np.int32]
    bias: NDArray[np.float32] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)

    def weight(self) -> Array:
        """The rounded weights [R, n]."""
        return np.asarray(self.scale * self.codes, np.float64)


@dataclass(frozen=True, eq=False)
class QuantizedNetwork:
    """A network whose layers have rounded weights, and perhaps rounded activations.

    Attributes
    ----------
    network
        The network in eval mode, batch norms folded, with the rounded weights.
    layers
        The quantized layers by name, in the order in which they were quantized.
    meta
        What was quantized and how: options, seeds, origin; can be written as JSON.
    activations
        Ranges of the activations that the network rounds, by place, see
        `quantize_activations`; none where all of them stay as they are.
    """

    network: nn.Module
    layers: Mapping[str, QuantizedLayer]
    meta: Mapping[str, Any] = field(default_factory=dict)
    activations: Mapping[str, ActivationRange] = field(default_factory=dict)
