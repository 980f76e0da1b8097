"""A network and images for it, from which the problems of its layers come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qubo_rounding.network.folding import fold_batch_norms
from qubo_rounding.network.images import Images, load_images
from qubo_rounding.network.models import load_network
from qubo_rounding.problem.problem import OBJECTIVES

# Images per forward pass: enough to keep two cores busy, little enough for 24 GiB.
BATCH = 16


@dataclass(frozen=True, eq=False)
class Source:
    """A network and images for it, from which the problems of its layers come.

    Attributes
    ----------
    model
        Its name.
    network
        In eval mode, batch norms folded.
    weights, weights_hash
        Which weights it has, as in `qubo_rounding.network.models.Network`.
    calibration, evaluation
        Images, none of them in both.
    """

    model: str
    network: nn.Module
    weights: str
    weights_hash: str
    calibration: Images
    evaluation: Images

    def batches(self) -> Iterator[Tensor]:
        """The calibration images in batches, decoded anew at every call."""
        return self.calibration.batches(BATCH)

    def meta(self, layer: str, objective: str = OBJECTIVES[0]) -> dict[str, Any]:
        """What a layer's problem says of where it comes from."""
        return {
            "layer": f"{self.model}.{layer}",
            "objective": objective,
            "weights": self.weights,
            "weights_hash": self.weights_hash,
            "images": self.calibration.name,
            "calibration_digest": self.calibration.digest,
        }


def load_source(
    model: str,
    weights: str,
    images: Path | None,
    calibration: int,
    evaluation: int | None,
    say: Callable[[str], None],
) -> Source:
    """A network, and as many images as are asked for; see `load_images`.

    Raises
    ------
    InputError
        Whatever does not exist or does not fit; see `load_network`, `load_images`.
    """
    loaded = load_network(model, weights)
    # This memory layout makes convolutions about a third faster on a CPU.
    network = fold_batch_norms(loaded.module).to(  # type: ignore[call-overload]
        memory_format=torch.channels_last
    )
    fitting, held_out = load_images(images, loaded, calibration, evaluation)
    say(f"{model}: weights {loaded.weights}, {loaded.weights_hash[:12]}")
    say(image_count("calibration", fitting))
    return Source(
        model=model,
        network=network,
        weights=loaded.weights,
        weights_hash=loaded.weights_hash,
        calibration=fitting,
        evaluation=held_out,
    )


def image_count(purpose: str, images: Images) -> str:
    """How many images there are, where from, and how many cannot be read."""
    note = f", {images.skipped} unreadable left out" if images.skipped else ""
    return f"{purpose}: {len(images)} images of {images.name}{note}"
