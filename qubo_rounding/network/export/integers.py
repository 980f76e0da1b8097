"""Quantized networks in ``.safetensors`` files; docs/formats.md has the layout."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qubo_rounding.network.export.layout import (
    Stored,
    own_tensors,
    require_suffix,
    require_whole,
    restore,
    scale_shape,
    store,
    write,
)
from qubo_rounding.network.layers import find_layer, set_weight_rows
from qubo_rounding.network.messages import first_line
from qubo_rounding.network.prepare import prepare
from qubo_rounding.network.whole.activations import round_activations
from qubo_rounding.network.whole.ranges import ActivationRange
from qubo_rounding.network.whole.result import QuantizedLayer, QuantizedNetwork
from qubo_rounding.problem.grid import Grid
from solvers.checks import as_path, is_whole
from solvers.errors import InputError, UnknownNameError, shown

VERSION = 1
SUFFIX = ".safetensors"
_HEADER = "quantized_network"
_PACKED_BITS = 4


def save_quantized(path: Path | str, quantized: QuantizedNetwork) -> None:
    """Write a quantized network to a ``.safetensors`` file, whole or not at all.

    The file holds every number of the network: the integers, scales, zero points and
    biases of the quantized layers, the ranges of rounded activations, and all other
    parameters and buffers as they are. It does not hold the layers' ``report``.

    Raises
    ------
    InputError
        The path cannot be written; the network is not what its integers say, or
        rounding its weights again would give other integers; ``meta`` is not JSON.
    """
    path = as_path(path)
    require_suffix(path, SUFFIX)
    require_whole(quantized)
    tensors: dict[str, Tensor] = {}
    described = {}
    for name, layer in quantized.layers.items():
        stored = store(layer)
        integers = stored.integers
        if layer.grid.bits <= _PACKED_BITS:
            integers = pack(integers)
        arrays = {
            "codes": integers,
            "scale": stored.scale,
            "zero_point": stored.zero_point,
            "bias": layer.bias,
        }
        for kind, array in arrays.items():
            if array is not None:
                tensors[f"{kind}/{name}"] = torch.from_numpy(array.copy())
        described[name] = {
            "shape": list(layer.shape),
            "bias": layer.bias is not None,
            "grid": dataclasses.asdict(layer.grid),
        }
    for name, tensor in own_tensors(quantized.network, quantized.layers).items():
        # Parameters may be views of one storage, which the format has no word for.
        tensors[f"other/{name}"] = tensor.detach().cpu().contiguous().clone()
    header = {
        "version": VERSION,
        "layers": described,
        "activations": {
            name: dataclasses.asdict(r) for name, r in quantized.activations.items()
        },
        "meta": dict(quantized.meta),
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the meta of this network cannot be written as JSON: {first_line(error)}"
        ) from None
    write(path, SUFFIX, safetensors.torch.save(tensors, {_HEADER: text}))


def load_quantized(
    path: Path | str, network: nn.Module, example: Tensor | None = None
) -> QuantizedNetwork:
    """Read what `save_quantized` wrote.

    Parameters
    ----------
    path
        The file.
    network
        A network of the same architecture, its batch norms not folded, with any
        weights; it stays as it is. Outputs are the same to the last bit if its weights
        have the same memory layout as those of the network that was saved.
    example
        An input, for networks with layers of classes of their own (`prepare`).

    Raises
    ------
    InputError
        The file cannot be read, is not of this format and version or contradicts
        itself, or the network is of another architecture.
    """
    path = as_path(path)
    header, tensors = _read(path)
    layers = {
        name: _layer(path, name, entry, tensors)
        for name, entry in header["layers"].items()
    }
    ranges = {
        name: _range(path, name, entry) for name, entry in header["activations"].items()
    }
    loaded = prepare(network, example, unsupported="skip").network
    try:
        # First, since tracing drops parameters that no forward pass reads.
        if ranges:
            loaded = round_activations(loaded, ranges)
        for layer in layers.values():
            _set_layer(loaded, layer)
        _set_others(loaded, layers, tensors)
    except InputError as error:
        raise InputError(f"{path} does not fit this network: {error}") from None
    if tensors:
        raise InputError(f"{path}: tensor {min(tensors)!r} belongs to no layer")
    return QuantizedNetwork(loaded, layers, header["meta"], ranges)


def pack(integers: NDArray[Any]) -> NDArray[np.uint8]:
    """Pack integers [R, n] of 4 bits two a byte, [R, ceil(n / 2)].

    The even column is the lower half of the byte; signed integers are two's
    complements; the half behind an odd last column is 0.
    """
    halves = integers.astype(np.uint8) & 15
    halves = np.pad(halves, ((0, 0), (0, halves.shape[1] % 2)))
    return np.asarray(halves[:, ::2] | halves[:, 1::2] << 4)


def unpack(packed: NDArray[np.uint8], n: int, signed: bool) -> NDArray[Any]:
    """The integers [R, n], int8 or uint8, that `pack` packed."""
    halves = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), -1)
    if halves[:, n:].any():
        raise InputError("what is packed behind the last column must be 0")
    halves = np.ascontiguousarray(halves[:, :n])
    return (halves.astype(np.int8) ^ 8) - np.int8(8) if signed else halves


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a file."""
    require_suffix(path, SUFFIX)
    if not path.is_file():
        raise InputError(f"quantized network {path} does not exist")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"cannot read {path}: {first_line(error)}") from error
    if text is None:
        raise InputError(
            f"{path} is not a quantized network: its metadata have no {_HEADER!r}"
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: the header is not JSON ({error})") from None
    version = header.get("version") if isinstance(header, dict) else None
    if version != VERSION:
        raise InputError(
            f"{path} is of version {shown(version)} of the format; this release reads "
            f"version {VERSION}"
        )
    for name in ("layers", "activations", "meta"):
        if not isinstance(header.get(name), dict):
            raise InputError(f"{path}: the header's {name!r} must be a JSON object")
    return header, tensors


def _layer(
    path: Path, name: str, entry: Any, tensors: dict[str, Tensor]
) -> QuantizedLayer:
    """A layer out of its entry in the header and its tensors, which are taken."""
    where = f"{path}, layer {name!r}"
    if not (isinstance(entry, dict) and entry.keys() == {"shape", "bias", "grid"}):
        raise InputError(f"{where}: the header must have its shape, bias and grid")
    shape = entry["shape"]
    if not (
        isinstance(shape, list)
        and len(shape) >= 2
        and all(is_whole(length) and length > 0 for length in shape)
    ):
        raise InputError(f"{where}: {shown(shape)} is no shape of a weight")
    try:
        grid = Grid(**entry["grid"])
    except (TypeError, InputError) as error:
        raise InputError(f"{where}: {first_line(error)}") from None
    rows, n = shape[0], math.prod(shape[1:])
    packed = grid.bits <= _PACKED_BITS
    kind = torch.int8 if grid.symmetric and not packed else torch.uint8
    small = scale_shape(grid, rows, n)

    def take(key: str, dtype: torch.dtype, expected: tuple[int, ...]) -> Any:
        tensor = tensors.pop(f"{key}/{name}", None)
        if tensor is None:
            raise InputError(f"{where}: the file has no tensor {f'{key}/{name}'!r}")
        if tensor.dtype != dtype or tensor.shape != expected:
            raise InputError(
                f"{where}: {key} must be {dtype} of shape {expected}, not "
                f"{tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        return tensor.numpy()

    integers = take("codes", kind, (rows, -(-n // 2) if packed else n))
    scale = take("scale", torch.float32, small)
    zero_point = None if grid.symmetric else take("zero_point", torch.uint8, small)
    bias = take("bias", torch.float32, (rows,)) if entry["bias"] else None
    try:
        if packed:
            integers = unpack(integers, n, grid.symmetric)
        stored = Stored(integers, scale, zero_point)
        return restore(name, tuple(shape), grid, stored, bias)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _range(path: Path, name: str, entry: Any) -> ActivationRange:
    try:
        return ActivationRange(**entry)
    except (TypeError, InputError) as error:
        raise InputError(f"{path}, activations {name!r}: {first_line(error)}") from None


def _set_layer(network: nn.Module, layer: QuantizedLayer) -> None:
    module: Any = find_layer(network, layer.name)
    shape = tuple(module.weight.shape)
    if shape != layer.shape:
        raise InputError(
            f"layer {layer.name!r} has weights of shape {shape}, the file has "
            f"{layer.shape}"
        )
    if module.weight.dtype != torch.float32:
        raise InputError(
            f"layer {layer.name!r} has weights of {module.weight.dtype}, the file has "
            "torch.float32"
        )
    set_weight_rows(module, layer.weight())
    bias = None
    if layer.bias is not None:
        bias = nn.Parameter(
            torch.from_numpy(layer.bias.copy()).to(module.weight.device),
            module.weight.requires_grad,
        )
    module.bias = bias


def _set_others(
    network: nn.Module, layers: Mapping[str, QuantizedLayer], tensors: dict[str, Tensor]
) -> None:
    """Set all other parameters and buffers to the file's tensors, which are taken."""
    others = {n: tensors.pop(n) for n in sorted(tensors) if n.startswith("other/")}
    others = {name.partition("/")[2]: tensor for name, tensor in others.items()}
    mine = own_tensors(network, layers)
    for name in others.keys() - mine.keys():
        raise UnknownNameError("parameter", name, mine)
    for name, tensor in mine.items():
        if name not in others:
            raise InputError(f"the file has no tensor {f'other/{name}'!r}")
        stored = others[name]
        if (stored.shape, stored.dtype) != (tensor.shape, tensor.dtype):
            raise InputError(
                f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, the file "
                f"has {stored.dtype} of shape {tuple(stored.shape)}"
            )
        with torch.no_grad():
            tensor.copy_(stored)
