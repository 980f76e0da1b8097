"""From a decoded image to the tensor that a network takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
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
        if not 1 <= self.crop <= self.resize:
            raise ValueError("need 1 <= crop <= resize")
        if self.interpolation not in _FILTERS:
            raise ValueError(f"interpolation is one of {', '.join(_FILTERS)}")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")

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
        if image.width > image.height:
            size = (size[1], size[0])
        return image.resize(size, _FILTERS[self.interpolation])
