"""The background step: from class maps to seeds. It is never part of the normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from hintseg.errors import ShapeError
from hintseg.types import BACKGROUND, IGNORE


def constant_background(maps: Tensor, threshold: float) -> Tensor:
    """Return a background score that is the same everywhere.

    Args:
        maps: Normalised class maps, (..., n, h, w) in 0..1, n >= 0.
        threshold: The background's score, 0..1.

    Returns:
        (..., 1, h, w).

    Source:
        Ahn, Cho and Kwak, CVPR 2019 (0.15); Ru, Du and Wu, IJCAI 2021 (0.14 in their code).
    """
    return maps.new_full((*maps.shape[:-3], 1, *maps.shape[-2:]), threshold)


def power_background(maps: Tensor, alpha: float) -> Tensor:
    """Return a background score that is high where no class is: (1 - largest class score) ** alpha.

    Args:
        maps: Normalised class maps, (..., n, h, w) in 0..1, n >= 1.
        alpha: Exponent > 0; the larger, the less background.

    Returns:
        (..., 1, h, w) in 0..1.

    Example:
        >>> power_background(torch.tensor([[[0.5, 0.0]], [[0.25, 0.0]]]), alpha=2)
        tensor([[[0.2500, 1.0000]]])

    Source:
        Ahn and Kwak, CVPR 2018, section 3.1 (alpha 4 and 32 for their two label sets).
    """
    return (1 - maps.amax(dim=-3, keepdim=True)) ** alpha


def seeds(maps: Tensor, class_ids: Tensor, threshold: float | None) -> Tensor:
    """Give each pixel the class of its largest map, or background where none passes the threshold.

    Args:
        maps: Normalised maps of the present classes, (n, h, w) in 0..1; n may be 0.
        class_ids: Class ids 1..K of the maps, (n,), integers.
        threshold: Score of the constant background, 0..1; None for data in which every pixel has a class.

    Returns:
        (h, w) uint8: 0 background, 1..K classes. A photo without present classes is all background, or all 255 (nothing
        is known) if `threshold` is None.

    Raises:
        ShapeError: `class_ids` and `maps` differ in number.

    Example:
        >>> seeds(torch.tensor([[[0.9, 0.1]], [[0.2, 0.05]]]), torch.tensor([3, 7]), 0.15)
        tensor([[3, 0]], dtype=torch.uint8)
    """
    if maps.dim() != 3 or class_ids.shape != maps.shape[:1]:
        raise ShapeError(
            f"seeds need maps (n, h, w) and class ids (n,), got {tuple(maps.shape)} and {tuple(class_ids.shape)}"
        )
    if len(maps) == 0:
        value = IGNORE if threshold is None else BACKGROUND
        return torch.full(maps.shape[1:], value, dtype=torch.uint8, device=maps.device)
    ids = class_ids.to(maps.device, torch.uint8)
    if threshold is None:
        return ids[maps.argmax(dim=0)]
    scores = torch.cat([constant_background(maps, threshold), maps])
    return torch.cat([ids.new_full((1,), BACKGROUND), ids])[scores.argmax(dim=0)]
