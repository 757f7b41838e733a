"""What losses of pixels share: all logits of a prediction, at the size of the labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.config.settings import Count
from hintseg.errors import ConfigError
from hintseg.nn.resize import grow
from hintseg.types import IGNORE, Prediction, Progress, Supervision, Targets


class PixelObjective(Objective):
    """Base of objectives that compare logits with labels, pixel by pixel.

    Logits are resized to the labels. Where a segmenter gives several, every one is judged and the losses are summed.

    Attributes:
        key: Name of the loss in log.csv.
        every: Judge one pixel of n * n alone, each n-th of each n-th row: the logits of neighbours differ little, and
            judging all of them may take longer than a light network. Of an image in which fewer pixels than that are
            labelled, by strokes or clicks, all of these are judged.
    """

    needs = frozenset({Supervision.MASKS})
    sees_images = False
    key: ClassVar[str]
    every: Count = 1

    def of(self, logits: Tensor, pixels: Tensor, trust: Tensor | None) -> Tensor:
        """Return the loss of logits (B, C, H, W) float32 against `Targets.pixels` and `Targets.trust`, a scalar."""
        raise NotImplementedError

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return the weighted sum over all logits of the prediction."""
        pixels, trust, judged = self.pixels(targets), targets.trust, slice(self.every // 2, None, self.every)
        if seen.logits is None:
            raise ConfigError(f"objective '{self.name}' judges logits, and this prediction has none")
        given: Iterable[Tensor] = (seen.logits, *seen.others)
        grid = torch.zeros_like(pixels[0], dtype=torch.bool)
        grid[judged, judged] = True
        known = pixels != IGNORE
        sparse = known.sum(dim=(1, 2), keepdim=True) < grid.sum()
        if self.every > 1 and bool(sparse.any()):
            places = (known & (grid | sparse)).nonzero().unbind(dim=1)
            views = [at(logits, places, pixels.shape[-2:]) for logits in given]
            pixels, trust = pixels[places][None, None], None if trust is None else trust[places][None, None]
        else:
            if self.every > 1:
                pixels, trust = pixels[:, judged, judged], None if trust is None else trust[:, judged, judged]
            views = [grow(logits, pixels.shape[-2:]) for logits in given]
        return {self.key: self.weight * torch.stack([self.of(v, pixels, trust) for v in views]).sum()}


def at(logits: Tensor, places: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Return logits at some pixels of the images: those of `grow`, without the others.

    Args:
        logits: (B, C, h, w).
        places: Image, row and column of each of M pixels, (M,) int64 each.
        size: (H, W) of the images.

    Returns:
        (1, C, 1, M).
    """
    image, *cells = places
    ends = []
    for cell, small, large in zip(cells, logits.shape[-2:], size, strict=True):
        place = ((cell + 0.5) * (small / large) - 0.5).clamp(min=0)
        low = place.floor().long().clamp(max=small - 1)
        ends.append((low, (low + 1).clamp(max=small - 1), (place - low).clamp(max=1)[:, None]))
    (top, bottom, y), (left, right, x) = ends
    values = logits.float().movedim(1, -1)
    upper = values[image, top, left] * (1 - x) + values[image, top, right] * x
    lower = values[image, bottom, left] * (1 - x) + values[image, bottom, right] * x
    return (upper * (1 - y) + lower * y).t()[None, :, None]
