"""A network's accuracy on held-out images, beside that of nearest rounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

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


def _percent(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return interval and (100 * interval[0], 100 * interval[1])
