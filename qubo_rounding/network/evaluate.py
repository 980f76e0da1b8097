"""Scores that share no code with the solvers: local errors and accuracies."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from tqdm import tqdm

from qubo_rounding.network.images import Images
from qubo_rounding.network.layers import (
    find_layer,
    forward,
    like_weights,
    set_weight_rows,
)
from solvers.errors import InputError

Array = NDArray[np.float64]
# With fewer images than these a bootstrap says nothing.
FEWEST = 30


def output_mse(weight: ArrayLike, rounded: ArrayLike, moment: ArrayLike) -> Array:
    """Mean squared change of each output row, ``E[(w.x - ŵ.x)²]``, in float64.

    Parameters
    ----------
    weight, rounded
        ``[R, n]``.
    moment
        ``[n, n]`` or, for G equal blocks of rows, ``[G, n, n]``: E[x xᵀ], undamped.

    Returns
    -------
    ``float64[R]``.
    """
    error = np.asarray(rounded, np.float64) - np.asarray(weight, np.float64)
    H = np.asarray(moment, np.float64)
    H = H[None] if H.ndim == 2 else H
    grouped = error.reshape(len(H), -1, H.shape[-1])
    mse: Array = np.einsum("gri,gri->gr", grouped @ H, grouped)
    return mse.ravel()


def sqnr_db(weight: ArrayLike, rounded: ArrayLike, moment: ArrayLike) -> float:
    """Signal to quantization noise of the layer's output, in decibels.

    ``10 log10(E[|W x|²] / E[|W x - Ŵ x|²])``, without the bias; inf if nothing changed.
    """
    zero = np.zeros(np.shape(weight))
    signal = output_mse(weight, zero, moment).sum()
    noise = output_mse(weight, rounded, moment).sum()
    return float(10 * np.log10(signal / noise)) if noise > 0 else float("inf")


def with_weights(network: nn.Module, layer: str, rows: Array) -> nn.Module:
    """A copy of the network whose layer has the given weight rows ``[R, n]``."""
    changed = copy.deepcopy(network)
    set_weight_rows(find_layer(changed, layer), rows)
    return changed


@dataclass(frozen=True, eq=False)
class Predictions:
    """The most likely classes of each image.

    Attributes
    ----------
    top5 : int64 [N, min(5, classes)]
        Classes, the most likely first.
    """

    top5: NDArray[np.int64]

    def correct(self, labels: Tensor, k: int = 1) -> NDArray[np.bool_]:
        """Whether each image's label is among its first k classes, ``[N]``."""
        hits = np.equal(self.top5[:, :k], labels.numpy()[:, None])
        return np.asarray(hits.any(axis=1))

    def agrees(self, other: Predictions) -> NDArray[np.bool_]:
        """Whether this and `other` put the same class first, ``[N]``."""
        return np.equal(self.top5[:, 0], other.top5[:, 0])


def predict(
    network: nn.Module, images: Images, batch: int = 32, description: str = ""
) -> Predictions:
    """Run the network on all images, with a progress bar on a terminal.

    Raises
    ------
    InputError
        Outputs that are not finite logits ``[N, classes]``.
    """
    top_classes = []
    batches = tqdm(
        images.batches(batch),
        total=-(-len(images) // batch),
        desc=description,
        leave=False,
        disable=None,
    )
    with torch.inference_mode():
        for x in batches:
            x = like_weights(network, x)
            logits = forward(
                network, x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
            )
            shape = logits.shape if isinstance(logits, Tensor) else ()
            if len(shape) != 2 or shape[0] != len(x):
                raise InputError("the network must give logits [images, classes]")
            if not torch.isfinite(logits).all():
                raise InputError("the network's outputs hold NaN or inf")
            top_classes.append(logits.topk(min(5, logits.shape[1])).indices)
    return Predictions(torch.cat(top_classes).numpy())


def paired_interval(
    a: NDArray[np.bool_] | Array, b: NDArray[np.bool_] | Array, seed: int = 0
) -> tuple[float, float] | None:
    """95 % bootstrap interval of mean(a) - mean(b) over the same images.

    None where there are too few images, or all have the same difference. Other examples
    with other scores than right and wrong do as well.
    """
    difference = a.astype(np.float64) - b
    if len(difference) < FEWEST or (difference == difference[0]).all():
        return None
    interval = scipy.stats.bootstrap(
        (difference,),
        np.mean,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
