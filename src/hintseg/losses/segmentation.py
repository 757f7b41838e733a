"""Losses of class logits against masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from hintseg.types import IGNORE


def pixel_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean cross entropy over labelled pixels; 0, with a gradient of 0, where no pixel is labelled.

    Args:
        logits: (B, C, H, W), C = K + 1 with background first.
        masks: (B, H, W) uint8: 0 background, 1..K, 255 ignore.

    Returns:
        Scalar >= 0.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 2)
        >>> pixel_cross_entropy(logits, torch.tensor([[[1, 255]]], dtype=torch.uint8))
        tensor(0.6931)
        >>> pixel_cross_entropy(logits, torch.full((1, 1, 2), 255, dtype=torch.uint8))
        tensor(0.)
    """
    total = cross_entropy(logits.float(), masks.long(), ignore_index=IGNORE, reduction="sum")
    return total / (masks != IGNORE).sum().clamp(min=1)
