"""Folding batch norms into the layer before them."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights

from qubo_rounding.network.exposed import Exposed, hides_layers, plain_layer
from qubo_rounding.network.messages import first_line
from solvers.errors import InputError

PAIRS = {
    (nn.Conv1d, nn.BatchNorm1d),
    (nn.Conv2d, nn.BatchNorm2d),
    (nn.Conv3d, nn.BatchNorm3d),
    (nn.Linear, nn.BatchNorm1d),
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class FoldedNorm(nn.Module):
    """What is left of a folded one-dimensional batch norm: the identity.

    ``BatchNorm1d`` normalises axis 1. For inputs of ``dimensions`` axes that is the
    axis of the output channels of the layer before it; for other inputs folding would
    have been wrong, so they are refused.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` unchanged."""
        if x.ndim != self.dimensions:
            raise InputError(
                f"a BatchNorm1d folded for inputs of {self.dimensions} axes was given "
                f"shape {tuple(x.shape)}; use the network with batch norms not folded"
            )
        return x


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, FoldedNorm) or hides_layers(m):
            return True
        return super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode, each batch norm folded into the layer before it.

    The network's own classes and module names stay; folded batch norms become
    identities, and parametrised weights become plain ones. A batch norm stays as it
    is where folding would not be exact: its input is not the output of a
    convolution or linear layer alone, that output has other users, one of the two
    runs more than once or has hooks, its parameters are read elsewhere, or it has
    no running statistics.

    Raises
    ------
    InputError
        If the network holds batch norms and torch.fx cannot trace it.
    """
    network = evaluation_copy(network)
    fold(network)
    return network


def evaluation_copy(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose parametrised weights are plain ones.

    Raises
    ------
    InputError
        If the network cannot be copied.
    """
    try:
        network = copy.deepcopy(network).eval()
    except RuntimeError as error:
        raise InputError(
            f"cannot copy {type(network).__name__} to fold its batch norms: "
            f"{first_line(error)}"
        ) from None
    for module in network.modules():
        if parametrize.is_parametrized(module):
            _bake(module)
    return network


def fold(network: nn.Module) -> None:
    """Fold batch norms, as `fold_batch_norms`, in a network in eval mode, in place."""
    if any(isinstance(module, BATCH_NORMS) for module in network.modules()):
        for layer_name, norm_name in _foldable(network):
            _fold(network, layer_name, norm_name)


def _bake(module: Any) -> None:
    """Replace the parametrised tensors by parameters with their present values."""
    # torch's remove_parametrizations deletes the property from the class, which a
    # deep copy shares with the original: it would break the caller's network.
    values = {name: getattr(module, name) for name in module.parametrizations}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        setattr(module, name, nn.Parameter(value.detach().clone()))


def _foldable(network: nn.Module) -> list[tuple[str, str]]:
    """Names of (layer, batch norm) pairs that can be folded exactly."""
    graph = trace(network)
    calls = Counter(
        id(network.get_submodule(str(node.target)))
        for node in graph.nodes
        if node.op == "call_module"
    )
    modules_read = {
        str(node.target).rpartition(".")[0]
        for node in graph.nodes
        if node.op == "get_attr"
    }
    pairs = []
    for norm_node in graph.nodes:
        if norm_node.op != "call_module" or len(norm_node.all_input_nodes) != 1:
            continue
        layer_node = norm_node.all_input_nodes[0]
        if layer_node.op != "call_module" or len(layer_node.users) != 1:
            continue
        names = str(layer_node.target), str(norm_node.target)
        outer = network.get_submodule(names[0])
        if isinstance(outer, Exposed) and not outer.bare:
            continue
        layer: Any = plain_layer(outer)
        norm: Any = network.get_submodule(names[1])
        if (
            (type(layer), type(norm)) in PAIRS
            and norm.running_mean is not None
            and norm.num_features == layer.weight.shape[0]
            and not modules_read & set(names)
            and not any(
                m._forward_hooks or m._forward_pre_hooks
                for m in (*outer.modules(), norm)
            )
            and calls[id(outer)] == calls[id(norm)] == 1
        ):
            pairs.append(names)
    return pairs


def trace(network: nn.Module, purpose: str = "fold the batch norms of") -> fx.Graph:
    """Graph of a forward pass in eval mode, layer by layer.

    Parameters
    ----------
    network
        In eval mode.
    purpose
        What cannot be done if this fails, for the message.

    Raises
    ------
    InputError
        If the network cannot be traced.
    """
    # Optional arguments take their defaults, as when the network is given images.
    parameters = list(inspect.signature(network.forward).parameters.values())
    defaults: dict[str, Any] = {
        p.name: p.default for p in parameters if p.default is not p.empty
    }
    try:
        return _Tracer().trace(network, concrete_args=defaults or None)
    except Exception as error:  # tracing runs the network's own code
        raise InputError(
            f"cannot {purpose} {type(network).__name__}: torch.fx cannot trace it "
            f"({first_line(error)})"
        ) from None


def _fold(network: nn.Module, layer_name: str, norm_name: str) -> None:
    layer: Any = plain_layer(network.get_submodule(layer_name))
    norm: Any = network.get_submodule(norm_name)
    weight, bias = fuse_conv_bn_weights(
        layer.weight.double(),
        None if layer.bias is None else layer.bias.double(),
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        None if norm.weight is None else norm.weight.double(),
        None if norm.bias is None else norm.bias.double(),
    )
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.detach().to(dtype), layer.weight.requires_grad)
    layer.bias = nn.Parameter(bias.detach().to(dtype), layer.weight.requires_grad)
    folded: nn.Module = nn.Identity()
    if isinstance(norm, nn.BatchNorm1d):
        folded = FoldedNorm(2 if isinstance(layer, nn.Linear) else 3)
    parent, _, child = norm_name.rpartition(".")
    setattr(network.get_submodule(parent), child, folded.eval())
