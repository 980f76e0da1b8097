"""What a walk through a network's graph costs, against plain forward passes.

    python -m benchmarks walk --models resnet18,resnet50 --calibration 64

The networks have random weights, the images are noise. *Passes* is the time of the walk
alone, in which both networks see every layer's inputs and change every layer's weights,
in units of one plain forward pass of each of the two networks; *calls* is how often a
layer runs in either network for each batch, on average. *Moments* is the time that
summing up the moments of the layers' inputs adds, in the same units: products of
matrices of far more operations than a forward pass has. *Values* are the activations
that are held at the same time, at most.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from benchmarks.harness.tables import columns
from benchmarks.options import add

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH = 16


@dataclass(frozen=True)
class Cost:
    """What a walk through one network costs.

    Attributes
    ----------
    model
        The network's name.
    layers
        Number of its layers.
    forward
        Seconds of a plain forward pass of all images, in one network.
    walk
        Seconds of the walk without moments.
    moments
        Seconds that the moments add; None if they were not measured.
    calls
        How often a layer runs in one network, for each batch.
    held
        Bytes of activations held at the same time, at most.
    images
        Bytes of the images.
    """

    model: str
    layers: int
    forward: float
    walk: float
    moments: float | None
    calls: float
    held: int
    images: int


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to the parser."""
    add(parser, "models", default="resnet18,resnet50")
    add(parser, "calibration", default=64)
    add(parser, "side", default=224)
    add(parser, "no-moments")


def run(options: argparse.Namespace) -> int:
    """Print the costs; return the exit code."""
    lines = [
        [
            "model",
            "layers",
            "forward s",
            "passes",
            "calls",
            "moments",
            "values MB",
            "images MB",
        ]
    ]
    try:
        for model in tqdm(options.models, desc="models", disable=None):
            cost = measure(
                model, options.calibration, options.side, not options.no_moments
            )
            unit = 2 * cost.forward
            lines.append(
                [
                    cost.model,
                    str(cost.layers),
                    f"{cost.forward:.1f}",
                    f"{cost.walk / unit:.2f}",
                    f"{cost.calls:.2f}",
                    "-" if cost.moments is None else f"{cost.moments / unit:.1f}",
                    f"{cost.held / 1e6:.0f}",
                    f"{cost.images / 1e6:.0f}",
                ]
            )
    finally:
        print(columns(lines))
    return 0


def measure(model: str, count: int, side: int, with_moments: bool) -> Cost:
    """Walk through a network with random weights, on noise."""
    import torch

    from qubo_rounding.network.folding import fold_batch_norms
    from qubo_rounding.network.layers import supported_layers
    from qubo_rounding.network.models import architecture

    network = fold_batch_norms(architecture(model)).to(  # type: ignore[call-overload]
        memory_format=torch.channels_last
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, side, side, generator=generator)
    batches = [images[i : i + BATCH] for i in range(0, count, BATCH)]
    with torch.no_grad():
        network(batches[0])
        begun = time.perf_counter()
        for batch in batches:
            network(batch)
        forward = time.perf_counter() - begun
    seconds, calls, held = _walk(network, batches, with_moments=False)
    moments = None
    if with_moments:
        moments = _walk(network, batches, with_moments=True)[0] - seconds
    layers = len(supported_layers(network))
    return Cost(
        model=model,
        layers=layers,
        forward=forward,
        walk=seconds,
        moments=moments,
        calls=calls / (2 * layers * len(batches)),
        held=held,
        images=images.numel() * 4,
    )


def _walk(
    network: nn.Module, batches: list[Tensor], *, with_moments: bool
) -> tuple[float, int, int]:
    """Seconds, calls of layers in both networks, and bytes of activations at most."""
    import torch

    from qubo_rounding.network.layers import find_layer, supported_layers
    from qubo_rounding.network.whole.values import Values
    from qubo_rounding.network.whole.walk import Walk

    names = supported_layers(network)
    networks = copy.deepcopy(network), copy.deepcopy(network)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for one in networks:
        for name in names:
            find_layer(one, name).register_forward_hook(count)
    begun = time.perf_counter()
    with Values() as values:
        walk = Walk(*networks, names, values)
        for stop in walk.stops(batches):
            if with_moments:
                stop.statistics()
            else:
                stop.look()
            with torch.no_grad():
                stop.rounded.get_parameter("weight").mul_(1.01)
        return time.perf_counter() - begun, calls, values.peak
