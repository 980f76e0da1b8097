"""A network as a list of steps, in an order in which each layer can be rounded."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from qubo_rounding.network.batches import given
from qubo_rounding.network.folding import FoldedNorm, trace
from qubo_rounding.network.whole.capture import ADDITIONS, UNCHANGING
from solvers.errors import InputError

# Modules and functions whose result may share memory with their input.
ALIASING_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, FoldedNorm)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
ALIASING = {
    *("view", "view_as", "reshape", "flatten", "unflatten", "transpose", "permute"),
    *("contiguous", "squeeze", "unsqueeze", "expand", "expand_as", "chunk", "split"),
    *("unbind", "t", "detach", "to", "float", "narrow", "select", "movedim", "unfold"),
    *("getitem", "getattr", "swapaxes", "dropout", "stochastic_depth", "type_as"),
}


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as a list of steps.

    Attributes
    ----------
    root
        The module whose submodules the steps call.
    steps
        The nodes of the graph, each after those that it depends on. Of two branches
        that meet, the one with fewer layers comes first, so that the other can make up
        for its errors.
    traced
        Whether the steps are the network's operations; if not, the whole network is
        one step.
    reason
        Why it could not be traced, else "".
    defaults
        Values of the network's arguments other than the batch, by name.
    """

    root: nn.Module
    steps: list[fx.Node]
    traced: bool
    reason: str = ""
    defaults: Mapping[str, Any] | None = None

    def module(self, step: fx.Node) -> nn.Module | None:
        """The module that a step calls; None if it calls none."""
        if step.op != "call_module":
            return None
        return self.root.get_submodule(str(step.target))

    def addend(self, step: fx.Node) -> fx.Node | None:
        """What the output of a step is added to, once nothing else has changed it.

        None where it goes elsewhere first or to several places.
        """
        while len(step.users) == 1:
            (user,) = step.users
            if _called(user) in ADDITIONS:
                others = [a for a in user.args[:2] if a is not step]
                if len(others) == 1 and not user.kwargs:
                    other = others[0]
                    return other if isinstance(other, fx.Node) else None
                return None
            module = self.module(user)
            passes = isinstance(module, (nn.Identity, FoldedNorm, *DROPOUTS))
            if not passes and _called(user) not in UNCHANGING:
                return None
            step = user
        return None


class _Fed(nn.Module):
    """A network fed with batches; those that are mappings give arguments by name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Any) -> Any:
        """What the network makes of a batch."""
        return given(self.network, batch)


def whole(network: nn.Module, reason: str) -> Graph:
    """The network as a single step; `reason` says why it was not traced."""
    graph = fx.Graph()
    batch = graph.placeholder("batch")
    graph.output(graph.call_module("fed", (batch,)))
    root = nn.ModuleDict({"fed": _Fed(network)})
    return Graph(root, list(graph.nodes), False, reason)


def steps_of(network: nn.Module, layers: Mapping[str, nn.Module]) -> Graph:
    """The network's operations as steps, or the network as one step.

    It becomes one step where torch.fx cannot trace it, where one of the layers runs
    several times, and where an operation in place changes a value that is used again.

    Parameters
    ----------
    network
        In eval mode. Operations in place are replaced in it by others where that
        changes nothing.
    layers
        The layers to be rounded, by name.
    """
    try:
        graph = trace(network)
    except InputError as error:
        return whole(network, str(error))
    _drop_assertions(graph)
    nodes = list(graph.nodes)
    own = {id(layer) for layer in layers.values()}
    counts = dict.fromkeys(own, 0)
    holds: dict[fx.Node, int] = {}
    for node in nodes:
        holds[node] = 0
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            inside = own & {id(m) for m in module.modules()}
            holds[node] = len(inside)
            for layer in inside:
                counts[layer] += 1
    if max(counts.values(), default=0) > 1:
        repeated = [name for name, layer in layers.items() if counts[id(layer)] > 1]
        return whole(network, f"layer {repeated[0]!r} runs several times")
    for index, node in enumerate(nodes):
        if _in_place(network, node) and not _replaced(network, nodes, index):
            return whole(network, f"{node.name} changes a value that is used again")
    return Graph(network, _ordered(nodes, holds), True, defaults=_defaults(network))


def _drop_assertions(graph: fx.Graph) -> None:
    """Remove what the tracer adds to check arguments that have a default."""
    for node in reversed(list(graph.nodes)):
        if _called(node) in ("_assert", "_assert_is_none") and not node.users:
            graph.erase_node(node)


def _defaults(network: nn.Module) -> dict[str, Any]:
    parameters = inspect.signature(network.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _called(node: fx.Node) -> str:
    """Name of the function or method that a node calls."""
    if node.op == "call_method":
        return str(node.target)
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", ""))
    return ""


def _in_place(network: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        module: Any = network.get_submodule(str(node.target))
        return bool(getattr(module, "inplace", False))
    name = _called(node)
    if not name:
        return False
    underscored = name.endswith("_") and not name.endswith("__")
    return (
        underscored
        or name in ("iadd", "imul", "isub", "itruediv", "setitem")
        or bool(node.kwargs.get("inplace", False))
    )


# The same out of place.
OUT_OF_PLACE: dict[object, object] = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
    operator.itruediv: operator.truediv,
    torch.relu_: torch.relu,
    F.relu_: F.relu,
    "add_": "add",
    "mul_": "mul",
    "sub_": "sub",
    "div_": "div",
    "relu_": "relu",
    "clamp_": "clamp",
    "sigmoid_": "sigmoid",
    "tanh_": "tanh",
}


def _replaced(network: nn.Module, nodes: list[fx.Node], index: int) -> bool:
    """Take an operation's result from new memory; false if that would change others."""
    node = nodes[index]
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    root, before = _owner(network, node.args[0]), set(nodes[:index])
    later = {
        user
        for other in nodes[:index]
        if _owner(network, other) is root
        for user in other.users
        if user is not node and user not in before
    }
    if later:
        return False
    if node.op == "call_module":
        module: Any = network.get_submodule(str(node.target))
        module.inplace = False
    elif node.kwargs.get("inplace", False):
        node.update_kwarg("inplace", False)
    elif node.target in OUT_OF_PLACE:
        node.target = OUT_OF_PLACE[node.target]  # type: ignore[assignment]
    else:
        return False
    return True


def _owner(network: nn.Module, node: fx.Node) -> fx.Node:
    """The node that has made the memory of a node's result."""
    while node.all_input_nodes:
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            if not isinstance(module, (*ALIASING_MODULES, *DROPOUTS)):
                return node
        elif _called(node) not in ALIASING:
            return node
        node = node.all_input_nodes[0]
    return node


def _ordered(nodes: list[fx.Node], holds: Mapping[fx.Node, int]) -> list[fx.Node]:
    """The nodes that the output needs, branches with fewer layers first."""
    place = {node: index for index, node in enumerate(nodes)}
    layers: dict[fx.Node, frozenset[fx.Node]] = {}
    for node in nodes:
        above = frozenset().union(*(layers[i] for i in node.all_input_nodes))
        layers[node] = above | {node} if holds[node] else above
    ordered: dict[fx.Node, None] = {}
    stack = [nodes[-1]]
    while stack:
        node = stack[-1]
        inputs = sorted(node.all_input_nodes, key=lambda i: (len(layers[i]), place[i]))
        missing = [i for i in inputs if i not in ordered]
        if node in ordered or not missing:
            ordered[stack.pop()] = None
        else:
            stack.append(missing[0])
    return list(ordered)
