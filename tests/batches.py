"""Batches of which all tags are known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hintseg.types import Batch, Targets


def batch_of(
    images: Tensor,
    tags: Tensor,
    pixels: Tensor | None = None,
    windows: Tensor | None = None,
    source: Batch | None = None,
    boxes: tuple[Tensor, ...] | None = None,
) -> Batch:
    """Images without padding, unless `windows` says otherwise."""
    count, _, height, width = images.shape
    if windows is None:
        windows = torch.tensor([[0, 0, width, height]] * count)
    targets = Targets(tags, torch.ones_like(tags, dtype=torch.bool), windows, pixels, boxes=boxes)
    return Batch([str(i) for i in range(count)], images, targets, source)


def with_targets(batch: Batch, **changes: object) -> Batch:
    """The batch with some of its targets changed."""
    return replace(batch, targets=replace(batch.targets, **changes))
