"""Class maps: merged over scales and flips, and normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from hintseg.nn.resize import grow, resize
from hintseg.types import Features

EPSILON = 1e-5
"""Added to the maximum that maps are divided by, as in the IRN, PSA and VWE code."""


def normalise(maps: Tensor, tags: Tensor, *, own_maximum: bool = True) -> Tensor:
    """Divide class maps by their maximum and zero the maps of absent classes.

    Against one background score every class needs its own maximum. Where there is no background, classes compete with
    each other alone, and how strong one is beside the others is what a classifier says: dividing each by its own
    maximum would throw that away, so all present classes of a photo share one. Maps that are on no common scale, such
    as attention, need their own all the same.

    Args:
        maps: Class maps, (B, K, h, w), >= 0.
        tags: 1 where the class is present in the photo, (B, K).
        own_maximum: Whether each class is divided by its own maximum, and not by that of the photo.

    Returns:
        (B, K, h, w) in 0..1: the largest of each present class is 1, or that of each photo.

    Example:
        >>> maps, tags = torch.tensor([[[[2.0, 1.0]], [[4.0, 0.0]], [[8.0, 8.0]]]]), torch.tensor([[1.0, 1.0, 0.0]])
        >>> normalise(maps, tags)[0, :, 0]
        tensor([[1.0000, 0.5000],
                [1.0000, 0.0000],
                [0.0000, 0.0000]])
        >>> normalise(maps, tags, own_maximum=False)[0, :, 0]
        tensor([[0.5000, 0.2500],
                [1.0000, 0.0000],
                [0.0000, 0.0000]])
    """
    present = (tags > 0)[:, :, None, None]
    if own_maximum:
        return maps / (maps.amax(dim=(2, 3), keepdim=True) + EPSILON) * present
    maps = maps * present
    return maps / (maps.amax(dim=(1, 2, 3), keepdim=True) + EPSILON)


def stretch(maps: Tensor) -> Tensor:
    """Stretch each class map to 0..1 by its own minimum and maximum.

    Args:
        maps: (B, K, h, w).

    Returns:
        (B, K, h, w) in 0..1.

    Source:
        Ru et al., AFA, CVPR 2022 (their code); other methods divide by the maximum alone, see `normalise`.
    """
    shifted = maps - maps.amin(dim=(2, 3), keepdim=True)
    return shifted / (shifted.amax(dim=(2, 3), keepdim=True) + EPSILON)


def merge_twins(maps: Tensor, size: tuple[int, int], how: Literal["max", "mean"]) -> Tensor:
    """Resize the maps of photos and of their mirrored twins, and merge each pair.

    Args:
        maps: (2B, n, h, w): B photos, then the same photos mirrored.
        size: (H, W) of the result.
        how: The larger of both, or their mean.

    Returns:
        (B, n, H, W).
    """
    own, twin = grow(maps, size).chunk(2)
    twin = twin.flip(3)
    return torch.maximum(own, twin) if how == "max" else (own + twin) / 2


def merge_scales(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize the maps of all scales to one size and sum them.

    Args:
        maps: One tensor (B, K, h_s, w_s) per scale.
        size: (h, w) of the result, cells or pixels.

    Returns:
        (B, K, h, w), not normalised.
    """
    return torch.stack([grow(m, size) for m in maps]).sum(dim=0)


@torch.no_grad()
def multi_scale(
    class_maps: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
    flip: Literal["max", "sum", "none"] = "max",
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Compute class maps at several scales, with mirrored twins in the same batch, and merge them.

    Args:
        class_maps: (B, 3, H, W) -> (B, K, h, w), >= 0; the network in evaluation mode.
        images: Photos of one size, (B, 3, H, W).
        scales: Factors of the photo's size.
        flip: How a map and its twin, mirrored back, are merged: the larger (`max`, VWE), the sum (`sum`, IRN), or no
            twin at all (`none`).
        size: (h, w) of the result; the photos' own size (H, W) if None.

    Returns:
        The sum over scales, (B, K, h, w), not normalised.

    Cost:
        One forward pass of 2B images per scale; time grows with the square of the scales.

    Source:
        Ahn, Cho and Kwak, CVPR 2019, and Ru, Du and Wu, IJCAI 2021 (their code).
    """
    height, width = images.shape[2:]
    merged = []
    for scale in scales:
        shape = (max(round(height * scale), 1), max(round(width * scale), 1))
        scaled = images
        if shape != (height, width):
            scaled = resize(images, shape)
        if flip == "none":
            merged.append(class_maps(scaled))
            continue
        maps, twin = class_maps(_with_twins(scaled)).chunk(2)
        twin = twin.flip(3)
        merged.append(torch.maximum(maps, twin) if flip == "max" else maps + twin)
    return merge_scales(merged, size or (height, width))


def _with_twins(images: Tensor | Features) -> Tensor:
    """Return images, or features that stand in for them, followed by those of their mirrored twins."""
    if isinstance(images, Features):
        both = zip(images.levels, images.mirrored, strict=True)
        return cast(Tensor, Features(tuple(torch.cat(pair) for pair in both), images.size))
    return torch.cat([images, images.flip(3)])
