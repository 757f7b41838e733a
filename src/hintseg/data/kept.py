"""Kept features of photos and their hints as training batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from hintseg.data.dataset import Item, PhotoDataset
from hintseg.data.photos import photo_size
from hintseg.data.transforms import Place, TrainingTransform
from hintseg.types import IGNORE, Features, Photo

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

Levels = tuple[Tensor, ...]
"""What an encoder gave of a photo and of its mirror image, (2, c, h, w) each, the finest first; behind them what else
it gives to look through, of which nothing is learned."""


class FeatureDataset(PhotoDataset):
    """Crops of the grids of features that a frozen encoder gave of photos; no photo is decoded.

    A crop is cut on whole cells of the last level, or on the mirrored photo's. A photo smaller than that is continued
    by its own cells, mirrored at the border: there no label is known. Otherwise it is what `PhotoDataset` is.

    Args:
        photos: The photos to learn from; those without features count as unreadable.
        classes: Number of foreground classes K.
        read: Returns a photo's levels; None where it could not be read.
        strides: Image pixels per cell of each level.
        crop: Side of the square crop, pixels; it becomes a whole number of cells.
        masks: Returns a photo's labels, see `PhotoDataset`.
        trust: Returns how far to trust them, see there.
        seed: The run's seed.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        classes: int,
        read: Callable[[Photo], Levels | None],
        strides: Sequence[int],
        crop: int,
        masks: Callable[[Photo], Bytes | None] | None = None,
        *,
        trust: Callable[[Photo], Floats | None] | None = None,
        seed: int = 0,
    ) -> None:
        self.stride = strides[-1]
        self.finer = [self.stride // stride for stride in strides]
        self.cells = max(1, round(crop / self.stride))
        super().__init__(photos, classes, TrainingTransform(self.cells, (1.0, 1.0)), masks, trust=trust, seed=seed)
        self.levels = read

    def __getitem__(self, index: int) -> Item:
        random = np.random.default_rng((self.seed, self.epoch, index))
        photo, levels = self._kept(index)
        height, width = levels[-1].shape[-2:]
        place = self.transform.draw((height, width), random)
        size = photo_size(photo.path)
        labels = self._labels(photo, size)
        shown = self._exact(labels, place, IGNORE)
        x0, y0, x1, y1 = place.x0, place.y0, place.x0 + place.width, place.y0 + place.height
        return Item(
            photo.id,
            cast(Tensor, self._cut(levels, place)),
            *self._tags(photo, labels, shown),
            torch.tensor([x0, y0, x1, y1]) * self.stride,
            shown,
            trust=self._exact(self._trust(photo, size), place, 0),
        )

    def _kept(self, index: int) -> tuple[Photo, Levels]:
        for step in range(len(self.photos)):
            i = (index + step) % len(self.photos)
            levels = None if self._broken[i] else self.levels(self.photos[i])
            if levels is not None:
                return self.photos[i], levels[: len(self.finer)]
            self._broken[i] = True
        raise self.none_left()

    def _cut(self, levels: Levels, place: Place) -> Features:
        """Cut the crop out of the grid of the photo, or of its mirror image."""
        (height, width), cells = place.size, self.cells
        left = width - place.left - place.width if place.flip else place.left
        cut = []
        for level, finer in zip(levels, self.finer, strict=True):
            grid = level[int(place.flip)][None].float()
            if grid.shape[-2:] != (height * finer, width * finer):  # sides that the stride does not divide
                grid = interpolate(grid, size=[height * finer, width * finer], mode="bilinear", align_corners=False)
            for axis, first, count, before in (
                (2, place.top, place.height, place.y0),
                (3, left, place.width, place.x0),
            ):
                around = (before * finer, (cells - count - before) * finer)
                inside = np.arange(first * finer, (first + count) * finer)
                grid = grid.index_select(axis, torch.from_numpy(np.pad(inside, around, mode="symmetric")))
            cut.append(grid)
        return Features(tuple(cut), (cells * self.stride, cells * self.stride))

    def _exact(self, values: Bytes | None, place: Place, fill: int) -> Tensor | None:
        """Cut the crop out of labels: each cell covers the same share of the photo as in the grid."""
        if values is None:
            return None
        s = self.stride
        size = [side * s for side in place.size]
        grown = interpolate(torch.from_numpy(values)[None, None], size=size, mode="nearest-exact")[0, 0]
        part = grown[place.top * s : (place.top + place.height) * s, place.left * s : (place.left + place.width) * s]
        if place.flip:
            part = part.flip(1)
        after_x, after_y = self.cells - place.width - place.x0, self.cells - place.height - place.y0
        return pad(part, [place.x0 * s, after_x * s, place.y0 * s, after_y * s], value=fill)
