"""Joint transforms of a photo and its mask for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hintseg.lean import torchvision
from hintseg.types import IGNORE, Hints

F = torchvision.transforms.v2.functional

Bytes = npt.NDArray[np.uint8]

PAD_RGB = (124, 116, 104)
"""ImageNet's mean colour: close to zero once a backbone has normalised it."""


class Place(NamedTuple):
    """What chance says of one photo.

    Attributes:
        size: (H, W) that the photo is scaled to.
        top: First row of the part that is cut out of that.
        left: Its first column.
        height: Its rows.
        width: Its columns.
        y0: Where it lies on the crop, its first row.
        x0: Its first column there.
        flip: Whether it is mirrored.
        colours: Factors of brightness, contrast and saturation, (3,).
    """

    size: list[int]
    top: int
    left: int
    height: int
    width: int
    y0: int
    x0: int
    flip: bool
    colours: npt.NDArray[np.float64]

    def boxes(self, hints: Hints, size: Sequence[int]) -> Tensor:
        """Move the boxes of a photo's objects onto the crop.

        Args:
            hints: The photo's.
            size: (H, W) of the photo, pixels.

        Returns:
            Label and box inside the crop, (n, 5) float32; those that the crop does not show are left out.
        """
        rows = np.array([[mark.label, *mark.shape.corners] for mark in hints.objects], np.float32).reshape(-1, 5)
        for low, high, scale, first, part, before in (
            (1, 3, self.size[1] / size[1], self.left, self.width, self.x0),
            (2, 4, self.size[0] / size[0], self.top, self.height, self.y0),
        ):
            ends = np.clip(rows[:, [low, high]] * scale - first, 0, part)
            if self.flip and low == 1:
                ends = part - ends[:, ::-1]
            rows[:, [low, high]] = ends + before
        return torch.from_numpy(rows[(rows[:, 3] > rows[:, 1]) & (rows[:, 4] > rows[:, 2])])


class View(NamedTuple):
    """What a training transform makes of one photo.

    Attributes:
        image: (3, crop, crop) uint8 RGB, padded with `PAD_RGB`.
        mask: (crop, crop) uint8 labels, padded with 255; None where none was given.
        window: (4,) int64 box (x0, y0, x1, y1) of the photo inside the crop.
        trust: (crop, crop) uint8, 255 = wholly, padded with 0; None where none was given.
        place: Where the photo lies on the crop.
    """

    image: Tensor
    mask: Tensor | None
    window: Tensor
    trust: Tensor | None
    place: Place


@dataclass(frozen=True, slots=True)
class TrainingTransform:
    """Random scale, colour, flip and crop of a photo and its mask.

    The photo is scaled, a random part of at most `crop` x `crop` pixels is cut out, and where the scaled photo is
    smaller than the crop it is laid at a random place on a padded one.

    Args:
        crop: Side of the square crop, pixels.
        scale: Smallest and largest scale, drawn evenly, as factors of the photo's own size.
        jitter: Brightness, contrast and saturation are multiplied by random factors in 1 - jitter .. 1 + jitter.
        longest: Photos with a longer side, pixels, are reduced to it before the random scale; None: as they are.

    Example:
        >>> transform = TrainingTransform(crop=64, scale=(0.5, 0.5))
        >>> view = transform(np.zeros((80, 200, 3), np.uint8), None, np.random.default_rng(0))
        >>> view.image.shape, (view.window[2] - view.window[0], view.window[3] - view.window[1])
        (torch.Size([3, 64, 64]), (tensor(64), tensor(40)))
    """

    crop: int
    scale: tuple[float, float]
    jitter: float = 0.0
    longest: int | None = None

    def draw(self, size: Sequence[int], random: np.random.Generator) -> Place:
        """Draw what is done to a photo of `size`, (H, W)."""
        factor = random.uniform(*self.scale) * reduction(size, self.longest)
        scaled = [max(1, round(side * factor)) for side in size]
        height, width = (min(side, self.crop) for side in scaled)
        top, left = (int(random.integers(side - part + 1)) for side, part in zip(scaled, (height, width), strict=True))
        y0, x0 = (int(random.integers(self.crop - part + 1)) for part in (height, width))
        flip = random.random() < 0.5
        colours = random.uniform(1 - self.jitter, 1 + self.jitter, size=3)
        return Place(scaled, top, left, height, width, y0, x0, bool(flip), colours)

    def __call__(self, rgb: Bytes, mask: Bytes | None, random: np.random.Generator, trust: Bytes | None = None) -> View:
        """Transform a photo, its mask and the trust in that alike.

        Args:
            rgb: Photo, (H, W, 3) uint8.
            mask: Labels, (H, W) uint8, or None.
            random: The only source of chance: the same state gives the same view.
            trust: In each label, (H, W) uint8 0..255, or None.
        """
        place = self.draw(rgb.shape[:2], random)
        size, top, left, height, width, y0, x0, flip, colours = place

        def cut(picture: Tensor, mode: str) -> Tensor:
            picture = F.resize(
                picture, size, interpolation=torchvision.transforms.InterpolationMode(mode), antialias=True
            )
            picture = F.crop(picture, top, left, height, width)
            flipped: Tensor = F.horizontal_flip(picture) if flip else picture
            return flipped

        image = cut(torch.from_numpy(rgb).permute(2, 0, 1), "bilinear")
        if self.jitter:  # before the padding, which keeps its colour
            image = adjust_colours(image, colours)
        padding = [x0, y0, self.crop - width - x0, self.crop - height - y0]
        image = F.pad(image, padding, fill=list(PAD_RGB))

        def exact(values: Bytes | None, fill: int) -> Tensor | None:
            # The exact mode takes the pixel under the new one's centre, as the photo's bilinear mode does. The plain
            # nearest mode, which torchvision gives a tv_tensors.Mask, takes its corner: masks shift by half a pixel.
            if values is None:
                return None
            laid: Tensor = F.pad(cut(torch.from_numpy(values)[None], "nearest-exact"), padding, fill=fill)
            return laid[0]

        window = torch.tensor([x0, y0, x0 + width, y0 + height])
        return View(image, exact(mask, IGNORE), window, exact(trust, 0), place)


def adjust_colours(image: Tensor, factors: npt.NDArray[np.float64]) -> Tensor:
    """Multiply brightness, contrast and saturation of an image (3, H, W) uint8 by three factors."""
    for adjust, factor in zip((F.adjust_brightness, F.adjust_contrast, F.adjust_saturation), factors, strict=True):
        image = adjust(image, float(factor))
    return image


def reduction(size: Sequence[int], longest: int | None) -> float:
    """Return the factor that brings the longer side of `size` down to `longest` pixels; 1 where it is not longer.

    Example:
        >>> reduction((1000, 4000), 500), reduction((100, 400), 500)
        (0.125, 1.0)
    """
    return 1.0 if longest is None else min(1.0, longest / max(size))
