"""Networks made ready: batch norms folded, every weight product in a plain layer."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from qubo_rounding.network import attention
from qubo_rounding.network.exposed import (
    Calling,
    Exposed,
    install,
    named_layers,
    tensors_in,
)
from qubo_rounding.network.folding import evaluation_copy, fold
from qubo_rounding.network.layer_rows import (
    SUPPORTED,
    marked,
    output_rows,
    refusal,
    refuse,
    unfold,
    weight_rows,
)
from qubo_rounding.network.layers import (
    find_layer,
    forward,
    like_weights,
    supported_layers,
)
from qubo_rounding.network.weight_uses import Recorder, Uses
from solvers.errors import InputError, UnknownNameError

Unsupported = Literal["refuse", "skip"]
# Modules that are there to multiply by a weight, whether or not they run.
LAYERS = (
    *SUPPORTED,
    nn.Bilinear,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)
UNPROVEN = "is of a class of its own, and nothing was given to prove what it computes"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network whose weights can be rounded layer by layer.

    Attributes
    ----------
    network
        A copy in eval mode, with its batch norms folded.
    layers
        Names of the layers that can be rounded, in network order, as
        `qubo_rounding.network.layers.find_layer` takes them.
    skipped
        Why others cannot be, by their names: a sentence about the layer without its
        subject. `find_layer` refuses them with it.
    tied
        Names of modules that share a weight. None of them is in `layers`.
    repeated
        Names of layers that run several times in a forward pass.
    untraced
        Why batch norms were not folded, or None: torch.fx cannot trace the network.
    """

    network: nn.Module
    layers: Sequence[str]
    skipped: Mapping[str, str] = field(default_factory=dict)
    tied: Sequence[Sequence[str]] = ()
    repeated: Sequence[str] = ()
    untraced: str | None = None


def prepare(
    network: nn.Module, example: Tensor | None, *, unsupported: Unsupported = "refuse"
) -> Prepared:
    """Return a copy whose weights are all in plain convolutions and linear layers.

    Plain layers stay as they are. Subclasses and other modules become an `Exposed`
    under the same name if, in a forward pass of the example, their weight does nothing
    but multiply one input in each call. `torch.nn.MultiheadAttention` becomes an
    `Attention` with layers ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``. That
    all this and the folding of batch norms change nothing is tested on the example. A
    network that has an `Exposed` is ready, and only copied.

    Parameters
    ----------
    network
        Any network; it is not changed.
    example
        Input of a forward pass, of one image for instance. Without it only plain
        layers and attentions are taken, and nothing is tested.
    unsupported
        Whether layers that cannot be rounded are refused or left as they are.

    Raises
    ------
    InputError
        A layer cannot be rounded: it is of a class that does more with its weight than
        multiply, shares its weight, or never runs. The network cannot be copied or run,
        or gives other outputs after the changes.
    """
    if unsupported not in get_args(Unsupported):
        raise InputError(f"unsupported must be refuse or skip, not {unsupported!r:.40}")
    if any(isinstance(module, Exposed) for module in network.modules()):
        network = evaluation_copy(network)
        skipped = {
            name: reason
            for name, module in named_layers(network)
            if name and (reason := marked(module)) is not None
        }
        return Prepared(network, supported_layers(network), skipped)
    sharing = _sharing(network)
    network = evaluation_copy(network)
    expected = None if example is None else _run(network, example)
    reasons = _open_attentions(network, sharing)
    tied: list[list[str]] = []
    repeated: list[str] = []
    # Layers by the modules that use their weights and do not call them.
    called: dict[nn.Module, list[nn.Module]] = defaultdict(list)
    if example is None:
        reasons |= {
            name: UNPROVEN
            for name, module in _named(network)
            if isinstance(module, SUPPORTED) and type(module) not in SUPPORTED
        }
    else:
        recorder = Recorder(network)
        with recorder.watching():
            _run(network, example)
        layers = [n for n, m in _named(network) if _is_layer(m, recorder)]
        tied = [group for group in sharing if not set(layers).isdisjoint(group)]
        reasons |= {n: _shares(n, group) for group in tied for n in group}
        for name in layers:
            module = network.get_submodule(name)
            reason = reasons.get(name) or _unproven(module, recorder)
            if reason is None:
                ((weight, uses),) = _weights(module, recorder).items()
                if len(uses.products) > 1:
                    repeated.append(name)
                place = _place(uses)
                if type(module) not in SUPPORTED:
                    _expose(network, module, weight, uses)
                elif place is not None and place is not module:
                    called[place].append(module)
            elif name and not _holds_layers(module):
                reasons[name] = reason
            else:
                # The name of its submodules' parent would say too little.
                weight = next(iter(_weights(module, recorder)))
                reasons[f"{name}.{weight}".lstrip(".")] = reason
    order = {name: i for i, (name, _) in enumerate(_named(network))}
    reasons = {n: reasons[n] for n in sorted(reasons, key=lambda n: order.get(n, -1))}
    for place, found in called.items():
        Calling(place, found)
    if reasons and unsupported == "refuse":
        name, reason = next(iter(reasons.items()))
        others = f" (and {len(reasons) - 1} more cannot)" if len(reasons) > 1 else ""
        raise InputError(
            f"layer {name!r} {reason}{others}; unsupported='skip' leaves such layers "
            "as they are"
        )
    for name, module in _named(network):
        if name in reasons:
            refuse(module, reasons[name])
    untraced = None
    try:
        fold(network)
    except InputError as error:
        untraced = str(error)
    if example is not None:
        _prove(network, example, expected)
    return Prepared(
        network=network,
        layers=supported_layers(network),
        skipped=reasons,
        tied=tied,
        repeated=repeated,
        untraced=untraced,
    )


def likely_layers(network: nn.Module) -> list[str]:
    """Names of the layers that `prepare` may find, in network order.

    A guess from the modules' classes, for networks that are not to be run.
    """
    return _likely(_outline(network))


def require_likely_layer(network: nn.Module, name: str) -> None:
    """Refuse a name that no layer of the network can have.

    Raises
    ------
    InputError
        As `qubo_rounding.network.layers.find_layer`; but subclasses, and modules that
        are of no class of torch's own, pass, since only `prepare` can tell.
    """
    network = _outline(network)
    module = dict(network.named_modules(remove_duplicate=False)).get(name)
    if module is None:
        raise UnknownNameError("layer", name, _likely(network))
    torchs_own = type(module).__module__.startswith("torch.")
    if torchs_own and not isinstance(module, SUPPORTED):
        find_layer(network, name)


def _outline(network: nn.Module) -> nn.Module:
    """A copy whose modules have the names that `prepare` would give them."""
    network = evaluation_copy(network)
    _open_attentions(network, _sharing(network))
    return network


def _likely(network: nn.Module) -> list[str]:
    return [
        name
        for name, module in _named(network)
        if name and (refusal(module) is None or isinstance(module, SUPPORTED))
    ]


def _named(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(network.named_modules())


def _sharing(network: nn.Module) -> list[list[str]]:
    """Names of the modules that have a matrix in common, a list for each matrix."""
    # Parameters may be two and their memory one, which a copy no longer shows.
    owners: dict[int, list[str]] = defaultdict(list)
    for name, module in _named(network):
        for parameter in module.parameters(recurse=False):
            if parameter.ndim >= 2 and parameter.numel() and not parameter.is_meta:
                owners[parameter.data_ptr()].append(name)
    groups = (list(dict.fromkeys(names)) for names in owners.values())
    return [names for names in groups if len(names) > 1]


def _shares(name: str, group: Sequence[str]) -> str:
    others = " and ".join(repr(other) for other in group if other != name)
    return f"shares its weight with {others}; give each a weight of its own"


def _open_attentions(
    network: nn.Module, sharing: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Put an `Attention` in the place of torch's; return why some stay."""
    reasons = {}
    for name, module in _named(network):
        if isinstance(module, nn.TransformerEncoder):
            # It would go past the layers' modules, with tensors they cannot take.
            module.use_nested_tensor = False
        if not isinstance(module, nn.MultiheadAttention):
            continue
        reason = attention.refusal(module)
        for group in sharing:
            for owner in (name, f"{name}.out_proj"):
                if owner in group:
                    reason = _shares(owner, group)
        if reason is None and name:
            install(network, module, attention.Attention(module))
        elif reason is not None:
            reasons[name] = reason
    return reasons


def _weights(module: nn.Module, recorder: Recorder) -> dict[str, Uses]:
    """What happens to the module's own matrices that multiply an input.

    To all of its matrices, if it should multiply and does not.
    """
    found = {
        name: recorder.uses[id(parameter)]
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2 and id(parameter) in recorder.uses
    }
    multiply = {name: uses for name, uses in found.items() if uses.multiplies}
    return multiply or (found if isinstance(module, LAYERS) else {})


def _is_layer(module: nn.Module, recorder: Recorder) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return any(p.ndim >= 2 for p in module.parameters(recurse=False))
    return isinstance(module, LAYERS) or bool(_weights(module, recorder))


def _holds_layers(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return len(list(module.parameters())) > len(own)


def _unproven(module: nn.Module, recorder: Recorder) -> str | None:
    """Why the module's weight operation is not known to be a plain layer's, or None."""
    if isinstance(module, torch.jit.ScriptModule):
        return "is compiled by TorchScript; give the network as it was before"
    if type(module) in SUPPORTED and refusal(module) is not None:
        return refusal(module)
    if isinstance(module, LAYERS) and not isinstance(module, SUPPORTED):
        return refusal(module)
    kind = type(module).__name__
    weights = _weights(module, recorder)
    for name, uses in weights.items():
        if uses.remarks:
            return f"is a {kind} that cannot be taken: its {name} {uses.remarks[0]}"
    if len(weights) != 1:
        return f"is a {kind} with several weights or none ({', '.join(weights)})"
    (uses,) = weights.values()
    calls = recorder.calls[module]
    if calls == 0 and not uses.products:
        return "is never called in a forward pass"
    place = _place(uses)
    if place is None or not (place is module or _may_call(place, module, recorder)):
        others = {type(other).__name__ for other in uses.places if other is not module}
        return f"has its weight used outside of it, by {' and '.join(sorted(others))}"
    if len(uses.products) != recorder.calls[place]:
        return f"is a {kind} that does not multiply by its weight just once a call"
    if len({product.form() for product in uses.products}) > 1:
        return f"is a {kind} that multiplies in different ways in one forward pass"
    if type(module) in SUPPORTED:
        return None
    bias = uses.products[0].bias
    if bias is not None:
        known = _bias_name(module, bias)
        if known is None or tuple(bias.shape) != (len(uses.products[0].weight),):
            return f"is a {kind} that changes its bias before it is added"
        its_uses = recorder.uses[id(bias)]
        if its_uses.remarks or its_uses.biases != calls:
            return f"is a {kind} whose bias is also used elsewhere"
    if _holds_layers(module):
        return f"is a weight of a {kind}, beside its submodules; make it a layer"
    return None


def _place(uses: Uses) -> nn.Module | None:
    """The one module whose forward multiplies by the weight, or None."""
    places = set(uses.places)
    return places.pop() if len(places) == 1 else None


def _may_call(place: nn.Module, layer: nn.Module, recorder: Recorder) -> bool:
    """Whether a module could call the linear layer where it now uses its weight."""
    if type(layer) is not nn.Linear or "forward" in place.__dict__:
        return False
    # torch.fx would go past what the whole network is made to call.
    return place is not recorder.network and all(
        product.function == "linear"
        and not product.left
        and product.weight is layer.weight
        and product.bias is layer.bias
        for product in recorder.uses[id(layer.weight)].products
    )


def _bias_name(module: nn.Module, bias: Tensor | None) -> str | None:
    for name, parameter in module.named_parameters(recurse=False):
        if parameter is bias:
            return name
    return None


def _expose(network: nn.Module, module: nn.Module, weight: str, uses: Uses) -> None:
    """Put an `Exposed` in the module's place."""
    product = uses.products[0]
    bias = _bias_name(module, product.bias)
    install(network, module, Exposed(module, product, weight, bias, uses.bare))


def _run(network: nn.Module, example: Tensor) -> Any:
    """What the network makes of the example, by its modules and nothing fused."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            # It may work in place.
            return forward(network, like_weights(network, example).clone())
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _prove(network: nn.Module, example: Tensor, expected: Any) -> None:
    """Refuse a network that differs from what it was, or a layer from its rows."""
    with contextlib.ExitStack() as stack:
        for name, module in _named(network):
            if isinstance(module, Exposed):
                hook = _row_check(name)
                handle = module.layer.register_forward_hook(hook)
                stack.callback(handle.remove)
        outputs = _run(network, example)
    for before, after in zip(tensors_in(expected), tensors_in(outputs), strict=True):
        if not _close(before, after):
            raise InputError(
                f"{type(network).__name__} gives other outputs once its layers are "
                "plain ones: it uses them in ways that cannot be seen, or its outputs "
                "differ from call to call"
            )


def _row_check(name: str) -> Any:
    """A hook that compares a layer's output with its rows times its columns."""

    def check(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        columns = unfold(layer, args[0])
        rows = torch.from_numpy(weight_rows(layer)).to(columns)
        found = (rows.reshape(len(columns), -1, rows.shape[1]) @ columns).flatten(0, 1)
        if isinstance(layer.bias, Tensor):
            found += layer.bias.detach()[:, None]
        if not _close(output_rows(layer, output), found):
            raise InputError(f"layer {name!r} is not the product of its rows and input")

    return check


def _close(before: Tensor, after: Tensor) -> bool:
    """Whether tensors agree to half the digits of their largest value."""
    if not (before.is_floating_point() or before.is_complex()):
        return torch.equal(before, after)
    if before.numel() == 0:
        return before.shape == after.shape
    tolerance = torch.finfo(before.dtype).eps ** 0.5
    difference, largest = (after - before).abs().max(), before.abs().max()
    if difference.isfinite():
        return bool(difference <= tolerance * largest)
    # NaN and inf must be where they were.
    return torch.allclose(before, after, tolerance, tolerance, equal_nan=True)
