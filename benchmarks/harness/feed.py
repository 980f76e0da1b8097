"""`Feed`: a whole network, what it is fed, and how its answers are scored."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.harness.accuracy import HeldOut, OwnScore

if TYPE_CHECKING:
    from qubo_rounding.network.source import NetworkAndData, Source
    from qubo_rounding.network.whole.walk import Mask

# Calibration images, where nothing says how many.
CALIBRATION = 256


@dataclass(frozen=True, eq=False)
class Feed:
    """A whole network, what it is fed, and how its answers are scored.

    Attributes
    ----------
    source
        The network and its calibration batches.
    description
        The ``network`` part of the record.
    scores
        Gives what compares networks with the original one, before any is compared.
    mask
        Says of a batch which positions count; None: all.
    """

    source: Source | NetworkAndData
    description: dict[str, Any]
    scores: Callable[[], HeldOut | OwnScore]
    mask: Mask | None = None


def images_feed(options: argparse.Namespace, say: Callable[[str], None]) -> Feed:
    """A network and images, by ``--layer --weights --images`` and their like.

    Raises
    ------
    InputError
        As `qubo_rounding.network.source.load_source`.
    """
    from qubo_rounding.network.evaluate import predict
    from qubo_rounding.network.source import image_count, load_source

    source = load_source(
        options.layer,
        options.weights or "auto",
        options.images,
        options.calibration or CALIBRATION,
        options.evaluation,
        say,
        calibration_images=options.calibration_images,
    )
    images = source.evaluation
    say(image_count("evaluation", images))
    if images.labels is None:
        say("the images' labels are not the network's: accuracy is not reported")
    reference = predict(source.network, images, description="full precision")
    return Feed(
        source,
        {
            "model": source.model,
            "weights": source.weights,
            "weights_hash": source.weights_hash,
            "images": source.calibration.name,
            "calibration_digest": source.calibration.digest,
            "calibration_images": len(source.calibration),
            "evaluation_images": len(images),
            "evaluation_digest": images.digest,
        },
        lambda: HeldOut(images, reference),
    )


def data_feed(options: argparse.Namespace, say: Callable[[str], None]) -> Feed:
    """A network and data of a user's own, by ``--layer --weights --data``.

    Raises
    ------
    InputError
        As `qubo_rounding.network.source.load_network_and_data`.
    """
    from qubo_rounding.network.data import score_network
    from qubo_rounding.network.source import load_network_and_data

    source = load_network_and_data(
        options.layer, options.weights or "auto", options.data, say
    )
    data = source.data
    reference = score_network(source.network, data)
    return Feed(
        source,
        {
            "model": source.model,
            "weights": source.weights,
            "weights_hash": source.weights_hash,
            "data": data.spec,
            "score": data.name,
            "calibration_digest": data.calibration_digest,
            "calibration_batches": len(data.calibration),
            "evaluation_examples": len(reference),
            "evaluation_digest": data.evaluation_digest,
        },
        lambda: OwnScore(data, reference),
        data.mask,
    )
