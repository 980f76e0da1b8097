"""A network's accuracy on held-out inputs, beside that of nearest rounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from qubo_rounding.network.data import Data
    from qubo_rounding.network.evaluate import Predictions
    from qubo_rounding.network.images import Images


@dataclass(eq=False)
class HeldOut:
    """Held-out images, on which changed networks are compared with the original one.

    The first network to be scored must be the one rounded to nearest: later ones are
    compared with it.

    Attributes
    ----------
    images
        The images.
    reference
        Predictions of the original network.
    nearest
        Predictions with nearest rounding, once it has been scored.
    """

    images: Images
    reference: Predictions
    nearest: Predictions | None = field(default=None, init=False)

    def full_precision(self) -> dict[str, float | None]:
        """Top-1 and top-5 of the original network in percent; None without labels."""
        return self._labelled(self.reference)

    def score(self, network: nn.Module, name: str) -> dict[str, Any]:
        """Accuracy of a network and its agreement with the original one, in percent.

        `name` is shown with the progress.
        """
        from qubo_rounding.network.evaluate import paired_interval, predict

        predictions = predict(network, self.images, description=name)
        if self.nearest is None:
            self.nearest = predictions
        agrees = predictions.agrees(self.reference)
        labels = self.images.labels
        return {
            **self._labelled(predictions),
            "agreement": 100 * float(agrees.mean()),
            "agreement_minus_nearest": _percent(
                paired_interval(agrees, self.nearest.agrees(self.reference))
            ),
            "top1_minus_nearest": None
            if labels is None
            else _percent(
                paired_interval(
                    predictions.correct(labels), self.nearest.correct(labels)
                )
            ),
        }

    def _labelled(self, predictions: Predictions) -> dict[str, float | None]:
        """Top-1 and top-5 of predictions in percent; None if the labels do not fit."""
        if self.images.labels is None:
            return {"top1": None, "top5": None}
        return {
            f"top{k}": 100 * float(predictions.correct(self.images.labels, k).mean())
            for k in (1, 5)
        }


@dataclass(eq=False)
class OwnScore:
    """Data with a score of a user's own, on which networks are compared.

    As with `HeldOut`, the first network to be scored must be the one rounded to
    nearest.

    Attributes
    ----------
    data
        The data.
    reference
        Scores of the original network ``[N]``.
    nearest
        Scores with nearest rounding, once it has been scored.
    """

    data: Data
    reference: NDArray[np.float64]
    nearest: NDArray[np.float64] | None = field(default=None, init=False)

    def full_precision(self) -> dict[str, float]:
        """The mean score of the original network."""
        return {"score": float(self.reference.mean())}

    def score(self, network: nn.Module, name: str) -> dict[str, Any]:
        """The mean score of a network, and how much it is above that of nearest."""
        from qubo_rounding.network.data import score_network
        from qubo_rounding.network.evaluate import paired_interval

        scores = score_network(network, self.data)
        if self.nearest is None:
            self.nearest = scores
        return {
            "score": float(scores.mean()),
            "score_minus_nearest": paired_interval(scores, self.nearest),
        }


def _percent(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return interval and (100 * interval[0], 100 * interval[1])
