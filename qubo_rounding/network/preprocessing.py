"""From a decoded image to the tensor that a network takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from solvers.errors import InputError

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# Least positive and largest number of float32.
_TINY, _MOST = (float(getattr(np.finfo(np.float32), key)) for key in ("tiny", "max"))
# Largest image after resizing: the side in pixels of a square of its area.
LARGEST = 1 << 14
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side, crop the centre, normalise the channels.

    Attributes
    ----------
    resize
        Short side in pixels after resizing; an image that has it is not resampled.
    crop
        Side of the square cut from the centre, in pixels.
    mean, std
        Per channel, for values in [0, 1].
    interpolation
        ``"nearest"``, ``"bilinear"`` or ``"bicubic"``, antialiased (Pillow's).
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        sides = self.resize, self.crop
        whole = all(isinstance(s, Integral) and not isinstance(s, bool) for s in sides)
        if not whole or not 1 <= self.crop <= self.resize <= LARGEST:
            raise InputError(
                f"resize and crop must be integers with 1 <= crop <= resize <= "
                f"{LARGEST}, not {self.resize!r:.20} and {self.crop!r:.20}"
            )
        if not _three(self.mean, least=-_MOST):
            raise InputError("mean must be three finite numbers")
        if not _three(self.std, least=_TINY):
            raise InputError("std must be three finite numbers, all of them positive")
        if self.interpolation not in list(_FILTERS):
            raise InputError(f"interpolation is one of {', '.join(_FILTERS)}")

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read a JSON object that has all the attributes, and nothing else.

        Raises
        ------
        InputError
            It is something else; one line says what.
        """
        names = [field.name for field in fields(cls)]
        try:
            described = json.loads(text)
        except (ValueError, RecursionError):
            described = None
        if not isinstance(described, dict) or described.keys() != set(names):
            raise InputError(f"expected a JSON object with {', '.join(names)}")
        for name in ("mean", "std"):
            if isinstance(described[name], list):
                described[name] = tuple(described[name])
        return cls(**described)

    def __call__(self, image: Image.Image) -> Tensor:
        """Float32 tensor ``[3, crop, crop]`` of an image of any size and mode."""
        image = self._resized(image.convert("RGB"))
        left = round((image.width - self.crop) / 2)
        top = round((image.height - self.crop) / 2)
        square = image.crop((left, top, left + self.crop, top + self.crop))
        values = torch.from_numpy(np.array(square, dtype=np.float32) / 255)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return ((values - mean) / std).permute(2, 0, 1)

    def _resized(self, image: Image.Image) -> Image.Image:
        short, long = sorted(image.size)
        if short == self.resize:
            return image
        size = (self.resize, int(self.resize * long / short))
        if size[0] * size[1] > LARGEST**2:
            raise InputError(
                f"{image.width} x {image.height} pixels are too long an image to be "
                f"resized to {self.resize} on the short side"
            )
        if image.width > image.height:
            size = (size[1], size[0])
        return image.resize(size, _FILTERS[self.interpolation])


def _three(values: Sequence[float], least: float) -> bool:
    """Whether these are three numbers from `least` to the largest of float32."""
    if not isinstance(values, list | tuple) or len(values) != 3:
        return False
    kinds = int | float | np.floating
    return all(isinstance(v, kinds) and least <= v <= _MOST for v in values)
