"""A network and images for it, from which the problems of its layers come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qubo_rounding.network.data import Batch, Data, load_data
from qubo_rounding.network.images import Images, load_images
from qubo_rounding.network.models import Network, load_network
from qubo_rounding.network.prepare import prepare
from qubo_rounding.problem.problem import OBJECTIVES

# Images per forward pass: enough to keep two cores busy, little enough for 24 GiB.
BATCH = 16


@dataclass(frozen=True, eq=False)
class Source:
    """A network and images for it, from which the problems of its layers come.

    Attributes
    ----------
    model
        The network's name.
    network
        The network as `qubo_rounding.network.prepare` gives it: in eval mode, with its
        batch norms folded and its layers plain ones.
    weights, weights_hash
        Name and hash of its weights, as in `qubo_rounding.network.models.Network`.
    calibration, evaluation
        Two sets of images without a common image; that for evaluation may be empty.
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

    def held(self, copies: int = 1) -> list[Tensor]:
        """The calibration images in batches, decoded once and all held in memory.

        Parameters
        ----------
        copies
            How often they will be in memory at once.

        Raises
        ------
        InputError
            Memory does not suffice; nothing has been decoded then.
        """
        self.calibration.require_memory(len(self.calibration), copies)
        return list(self.batches())

    def meta(self, layer: str, objective: str = OBJECTIVES[0]) -> dict[str, Any]:
        """The origin of a layer's problem, for its `meta`."""
        return {
            "layer": f"{self.model}.{layer}",
            "objective": objective,
            "weights": self.weights,
            "weights_hash": self.weights_hash,
            "images": self.calibration.name,
            "calibration_digest": self.calibration.digest,
        }


@dataclass(frozen=True, eq=False)
class NetworkAndData:
    """A network that is not fed images, and data of a user's own for it.

    Attributes
    ----------
    model, network, weights, weights_hash
        As of a `Source`.
    data
        Batches for calibration and evaluation, and how they are scored.
    """

    model: str
    network: nn.Module
    weights: str
    weights_hash: str
    data: Data

    def batches(self) -> Iterator[Batch]:
        """The calibration batches."""
        return iter(self.data.calibration)


def load_network_and_data(
    model: str, weights: str, data: str, say: Callable[[str], None]
) -> NetworkAndData:
    """Load a network, and data by the name of a function that gives them.

    Parameters
    ----------
    model, weights
        As in `load_network`.
    data
        As in `load_data`.
    say
        Called with each line about what has been loaded.

    Raises
    ------
    InputError
        The model, its weights or the data do not exist or cannot be used.
    """
    loaded, held = load_network(model, weights), load_data(data)
    batch = held.calibration[0]
    example = batch[:1] if isinstance(batch, Tensor) else None
    network = _ready(loaded, example, say)
    say(f"data: {held.spec}")
    return NetworkAndData(model, network, loaded.weights, loaded.weights_hash, held)


def load_source(
    model: str,
    weights: str,
    images: Path | None,
    calibration: int,
    evaluation: int | None,
    say: Callable[[str], None],
    calibration_images: Path | None = None,
) -> Source:
    """Load a network, and the numbers of images asked for.

    Parameters
    ----------
    model, weights
        As in `load_network`.
    images, calibration, evaluation
        Folder of images and the numbers of them, as in `load_images`.
    say
        Called with each line about what has been loaded.
    calibration_images
        Folder of the calibration images, if it is another one.

    Raises
    ------
    InputError
        The model, its weights or the images do not exist or do not fit; see
        `load_network` and `load_images`.
    """
    loaded = load_network(model, weights)
    calibration_set, held_out = load_images(
        images, loaded, calibration, evaluation, calibration_images
    )
    network = _ready(loaded, next(calibration_set.batches(1)), say)
    say(image_count("calibration", calibration_set))
    return Source(
        model=model,
        network=network,
        weights=loaded.weights,
        weights_hash=loaded.weights_hash,
        calibration=calibration_set,
        evaluation=held_out,
    )


def _ready(
    loaded: Network, example: Tensor | None, say: Callable[[str], None]
) -> nn.Module:
    """The network with plain layers; what is left as it is is said."""
    prepared = prepare(loaded.module, example, unsupported="skip")
    # This memory layout makes convolutions about a third faster on a CPU.
    network = prepared.network.to(  # type: ignore[call-overload]
        memory_format=torch.channels_last
    )
    if prepared.untraced:
        say(f"WARNING: batch norms stay as they are: {prepared.untraced}")
    for name, reason in prepared.skipped.items():
        say(f"left as it is: layer {name!r} {reason}")
    say(f"{loaded.name}: weights {loaded.weights}, {loaded.weights_hash[:12]}")
    return network  # type: ignore[no-any-return]


def image_count(purpose: str, images: Images) -> str:
    """A line with the number of images, their name and how many are unreadable."""
    note = f", {images.skipped} unreadable left out" if images.skipped else ""
    return f"{purpose}: {len(images)} images of {images.name}{note}"
