"""Resize what lies on a grid: scores to a photo's size, features to another level's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import interpolate


def grow(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Resize scores (B, n, h, w) to (B, n, H, W) float32, bilinear; `size` is (H, W).

    Example:
        >>> import torch
        >>> grow(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
        tensor([[[[0.0000, 0.2500, 0.7500, 1.0000]]]])
    """
    scores = scores.float()
    return scores if scores.shape[2:] == tuple(size) else resize(scores, size)


def resize(features: Tensor, size: Sequence[int]) -> Tensor:
    """Resize features (B, c, h, w) to (B, c, H, W) in their own precision, bilinear; `size` is (H, W)."""
    return interpolate(features, size=list(size), mode="bilinear", align_corners=False)
