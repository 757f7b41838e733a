"""Checks of the photos and scores that refiners take."""

from __future__ import annotations

import torch
from torch import Tensor

from hintseg.errors import ShapeError


def as_photos(rgb: Tensor) -> Tensor:
    """Return a batch of photos as contiguous float32.

    Args:
        rgb: Photos, (B, 3, H, W), uint8, or float in 0..255.

    Raises:
        ShapeError: `rgb` has another shape, an empty side, another dtype, or values outside 0..255.
    """
    if rgb.ndim != 4 or rgb.shape[1] != 3 or 0 in rgb.shape[2:]:
        raise ShapeError(f"rgb has shape {tuple(rgb.shape)}; photos (B, 3, H, W) with H, W >= 1 are needed")
    if rgb.dtype != torch.uint8:
        if not rgb.is_floating_point():
            raise ShapeError(f"rgb is {rgb.dtype}; give uint8, or float in 0..255")
        if not bool(((rgb >= 0) & (rgb <= 255)).all()):
            raise ShapeError("rgb has values outside 0..255 (or NaN); give the photo as it is, not normalised")
    return rgb.float().contiguous()


def check_scores(scores: Tensor, rgb: Tensor, *, name: str) -> None:
    """Check that `scores` (B, C, h, w) are float and belong to the photos `rgb` (B, 3, H, W).

    Raises:
        ShapeError: another number of axes or photos, no channel, an empty side, no float dtype, or another device.
    """
    if scores.ndim != 4 or 0 in scores.shape[1:] or not scores.is_floating_point():
        raise ShapeError(
            f"{name} are {scores.dtype} of shape {tuple(scores.shape)}; a float tensor (B, C, h, w) with "
            "C, h, w >= 1 is needed"
        )
    if len(scores) != len(rgb):
        raise ShapeError(f"{name} hold {len(scores)} photos and rgb holds {len(rgb)}; give one score map per photo")
    if scores.device != rgb.device:
        raise ShapeError(f"{name} are on {scores.device} and rgb on {rgb.device}; move both to one device")
