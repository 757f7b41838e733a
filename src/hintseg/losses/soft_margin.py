"""Soft margin of the labelled pixels: each class is a yes-or-no question of its own."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import softplus

from hintseg.losses.pixels import PixelObjective
from hintseg.types import BACKGROUND, IGNORE


class SoftMargin(PixelObjective):
    """The mean logistic loss over labelled pixels and classes.

    Source:
        One of the two forms of l_seg that Zhu et al., BMP, name below Eq. 6.
    """

    name: Literal["soft_margin"] = "soft_margin"
    key = "soft_margin"

    def of(self, logits: Tensor, pixels: Tensor, trust: Tensor | None) -> Tensor:
        """Return `pixel_soft_margin`."""
        return pixel_soft_margin(logits, pixels, trust)


def pixel_soft_margin(logits: Tensor, pixels: Tensor, trust: Tensor | None = None) -> Tensor:
    """Return the mean multi-label soft margin loss over labelled pixels: each class is a yes-or-no question of its own.

    Args:
        logits: (B, C, H, W), C = K + 1 with background first.
        pixels: (B, H, W) uint8: 0 background, 1..K, 255 not said.
        trust: Factor of each pixel, (B, H, W), 0..1; None: 1.

    Returns:
        Scalar >= 0, the mean over pixels and classes; 0, with a gradient of 0, where no pixel is labelled.

    Example:
        >>> import torch
        >>> pixel_soft_margin(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]], dtype=torch.uint8))
        tensor(0.6931)
    """
    logits, known = logits.float(), pixels != IGNORE
    true = logits.gather(1, pixels.masked_fill(~known, BACKGROUND)[:, None].long())[:, 0]
    # -log sigmoid(x) = softplus(x) - x for the pixel's class, -log(1 - sigmoid(x)) = softplus(x) for every other.
    each = (softplus(logits).sum(dim=1) - true) / logits.shape[1]
    if trust is not None:
        each = each * trust
    return (each * known).sum() / known.sum().clamp(min=1)
