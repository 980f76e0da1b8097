"""A layer's integers, scales and zero points as files hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qubo_rounding.network.layers import find_layer, weight_rows
from qubo_rounding.network.whole.result import QuantizedLayer, QuantizedNetwork
from qubo_rounding.problem.grid import Grid
from solvers.atomic import replacing
from solvers.errors import InputError

Integers = NDArray[np.int8] | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Stored:
    """A layer's weights as files hold them: ``scale * (integers - zero_point)``.

    Attributes
    ----------
    integers : int8 or uint8 [R, n]
        int8 of a symmetric grid, uint8 of an asymmetric one.
    scale : float32 [1], [R] or [R, groups]
        One per tensor, per row, or per group of a row's columns.
    zero_point : uint8, shape of `scale`, optional
        The integer of zero, of an asymmetric grid.
    """

    integers: Integers
    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8] | None


def store(layer: QuantizedLayer) -> Stored:
    """The layer's numbers in their smallest form.

    Raises
    ------
    InputError
        The layer contradicts itself: its numbers are not those of its grid.
    """
    grid, name = layer.grid, layer.name
    lo = np.broadcast_to(layer.lo, layer.codes.shape)
    hi = np.broadcast_to(layer.hi, layer.codes.shape)
    if not ((lo <= layer.codes) & (layer.codes <= hi)).all():
        raise InputError(f"layer {name!r}: codes must lie between lo and hi")
    lowest, levels = _limits(grid)
    fits = (lo <= 0) & (hi >= 0) & (hi - lo == levels)
    if grid.symmetric:
        fits &= lo == lowest
    if not fits.all():
        raise InputError(
            f"layer {name!r}: lo and hi are not those of a grid of {grid.bits} bits"
        )
    scale = layer.scale.astype(np.float32)
    if not (np.isfinite(scale) & (scale > 0) & (scale == layer.scale)).all():
        raise InputError(f"layer {name!r}: every scale must be a positive float32")
    if grid.symmetric:
        integers: Integers = layer.codes.astype(np.int8)
        zero_point = None
    else:
        integers = (layer.codes - lo).astype(np.uint8)
        zero_point = _compact(layer, "lo", -lo.astype(np.int64)).astype(np.uint8)
    return Stored(integers, _compact(layer, "scale", scale), zero_point)


def restore(
    name: str,
    shape: tuple[int, ...],
    grid: Grid,
    stored: Stored,
    bias: NDArray[np.float32] | None,
) -> QuantizedLayer:
    """The layer of which `stored` was made, in `Stored`'s types and shapes.

    Raises
    ------
    InputError
        Numbers that are not those of the grid.
    """
    scale = _expand(stored.scale.astype(np.float64), grid, shape)
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise InputError("scales must be positive and finite")
    lowest, levels = _limits(grid)
    if stored.zero_point is None:
        lo = np.full((1, 1), lowest, np.int32)
        codes = stored.integers.astype(np.int16)
    else:
        if stored.zero_point.max() > levels:
            raise InputError(f"zero points must be at most {levels}")
        lo = -_expand(stored.zero_point.astype(np.int32), grid, shape)
        codes = (stored.integers + lo).astype(np.int16)
    hi = lo + np.int32(levels)
    if not ((lo <= codes) & (codes <= hi)).all():
        raise InputError(f"integers must be those of {grid.bits} bits")
    return QuantizedLayer(name, shape, grid, codes, scale, lo, hi, bias)


def scale_shape(grid: Grid, rows: int, n: int) -> tuple[int, ...]:
    """Shape of a layer's scales as they are stored."""
    if grid.granularity == "tensor":
        return (1,)
    if grid.group_size is None:
        return (rows,)
    return rows, -(-n // grid.group_size)


def requantize(
    weight: NDArray[np.floating[Any]], layer: QuantizedLayer
) -> NDArray[np.int16]:
    """The integers [R, n] that are nearest to weights, on the layer's grid."""
    codes: NDArray[np.int16] = np.clip(
        np.rint(weight / layer.scale), layer.lo, layer.hi
    ).astype(np.int16)
    return codes


def require_whole(quantized: QuantizedNetwork) -> None:
    """Refuse a network that is not what its integers say, or does not give them back.

    Raises
    ------
    InputError
        A layer's weights or bias in the network are others than those of `layers`, or
        rounding them again gives other integers.
    """
    for name, layer in quantized.layers.items():
        module: Any = find_layer(quantized.network, name)
        if tuple(module.weight.shape) != layer.shape:
            raise InputError(
                f"layer {name!r} has weights of shape {tuple(module.weight.shape)} in "
                f"the network and {layer.shape} in its integers"
            )
        if module.weight.dtype != torch.float32:
            raise InputError(
                f"layer {name!r} has weights of {module.weight.dtype}; files hold "
                "those of torch.float32"
            )
        rows = weight_rows(module)
        if not np.array_equal(rows, layer.weight().astype(np.float32)):
            raise InputError(
                f"layer {name!r}: the network's weights are not scale times codes"
            )
        if not np.array_equal(requantize(rows, layer), layer.codes):
            raise InputError(
                f"layer {name!r}: rounding the weights again gives other integers"
            )
        bias = None if module.bias is None else module.bias.detach().cpu().numpy()
        if bias is None or layer.bias is None:
            same = bias is layer.bias
        else:
            same = np.array_equal(bias, layer.bias)
        if not same:
            raise InputError(f"layer {name!r}: the network has another bias")


def own_tensors(
    network: nn.Module, layers: Mapping[str, QuantizedLayer]
) -> dict[str, torch.Tensor]:
    """Parameters and buffers that are not a quantized layer's weight or bias.

    What several modules share is there once, under its first name.
    """
    taken = set()
    for name in layers:
        module: Any = find_layer(network, name)
        taken |= {id(module.weight), id(module.bias)}
    everything = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor for name, tensor in everything if id(tensor) not in taken}


def write(path: Path, suffix: str, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    InputError
        The path has another suffix or cannot be written.
    """
    require_suffix(path, suffix)
    with replacing(path) as partial:
        partial.write_bytes(content)


def require_suffix(path: Path, suffix: str) -> None:
    """Refuse names of files that end in anything else."""
    if path.suffix != suffix:
        raise InputError(f"{path}: the name of this file must end in {suffix}")


def _limits(grid: Grid) -> tuple[int, int]:
    """The lowest integer of a symmetric grid, and the number of steps of any."""
    return -(2 ** (grid.bits - 1)) + grid.restricted, 2**grid.bits - 1 - grid.restricted


def _compact(layer: QuantizedLayer, field: str, values: NDArray[Any]) -> NDArray[Any]:
    """One number per tensor, row or group, of an array that repeats them."""
    grid = layer.grid
    rows, n = layer.codes.shape
    values = np.broadcast_to(values, (rows, n))
    if grid.granularity == "tensor":
        small = values[:1, 0]
    elif grid.granularity == "channel":
        small = values[:, 0]
    else:
        small = values[:, :: grid.group_size]
    if not (_expand(small, grid, layer.shape) == values).all():
        raise InputError(
            f"layer {layer.name!r}: {field} is not one per {grid.granularity}, as its "
            f"grid says"
        )
    return np.ascontiguousarray(small)


def _expand(small: NDArray[Any], grid: Grid, shape: tuple[int, ...]) -> NDArray[Any]:
    """[R, 1] or [R, n] of what is stored per tensor, row or group."""
    if grid.group_size is None:
        return np.ascontiguousarray(np.broadcast_to(small, shape[:1])[:, None])
    n = math.prod(shape[1:])
    return np.repeat(small, min(grid.group_size, n), axis=1)[:, :n]
