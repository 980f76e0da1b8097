"""Digits blended onto crops of natural photographs, made by the batch.

The background is strong in luminance and weak in colour; the digit is a faint change
of colour. So the filters that see the digit must cancel the luminance, the direction
in which the input varies most, and a rounding that disturbs the cancellation costs
accuracy, as it does in networks trained on photographs.

Digits (by index) and photographs (by columns) are each cut in three parts, so the
training, calibration and evaluation scenes have no digit and no background in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

SIDE = 64
SPLITS = ("train", "calibration", "evaluation")
# Ranges of load_digits' index and of the photographs' columns.
_DIGITS = {"train": (600, 1797), "calibration": (0, 200), "evaluation": (200, 600)}
_COLUMNS = {"train": (256, 640), "calibration": (128, 256), "evaluation": (0, 128)}
_CELL = 10  # an 8×8 digit with a border of zeros


@dataclass(frozen=True)
class Difficulty:
    """Settings that make scenes easier or harder.

    Attributes
    ----------
    contrast
        Range of the digit's change of colour, as a length in RGB space of side 1.
    luminance
        Largest share of that length along grey.
    saturation
        Share of the background's colour that is left.
    clutter
        Pieces of other digits behind the digit.
    """

    contrast: tuple[float, float] = (0.04, 0.1)
    luminance: float = 0.1
    saturation: float = 0.3
    clutter: int = 3


class Scenes:
    """Generator of scenes of one split.

    Parameters
    ----------
    split
        One of `SPLITS`.
    difficulty
        Contrast and clutter.
    device
        Device on which the scenes are made.
    seed
        Seed of the generator; the same seed gives the same scenes on the same device.
    """

    def __init__(
        self, split: str, difficulty: Difficulty, device: str = "cpu", seed: int = 0
    ) -> None:
        self._difficulty = difficulty
        self._device = torch.device(device)
        self._generator = torch.Generator(self._device).manual_seed(seed)
        first, last = _DIGITS[split]
        digits = load_digits()
        cells = np.pad(digits.images[first:last] / 16, ((0, 0), (1, 1), (1, 1)))
        self._digits = self._tensor(cells.reshape(1, -1, _CELL))
        self._labels = torch.from_numpy(digits.target[first:last]).to(self._device)
        left, right = _COLUMNS[split]
        photos = np.concatenate(load_sample_images().images)[:, left:right]
        self._photos = self._tensor(photos.transpose(2, 0, 1) / 255)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._device)

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        unit = torch.rand(shape, generator=self._generator, device=self._device)
        return low + (high - low) * unit

    def batch(self, size: int, ease: float = 1.0) -> tuple[Tensor, Tensor]:
        """Scenes as uint8 ``[size, 3, SIDE, SIDE]`` and their digits, int64.

        `ease` multiplies the contrast; a network that starts with faint digits may
        take long to see any.
        """
        scene = self._background(size)
        for _ in range(self._difficulty.clutter):
            mask, _ = self._stroke(size, 0.3, 0.5, 0.45)
            scene = scene + self._half(mask) * ease * self._colour(size)
        mask, labels = self._stroke(size, 0.55, 0.85, 0.12)
        scene = (scene + mask * ease * self._colour(size)).clamp(0, 1)
        # Multiples of 4: the files pack better, and nobody sees the difference.
        return (scene * 63).round().to(torch.uint8) * 4, labels

    def _grid(self, size: int) -> tuple[Tensor, Tensor]:
        axis = (torch.arange(SIDE, device=self._device) + 0.5) / SIDE - 0.5
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return y.expand(size, -1, -1), x.expand(size, -1, -1)

    def _background(self, size: int) -> Tensor:
        """Crops at random places, scales and angles, with less colour."""
        height, width = self._photos.shape[1] // 2, self._photos.shape[2]
        side = self._uniform(0.5 * SIDE, 1.3 * SIDE, size, 1, 1)
        angle = self._uniform(-math.pi, math.pi, size, 1, 1)
        reach = side * (angle.cos().abs() + angle.sin().abs()) / 2
        centre_y = reach + (height - 1 - 2 * reach) * self._uniform(0, 1, size, 1, 1)
        centre_x = reach + (width - 1 - 2 * reach) * self._uniform(0, 1, size, 1, 1)
        photo = self._uniform(0, 2, size, 1, 1).floor().clamp(max=1)
        y, x = _rotated(*self._grid(size), angle)
        crop = _sample(
            self._photos, photo * height + centre_y + side * y, centre_x + side * x
        )
        grey = crop.mean(1, keepdim=True)
        colour = self._difficulty.saturation * (crop - grey)
        gain = self._uniform(0.7, 1.4, size, 1, 1, 1)
        mean = grey.mean((2, 3), keepdim=True)
        level = self._uniform(0.4, 0.8, size, 1, 1, 1)
        return ((grey - mean) * gain + level).clamp(0.05, 0.95) + colour

    def _stroke(
        self, size: int, smallest: float, largest: float, jitter: float
    ) -> tuple[Tensor, Tensor]:
        """Masks ``[size, 1, SIDE, SIDE]`` in [0, 1] of random digits, and which."""
        count = len(self._labels)
        which = self._uniform(0, count, size).long().clamp(max=count - 1)
        y, x = self._grid(size)
        y = y - self._uniform(-jitter, jitter, size, 1, 1)
        x = x - self._uniform(-jitter, jitter, size, 1, 1)
        y, x = _rotated(y, x, self._uniform(-0.25, 0.25, size, 1, 1))
        x = x + self._uniform(-0.2, 0.2, size, 1, 1) * y
        scale = self._uniform(smallest, largest, size, 1, 1) / 8
        aspect = self._uniform(0.85, 1.15, size, 1, 1)
        middle = (_CELL - 1) / 2
        y = (middle + y / scale).clamp(0, _CELL - 1)
        x = (middle + x / (scale * aspect)).clamp(0, _CELL - 1)
        mask = _sample(self._digits, which.view(-1, 1, 1) * _CELL + y, x)
        thickness = self._uniform(0.15, 0.4, size, 1, 1, 1)
        return ((mask - thickness) / 0.35).clamp(0, 1), self._labels[which]

    def _half(self, mask: Tensor) -> Tensor:
        """Cut masks along random lines, so that what is left is no digit."""
        y, _ = _rotated(
            *self._grid(len(mask)), self._uniform(-math.pi, math.pi, len(mask), 1, 1)
        )
        return mask * (y > self._uniform(-0.2, 0.2, len(mask), 1, 1)).unsqueeze(1)

    def _colour(self, size: int) -> Tensor:
        """Random changes of colour ``[size, 3, 1, 1]``, mostly off the grey axis."""
        angle = self._uniform(-math.pi, math.pi, size)
        # An orthonormal basis of the plane that has no luminance.
        first = torch.tensor([1.0, -1.0, 0.0], device=self._device) / math.sqrt(2)
        second = torch.tensor([1.0, 1.0, -2.0], device=self._device) / math.sqrt(6)
        hue = angle.cos().view(-1, 1) * first + angle.sin().view(-1, 1) * second
        share = self._difficulty.luminance
        grey = self._uniform(-share, share, size, 1) / math.sqrt(3)
        low, high = self._difficulty.contrast
        return (self._uniform(low, high, size, 1) * (hue + grey)).view(-1, 3, 1, 1)


def _rotated(y: Tensor, x: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos(), angle.sin()
    return cos * y + sin * x, cos * x - sin * y


def _sample(atlas: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear values ``[B, C, …]`` of ``atlas [C, H, W]`` at ``[B, …]`` positions."""
    channels, height, width = atlas.shape
    top = y.floor().clamp(0, height - 2)
    left = x.floor().clamp(0, width - 2)
    down, right = (y - top).clamp(0, 1), (x - left).clamp(0, 1)
    index = (top * width + left).long()
    flat = atlas.reshape(channels, -1)
    upper = flat[:, index] * (1 - right) + flat[:, index + 1] * right
    lower = flat[:, index + width] * (1 - right) + flat[:, index + width + 1] * right
    return (upper * (1 - down) + lower * down).transpose(0, 1)
