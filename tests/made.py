"""Small made data that several test files share. A `Batch` is built here and nowhere else in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hintseg.refine.random_walk import path_offsets
from hintseg.types import Batch, Box, Mark, Targets

Known = TypeVar("Known")


def given(value: Known | None) -> Known:
    """A value that the test knows to be there."""
    assert value is not None
    return value


def of(kind: type[Known], value: object) -> Known:
    """A value that the test knows to be of a kind."""
    assert isinstance(value, kind)
    return value


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(
    images: Tensor,
    tags: Tensor,
    pixels: Tensor | None = None,
    windows: Tensor | None = None,
    source: Batch | None = None,
    boxes: tuple[Tensor, ...] | None = None,
) -> Batch:
    """Photos of known tags that fill their crops, unless `windows` says otherwise."""
    count, _, height, width = images.shape
    if windows is None:
        windows = torch.tensor([[0, 0, width, height]] * count)
    targets = Targets(tags, torch.ones_like(tags, dtype=torch.bool), windows, pixels, boxes=boxes)
    return Batch([str(i) for i in range(count)], images, targets, source)


def with_targets(batch: Batch, **changes: Any) -> Batch:
    """The batch with some of its targets changed."""
    return replace(batch, targets=replace(batch.targets, **changes))


def two_halves(size: int = 64, values: tuple[int, int] = (1, 2)) -> Tensor:
    """A mask (1, H, W) whose right half has another label."""
    mask = torch.full((1, size, size), values[0], dtype=torch.uint8)
    mask[:, :, size // 2 :] = values[1]
    return mask


def noise_with(masks: Tensor) -> Batch:
    """Noise that was given these masks; two classes, both tagged."""
    return batch_of(rand(len(masks), 3, *masks.shape[1:], seed=1), torch.ones(len(masks), 2), masks)


def dark_halves(size: tuple[int, int] = (64, 64), values: tuple[int, int] = (1, 2), count: int = 2) -> Batch:
    """Photos whose right half is darker, and masks that say so."""
    images = rand(count, 3, *size, seed=1)
    masks = torch.full((count, *size), values[0], dtype=torch.uint8)
    images[..., size[1] // 2 :] *= 0.3
    masks[..., size[1] // 2 :] = values[1]
    return batch_of(images, torch.ones(count, 2), masks)


def blob_photo(side: int = 40) -> tuple[Tensor, Tensor]:
    """A red disc on grey, and a map that is highest in its middle."""
    y, x = torch.meshgrid(torch.arange(side) - side / 2, torch.arange(side) - side / 2, indexing="ij")
    distance = (y**2 + x**2).sqrt()
    rgb = torch.full((3, side, side), 120, dtype=torch.uint8)
    rgb[0][distance < side / 4] = 250
    return rgb, (1 - distance / (side / 3)).clamp(0, 1)[None]


THINGS = (Mark(1, Box(4, 6, 24, 30), object=1), Mark(2, Box(18, 10, 44, 36), object=2))
"""Boxes around what `two_things` shows."""


def two_things() -> npt.NDArray[np.uint8]:
    """A photo (40, 56, 3) of two bright things on noise."""
    rgb = np.random.default_rng(0).integers(90, 150, (40, 56, 3), dtype=np.uint8)
    rgb[8:28, 6:18] = (230, 60, 60)
    rgb[14:34, 24:42] = (40, 60, 220)
    return rgb


def offsets_of(radius: float) -> list[tuple[int, int]]:
    """The neighbours of a cell as (dy, dx), each pair once."""
    return [(path.dy, path.dx) for path in path_offsets(radius)]
