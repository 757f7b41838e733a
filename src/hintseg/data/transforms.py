"""Joint transforms of a photo and its mask for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from hintseg.types import IGNORE

Bytes = npt.NDArray[np.uint8]

PAD_RGB = (124, 116, 104)
"""ImageNet's mean colour: close to zero once a backbone has normalised it."""


class View(NamedTuple):
    """What a training transform makes of one photo.

    Attributes:
        image: (3, crop, crop) uint8 RGB, padded with `PAD_RGB`.
        mask: (crop, crop) uint8 labels, padded with 255; None where none was given.
        window: (4,) int64 box (x0, y0, x1, y1) of the photo inside the crop.
    """

    image: Tensor
    mask: Tensor | None
    window: Tensor


@dataclass(frozen=True, slots=True)
class TrainingTransform:
    """Random scale, colour, flip and crop of a photo and its mask.

    The photo is scaled, a random part of at most `crop` x `crop` pixels is cut out, and where the scaled photo is
    smaller than the crop it is laid at a random place on a padded one.

    Args:
        crop: Side of the square crop, pixels.
        scale: Smallest and largest scale, drawn evenly, as factors of the photo's own size.
        jitter: Brightness, contrast and saturation are multiplied by random factors in 1 - jitter .. 1 + jitter.

    Example:
        >>> transform = TrainingTransform(crop=64, scale=(0.5, 0.5))
        >>> view = transform(np.zeros((80, 200, 3), np.uint8), None, np.random.default_rng(0))
        >>> view.image.shape, (view.window[2] - view.window[0], view.window[3] - view.window[1])
        (torch.Size([3, 64, 64]), (tensor(64), tensor(40)))
    """

    crop: int
    scale: tuple[float, float]
    jitter: float = 0.0

    def __call__(self, rgb: Bytes, mask: Bytes | None, random: np.random.Generator) -> View:
        """Transform a photo and its mask alike.

        Args:
            rgb: Photo, (H, W, 3) uint8.
            mask: Labels, (H, W) uint8, or None.
            random: The only source of chance: the same state gives the same view.
        """
        image: Tensor = tv_tensors.Image(torch.from_numpy(rgb).permute(2, 0, 1))
        label: Tensor | None = None if mask is None else tv_tensors.Mask(torch.from_numpy(mask)[None])

        factor = random.uniform(*self.scale)
        size = [max(1, round(side * factor)) for side in rgb.shape[:2]]
        height, width = (min(side, self.crop) for side in size)
        top, left = (int(random.integers(side - part + 1)) for side, part in zip(size, (height, width), strict=True))
        y0, x0 = (int(random.integers(self.crop - part + 1)) for part in (height, width))
        flip = random.random() < 0.5
        brightness, contrast, saturation = random.uniform(1 - self.jitter, 1 + self.jitter, size=3)

        def cut(picture: Tensor, fill: list[float]) -> Tensor:
            # The kernels know a Mask from an Image: masks are resized by the nearest neighbour.
            picture = F.resize(picture, size, antialias=True)
            picture = F.crop(picture, top, left, height, width)
            if flip:
                picture = F.horizontal_flip(picture)
            if self.jitter and isinstance(picture, tv_tensors.Image):  # before padding: the padding keeps its colour
                picture = F.adjust_brightness(picture, brightness)
                picture = F.adjust_contrast(picture, contrast)
                picture = F.adjust_saturation(picture, saturation)
            padding = [x0, y0, self.crop - width - x0, self.crop - height - y0]
            padded: Tensor = F.pad(picture, padding, fill=fill).as_subclass(Tensor)
            return padded

        return View(
            cut(image, list(PAD_RGB)),
            None if label is None else cut(label, [IGNORE])[0],
            torch.tensor([x0, y0, x0 + width, y0 + height]),
        )


def to_tensor(rgb: Bytes) -> Tensor:
    """Turn a photo (H, W, 3) uint8 into a network input (3, H, W) float32 in 0..1.

    Example:
        >>> to_tensor(np.full((1, 1, 3), 255, np.uint8)).flatten()
        tensor([1., 1., 1.])
    """
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous().float() / 255
