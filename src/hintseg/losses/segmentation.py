"""Losses of class logits against masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from hintseg.types import BACKGROUND, IGNORE


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


def balanced_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean of two mean cross entropies: of the background pixels and of all other labelled ones.

    Args:
        logits: (B, C, H, W), C = K + 1 with background first.
        masks: (B, H, W) uint8: 0 background, 1..K, 255 ignore.

    Returns:
        Scalar >= 0; a kind of pixel that does not occur adds 0.

    Source:
        Ru et al., AFA, CVPR 2022 (their code).
    """
    foreground = masks.masked_fill(masks == BACKGROUND, IGNORE)
    background = masks.masked_fill(masks != BACKGROUND, IGNORE)
    return (pixel_cross_entropy(logits, background) + pixel_cross_entropy(logits, foreground)) / 2


def pixel_soft_margin(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean multi-label soft margin loss over labelled pixels: each class is a yes-or-no question of its own.

    Args:
        logits: (B, C, H, W), C = K + 1 with background first.
        masks: (B, H, W) uint8: 0 background, 1..K, 255 ignore.

    Returns:
        Scalar >= 0, the mean over pixels and classes; 0, with a gradient of 0, where no pixel is labelled.

    Example:
        >>> import torch
        >>> pixel_soft_margin(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]], dtype=torch.uint8))
        tensor(0.6931)

    Source:
        One of the two forms of l_seg that Zhu et al., BMP, name below Eq. 6; the one their code takes for L_c2s.
    """
    logits, known = logits.float(), masks != IGNORE
    true = logits.gather(1, masks.masked_fill(~known, BACKGROUND)[:, None].long())[:, 0]
    # -log sigmoid(x) = softplus(x) - x for the pixel's class, -log(1 - sigmoid(x)) = softplus(x) for every other.
    each = (softplus(logits).sum(dim=1) - true) / logits.shape[1]
    return (each * known).sum() / known.sum().clamp(min=1)
