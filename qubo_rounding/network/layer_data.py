"""Calibration data of a layer, for solvers that minimise more than a quadratic form."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from qubo_rounding.network.exposed import Exposed, plain_layer
from qubo_rounding.network.folding import FoldedNorm, trace
from qubo_rounding.network.layer_rows import groups, weight_rows
from qubo_rounding.network.layers import capture_inputs, find_layer, paired_inputs
from qubo_rounding.problem.problem import RoundingProblem
from solvers.errors import InputError
from solvers.layer_data import LayerData
from solvers.memory import require_memory

# Modules that act on each output alone and hold no weights.
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.SiLU,
    nn.GELU,
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.Tanh,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.ELU,
    nn.Mish,
    nn.Softplus,
)
FUNCTIONS: dict[object, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu_": F.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    F.relu: F.relu,
    torch.relu: F.relu,
    F.relu6: F.relu6,
    F.hardswish: F.hardswish,
    F.silu: F.silu,
    F.mish: F.mish,
    F.hardsigmoid: F.hardsigmoid,
    F.sigmoid: torch.sigmoid,
    torch.sigmoid: torch.sigmoid,
    F.tanh: torch.tanh,
    torch.tanh: torch.tanh,
}
# Modules that leave their input as it is when a network is not in training.
PASS_THROUGH = (nn.Identity, nn.Dropout, nn.Dropout2d, FoldedNorm)


def layer_data(
    network: nn.Module,
    layer: str,
    batches: Iterable[Tensor],
    problem: RoundingProblem,
    reference: nn.Module | None = None,
) -> list[LayerData]:
    """`LayerData` of a layer, one for each of ``problem.to_qubos()``.

    Parameters
    ----------
    network
        In eval mode, batch norms folded; earlier layers with the weights that they
        will have after rounding.
    layer
        Name of the layer, as in `find_layer`.
    batches
        Calibration images. The layer's inputs for them are held in memory, on the
        network's device; a list lets the memory be estimated before all are captured.
    problem
        The layer's rounding problem, for its output's error; its weights are those of
        the original layer.
    reference
        The original network, whose inputs of the layer give the targets; by default
        `network`.

    Raises
    ------
    InputError
        If the problem is not the layer's, or its objective is not the error of the
        layer's output; if memory does not suffice; on what `capture_inputs` refuses.
    """
    original = find_layer(network if reference is None else reference, layer)
    _require_match(problem, original, layer)
    inputs, sources = _captured_inputs(network, layer, batches, reference)
    return data_of_inputs(network, layer, problem, inputs, sources, original)


def data_of_inputs(
    network: nn.Module,
    layer: str,
    problem: RoundingProblem,
    inputs: list[Tensor],
    sources: list[Tensor],
    original: nn.Module,
) -> list[LayerData]:
    """`LayerData` of a layer whose inputs are known.

    Parameters
    ----------
    network, layer, problem
        As in `layer_data`.
    inputs, sources
        The layer's inputs in the network and in the original one, a tensor per image.
    original
        The layer in the original network.

    Raises
    ------
    InputError
        If the problem is not the layer's, or its objective is not the error of the
        layer's output.
    """
    module = find_layer(network, layer)
    count = groups(module)
    _require_match(problem, original, layer)
    activation = following_activation(network, layer)
    floor = (problem.scale * problem.base).reshape(count, -1, problem.n)
    weight = problem.weight.reshape(floor.shape)
    data = []
    for g in range(count):
        rounded = _Part.of(module, g, inputs)
        full = _Part.of(original, g, sources)
        rows = torch.tensor(weight[g])
        data.append(
            LayerData(
                floor=floor[g],
                images=len(inputs),
                outputs=rounded,
                targets=functools.partial(full, rows),
                activation=activation,
            )
        )
    return data


@dataclass(frozen=True, eq=False)
class _Part:
    """One group of a layer, with the inputs of the whole layer.

    Attributes
    ----------
    layer
        A plain layer of the group's size, without weights.
    bias : [R], optional
    channels
        The channels of the inputs that belong to the group.
    inputs
        One tensor per image.
    """

    layer: nn.Module
    bias: Tensor | None
    channels: slice
    inputs: list[Tensor]

    @classmethod
    def of(cls, module: nn.Module, group: int, inputs: list[Tensor]) -> _Part:
        """The group of index `group` of a supported layer."""
        bias = _detached(module.bias)
        biased = bias is not None
        if isinstance(module, nn.Linear):
            sizes = module.in_features, module.out_features
            whole = nn.Linear(*sizes, bias=biased, device="meta")
            return cls(whole, bias, slice(None), inputs)
        conv_class = next(
            k for k in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(module, k)
        )
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        inputs_per_group, outputs_per_group = (
            channels // module.groups
            for channels in (module.in_channels, module.out_channels)
        )
        part = conv_class(
            inputs_per_group,
            outputs_per_group,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            bias=biased,
            padding_mode=module.padding_mode,
            device="meta",
        )
        rows = slice(group * outputs_per_group, (group + 1) * outputs_per_group)
        return cls(
            part,
            None if bias is None else bias[rows],
            slice(group * inputs_per_group, (group + 1) * inputs_per_group),
            inputs,
        )

    def __call__(self, rows: Tensor, images: Tensor) -> Tensor:
        """Outputs [B, R, positions] of the group with `rows` [R, n] as its weights."""
        x = torch.stack([self.inputs[i] for i in images.tolist()])
        linear = isinstance(self.layer, nn.Linear)
        if not linear:
            x = x[:, self.channels]
        shape = self.layer.get_parameter("weight").shape
        parameters = {"weight": rows.to(x.device, x.dtype).reshape(shape)}
        if self.bias is not None:
            parameters["bias"] = self.bias
        out: Tensor = torch.func.functional_call(self.layer, parameters, (x,))
        if linear:
            out = out.reshape(len(x), -1, out.shape[-1]).transpose(1, 2)
        return out.flatten(2)


def following_activation(
    network: nn.Module, layer: str
) -> Callable[[Tensor], Tensor] | None:
    """The activation that takes the layer's output, made never to work in place.

    None where the output goes elsewhere first or to several places, and where torch.fx
    cannot trace the network. Folded batch norms and dropout are passed over.
    """
    module = find_layer(network, layer)
    try:
        graph = trace(network)
    except InputError:
        return None
    calls = [
        (node, outer)
        for node in graph.nodes
        if node.op == "call_module"
        and plain_layer(outer := network.get_submodule(str(node.target))) is module
    ]
    # A layer that runs several times may be followed by several operations.
    if len(calls) != 1:
        return None
    node, outer = calls[0]
    if isinstance(outer, Exposed) and not outer.bare:
        return None
    return _activation_after(network, node)


def _activation_after(
    network: nn.Module, node: fx.Node
) -> Callable[[Tensor], Tensor] | None:
    while len(node.users) == 1:
        (node,) = node.users
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            if isinstance(module, ACTIVATIONS):
                return _not_in_place(module)
            if isinstance(module, PASS_THROUGH):
                continue
            return None
        if node.op in ("call_function", "call_method"):
            known = FUNCTIONS.get(node.target)
            # The one argument that these take beside the input is "in place".
            return known if len(node.all_input_nodes) == 1 else None
        return None
    return None


def _not_in_place(module: nn.Module) -> nn.Module:
    changed: Any = copy.deepcopy(module)
    if hasattr(changed, "inplace"):
        changed.inplace = False
    return cast(nn.Module, changed)


def _require_match(problem: RoundingProblem, original: nn.Module, layer: str) -> None:
    rows, count = weight_rows(original), groups(original)
    if problem.weight.shape != rows.shape or not np.allclose(
        problem.weight, rows, rtol=1e-5, atol=1e-7
    ):
        raise InputError(
            f"the problem's weights {problem.weight.shape} are not those of layer "
            f"{layer!r} {rows.shape}"
        )
    objective = problem.meta.get("objective", "second-moment")
    if objective != "second-moment" or problem.blocks.shape[:2] != (count, problem.n):
        raise InputError(
            f"layer data are for the error of a layer's output; the problem of layer "
            f"{layer!r} asks for something else (objective {objective}, moment "
            f"{problem.moment.shape})"
        )


def _captured_inputs(
    network: nn.Module,
    layer: str,
    batches: Iterable[Tensor],
    reference: nn.Module | None,
) -> tuple[list[Tensor], list[Tensor]]:
    """The layer's inputs in the network and in the reference, if there is one.

    One tensor per image and call of the layer.
    """
    batch_count = len(batches) if isinstance(batches, Sized) else None
    inputs: list[Tensor] = []
    sources = inputs if reference is None else []
    pairs: Iterable[tuple[Tensor, ...]] = (
        ((x,) for x in capture_inputs(network, layer, batches))
        if reference is None
        else (
            (x_hat, x) for x, x_hat in paired_inputs(reference, network, layer, batches)
        )
    )
    for pair in pairs:
        if batch_count is None or not inputs:
            pair_bytes = sum(x.numel() * x.element_size() for x in pair)
            require_memory(
                f"the inputs of layer {layer!r}",
                (batch_count or 1) * pair_bytes,
                "take fewer images",
            )
        for x, kept in zip(pair, (inputs, sources), strict=False):
            if kept and x.shape[1:] != kept[0].shape:
                raise InputError(
                    f"layer {layer!r} is given inputs of {tuple(kept[0].shape)} and of "
                    f"{tuple(x.shape[1:])}; layer data need one shape"
                )
            # They may be views of what the network overwrites next.
            kept.extend(x.detach().clone())
    if not inputs:
        raise InputError(f"no images to take the inputs of layer {layer!r} from")
    return inputs, sources


def _detached(bias: object) -> Tensor | None:
    return bias.detach() if isinstance(bias, Tensor) else None
