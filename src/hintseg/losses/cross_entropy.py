"""Cross entropy of the labelled pixels."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

from hintseg.losses.pixels import PixelObjective
from hintseg.types import IGNORE


class CrossEntropy(PixelObjective):
    """The mean over labelled pixels i of ``-t_i log softmax(logits_i)[label_i]``, with the label's trust t_i, if given.

    Source:
        Chen et al., TPAMI 2018; Eq. 9 of Xie et al., BMVC 2020.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    key = "segmentation"

    def of(self, logits: Tensor, pixels: Tensor, trust: Tensor | None) -> Tensor:
        """Return `pixel_cross_entropy`."""
        return pixel_cross_entropy(logits, pixels, trust)


def pixel_cross_entropy(logits: Tensor, pixels: Tensor, trust: Tensor | None = None) -> Tensor:
    """Return the mean cross entropy over labelled pixels; 0, with a gradient of 0, where no pixel is labelled.

    Args:
        logits: (B, C, H, W), C = K + 1 with background first.
        pixels: (B, H, W) uint8: 0 background, 1..K, 255 not said.
        trust: Factor of each pixel, (B, H, W), 0..1; None: 1. The mean is over the labelled pixels all the same, so a
            label that is half trusted pulls half as hard.

    Returns:
        Scalar >= 0.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 2)
        >>> pixel_cross_entropy(logits, torch.tensor([[[1, 255]]], dtype=torch.uint8))
        tensor(0.6931)
        >>> pixel_cross_entropy(logits, torch.full((1, 1, 2), 255, dtype=torch.uint8))
        tensor(0.)
        >>> pixel_cross_entropy(logits, torch.tensor([[[1, 255]]], dtype=torch.uint8), torch.tensor([[[0.5, 1.0]]]))
        tensor(0.3466)
    """
    how = "sum" if trust is None else "none"
    each = cross_entropy(logits.float(), pixels.long(), ignore_index=IGNORE, reduction=how)
    total = each if trust is None else (each * trust).sum()
    return total / (pixels != IGNORE).sum().clamp(min=1)
