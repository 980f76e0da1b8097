"""Quantized networks as ONNX graphs with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qubo_rounding.network.export.layout import (
    require_suffix,
    require_whole,
    store,
    write,
)
from qubo_rounding.network.layers import find_layer, like_weights, refuse_training
from qubo_rounding.network.messages import first_line
from qubo_rounding.network.whole.result import QuantizedLayer, QuantizedNetwork
from solvers.checks import as_path
from solvers.errors import InputError

SUFFIX = ".onnx"
# The first with integers of 4 bits and with blocks of columns.
OPSET = 21
# The only width that torch's exporter turns into QuantizeLinear.
_ACTIVATION_BITS = 8


def export_onnx(
    path: Path | str, quantized: QuantizedNetwork, example: Tensor | tuple[Tensor, ...]
) -> None:
    """Write a quantized network as an ONNX graph of opset 21, whole or not at all.

    torch's exporter writes the graph; the weights in it become the integers, each with
    a DequantizeLinear: int4 or uint4 up to 4 bits, int8 or uint8 above, unsigned where
    the grid is asymmetric. Groups are blocks of a matrix [rows, columns], which is then
    reshaped to the weight. Rounded activations are pairs of QuantizeLinear and
    DequantizeLinear.

    Parameters
    ----------
    path
        The file, ending in ``.onnx``.
    quantized
        The network.
    example
        What the network is given: a batch, or one for each of its inputs. The first
        axis of each is that of the batch, whose length the graph leaves open.

    Raises
    ------
    InputError
        The extra ``onnx`` is not installed; the path cannot be written; the network is
        not what its integers say; activations are not of 8 bits; torch cannot export
        the network.
    """
    path = as_path(path)
    require_suffix(path, SUFFIX)
    require_whole(quantized)
    refuse_training(quantized.network)
    for name, r in quantized.activations.items():
        if r.bits != _ACTIVATION_BITS:
            raise InputError(
                f"the activations {name!r} have {r.bits} bits; ONNX export takes those "
                f"of {_ACTIVATION_BITS}"
            )
    program = _float_program(quantized, example)
    graph = program.model.graph
    for name, layer in quantized.layers.items():
        _dequantize(graph, layer, _parameter_names(quantized, name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program.optimize()
    try:
        content = program.model_proto.SerializeToString()
    except Exception as error:  # protobuf's own, for more than 2 GiB
        raise InputError(f"cannot write {path}: {first_line(error)}") from error
    write(path, SUFFIX, content)


def _float_program(
    quantized: QuantizedNetwork, example: Tensor | tuple[Tensor, ...]
) -> Any:
    """What torch's exporter makes of the network, its weights in full."""
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(
            "ONNX export needs more packages: pip install 'qubo-rounding[onnx]'"
        ) from None
    inputs = example if isinstance(example, tuple) else (example,)
    # Of one example the exporter would take the length of the batch for a constant.
    inputs = tuple(
        like_weights(quantized.network, torch.cat([x, x]) if len(x) == 1 else x)
        for x in inputs
    )
    batch = torch.export.Dim("batch")
    try:
        # What the exporter warns of is its own code.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                quantized.network,
                inputs,
                dynamo=True,
                # Weights must keep their names until they are integers.
                optimize=False,
                opset_version=OPSET,
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                custom_translation_table={
                    torch.ops.qubo_rounding.round_to_grid.default: _round_to_grid
                },
                verbose=False,
            )
    except Exception as error:  # it runs the network's own code
        raise InputError(
            f"torch cannot export {type(quantized.network).__name__} to ONNX: "
            f"{first_line(error.__cause__ or error)}"
        ) from error


def _round_to_grid(x: Any, scale: float, zero_point: int, lo: int, hi: int) -> Any:
    """`qubo_rounding.network.whole.activations.round_to_grid` for 8 bits in ONNX."""
    import onnx_ir as ir
    from onnxscript import opset21

    integer = np.uint8 if lo == 0 else np.int8
    step = opset21.Constant(value=ir.tensor(np.float32(scale)))
    zero = opset21.Constant(value=ir.tensor(integer(zero_point)))
    return opset21.DequantizeLinear(opset21.QuantizeLinear(x, step, zero), step, zero)


def _parameter_names(quantized: QuantizedNetwork, layer: str) -> list[str]:
    """All names of a layer's weight, which other modules may share."""
    weight = find_layer(quantized.network, layer).weight
    named = quantized.network.named_parameters(remove_duplicate=False)
    return [name for name, parameter in named if parameter is weight]


def _dequantize(graph: Any, layer: QuantizedLayer, names: list[str]) -> None:
    """Replace a float weight in the graph by integers that are dequantized."""
    import ml_dtypes
    import onnx_ir as ir

    stored = store(layer)
    integers: Any = stored.integers
    grouped = layer.grid.group_size is not None
    if not grouped:
        integers = integers.reshape(layer.shape)
    if layer.grid.bits <= 4:
        integers = integers.astype(
            ml_dtypes.int4 if layer.grid.symmetric else ml_dtypes.uint4
        )
    scale, zero_point = stored.scale, stored.zero_point
    attributes = {"axis": 0}
    if grouped:
        blocks = min(layer.grid.group_size or 1, integers.shape[1])
        attributes = {"axis": 1, "block_size": blocks}
    elif layer.grid.granularity == "tensor":
        scale = scale.reshape(())
        zero_point = None if zero_point is None else zero_point.reshape(())
    arrays = [(".integers", integers), (".scale", scale)]
    if zero_point is not None:
        arrays.append((".zero_point", zero_point.astype(integers.dtype)))
    found = [name for name in names if name in graph.initializers]
    if not found:
        raise InputError(
            f"torch's exporter left no weight of layer {layer.name!r} in the graph"
        )
    inputs = []
    for suffix, array in arrays:
        value = ir.Value(name=names[0] + suffix, const_value=ir.tensor(array))
        graph.register_initializer(value)
        inputs.append(value)
    nodes = [ir.node("DequantizeLinear", inputs, attributes)]
    if grouped and len(layer.shape) > 2:
        shape = np.array(layer.shape, np.int64)
        target = ir.Value(name=names[0] + ".shape", const_value=ir.tensor(shape))
        graph.register_initializer(target)
        nodes.append(ir.node("Reshape", [nodes[0].outputs[0], target]))
    graph.insert_before(graph[0], nodes)
    for name in found:
        weight = graph.initializers.pop(name)
        weight.replace_all_uses_with(nodes[-1].outputs[0])
