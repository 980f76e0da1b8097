"""The layers of a network, and the inputs they see."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from qubo_rounding.network.exposed import named_layers, plain_layer
from qubo_rounding.network.folding import fold_batch_norms
from qubo_rounding.network.layer_rows import (
    column_chunks,
    groups,
    output_rows,
    refusal,
    set_weight_rows,
    unfold,
    weight_rows,
)
from qubo_rounding.network.messages import running
from qubo_rounding.problem.moments import Moments
from solvers.errors import InputError, UnknownNameError
from solvers.memory import require_memory
from solvers.threads import one_blas_thread

__all__ = [
    "capture_inputs",
    "find_layer",
    "fold_batch_norms",
    "groups",
    "layer_moments",
    "output_rows",
    "set_weight_rows",
    "supported_layers",
    "unfold",
    "weight_rows",
]

# Matrices alive at once: sums, mean, its transpose, the held-out one, a checked copy.
COPIES = 6


def supported_layers(network: nn.Module) -> list[str]:
    """Names of the layers whose weights can be rounded, in network order."""
    modules = named_layers(network)
    return [n for n, m in modules if n and refusal(plain_layer(m)) is None]


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """Return the layer of that name, as in ``network.named_modules()``.

    Of a module that `qubo_rounding.network.prepare` has changed, that is the plain
    layer in it.

    Raises
    ------
    UnknownNameError
        If no module has the name.
    InputError
        If the module is not a layer that can be rounded.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules(remove_duplicate=False))
    if name not in modules:
        raise UnknownNameError("layer", name, supported_layers(network))
    layer = plain_layer(modules[name])
    reason = refusal(layer)
    if reason is not None:
        raise InputError(f"layer {name!r} {reason}")
    return layer


def capture_inputs(
    network: nn.Module, layer_name: str, batches: Iterable[Tensor]
) -> Iterator[Tensor]:
    """Yield the layer's inputs, for each batch and each call of the layer.

    The forward pass stops at the layer. A layer that one pass calls several times
    yields every call; their number is counted on the first image.

    Parameters
    ----------
    network
        A network in eval mode.
    layer_name
        Name of the layer, as in `find_layer`.
    batches
        Inputs of the network; moved to its device and floating-point type.

    Raises
    ------
    InputError
        If the network is in training mode or never calls the layer, or if the
        layer is given NaN or inf.
    """
    module = find_layer(network, layer_name)
    refuse_training(network)
    calls = 0
    for batch in batches:
        batch = like_weights(network, batch)
        if calls == 0:
            calls = len(_inputs(network, module, batch[:1], None))
            if calls == 0:
                raise InputError(
                    f"the network never calls layer {layer_name!r} in a forward pass"
                )
        for x in _inputs(network, module, batch, calls):
            refuse_non_finite(x, layer_name)
            yield x


def layer_moments(
    network: nn.Module,
    layer_name: str,
    batches: Iterable[Tensor],
    progress: bool = True,
) -> Moments:
    """Second moments of a layer's inputs over all batches and output positions.

    Parameters
    ----------
    network
        A network in eval mode.
    layer_name
        Name of the layer, as in `find_layer`.
    batches
        Inputs of the network.
    progress
        Whether to show a progress bar; it stays quiet where there is no terminal.

    Raises
    ------
    InputError
        If there are no batches, or on what `capture_inputs` refuses.
    """
    module = find_layer(network, layer_name)
    n = weight_rows(module).shape[1]
    count = groups(module)
    require_memory(
        f"the second moments of layer {layer_name!r} and the problem made of them "
        f"({COPIES} times {count} x {n}² x 8 bytes)",
        COPIES * 8 * count * n * n,
        "take a smaller layer",
    )
    moments = Moments(n, count)
    batches = tqdm(
        batches, desc=layer_name, unit="batch", disable=None if progress else True
    )
    with one_blas_thread(n):
        for x in capture_inputs(network, layer_name, batches):
            for columns in column_chunks(module, x):
                moments.update(columns)
    if moments.count == 0:
        raise InputError(f"no images to compute the moments of {layer_name!r} from")
    return moments


def paired_inputs(
    reference: nn.Module,
    network: nn.Module,
    layer_name: str,
    batches: Iterable[Tensor],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the layer's inputs in both networks for the same images."""
    # tee holds one batch at most: the two sides advance together.
    ours, theirs = itertools.tee(batches)
    for x, x_hat in zip(
        capture_inputs(reference, layer_name, theirs),
        capture_inputs(network, layer_name, ours),
        strict=True,
    ):
        if x.shape != x_hat.shape:
            raise InputError(
                f"layer {layer_name!r} is given {tuple(x.shape)} in the reference "
                f"network and {tuple(x_hat.shape)} in the quantized one"
            )
        yield x, x_hat


def refuse_training(network: nn.Module) -> None:
    """Refuse a network whose batch norms or dropout would act as in training."""
    if any(module.training for module in network.modules()):
        raise InputError("the network is in training mode; call network.eval() first")


def refuse_non_finite(x: Tensor, layer_name: str) -> None:
    """Refuse NaN and inf among the inputs of a layer."""
    if not torch.isfinite(x).all():
        where = torch.nonzero(~torch.isfinite(x))[0].tolist()
        raise InputError(
            f"the input of layer {layer_name!r} is {x[tuple(where)].item()} at "
            f"{where}; activations must be finite"
        )


def like_weights(network: nn.Module, batch: Tensor) -> Tensor:
    """Move a batch to the device and floating-point type of the network."""
    for parameter in network.parameters():
        if parameter.is_floating_point() and batch.is_floating_point():
            return batch.to(parameter.device, parameter.dtype)
        return batch.to(parameter.device)
    return batch


class _Stop(BaseException):
    """Ends a forward pass once the layer has been given its input."""


def forward(network: nn.Module, batch: Tensor) -> Any:
    """What the network makes of a batch of inputs.

    Raises
    ------
    InputError
        The network does not take such inputs, or memory does not suffice.
    """
    name, shape = type(network).__name__, tuple(batch.shape)
    with running(f"{name} cannot be run on a batch of shape {shape}"):
        return network(batch)


def _inputs(
    network: nn.Module, module: nn.Module, batch: Tensor, calls: int | None
) -> list[Tensor]:
    """Return the inputs of the first ``calls`` calls, or of all calls in a pass."""
    inputs: list[Tensor] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["input"]
        last = len(inputs) + 1 == calls
        # What still runs might overwrite the input in place.
        inputs.append(x if last else x.clone())
        if last:
            raise _Stop

    handle = module.register_forward_pre_hook(record, with_kwargs=True)
    try:
        with torch.no_grad():
            forward(network, batch)
    except _Stop:
        pass
    finally:
        handle.remove()
    return inputs
