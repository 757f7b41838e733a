"""AFA's cross entropy, in which background and foreground weigh alike."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.losses.pixels import PixelObjective
from hintseg.types import BACKGROUND, IGNORE


class BalancedCrossEntropy(PixelObjective):
    """Half the mean cross entropy of the background pixels plus half that of all other labelled ones: AFA's L_seg.

    Source:
        Ru et al., AFA, CVPR 2022, section 3.5 (their code).
    """

    name: Literal["balanced_cross_entropy"] = "balanced_cross_entropy"
    key = "loss_seg"

    def of(self, logits: Tensor, pixels: Tensor, trust: Tensor | None) -> Tensor:
        """Return `balanced_cross_entropy`."""
        return balanced_cross_entropy(logits, pixels, trust)


def balanced_cross_entropy(logits: Tensor, pixels: Tensor, trust: Tensor | None = None) -> Tensor:
    """Return the mean of two mean cross entropies: of the background pixels and of all other labelled ones.

    Args:
        logits: (B, C, H, W), C = K + 1 with background first.
        pixels: (B, H, W) uint8: 0 background, 1..K, 255 not said.
        trust: Factor of each pixel, (B, H, W), 0..1; None: 1.

    Returns:
        Scalar >= 0; a kind of pixel that does not occur adds 0.
    """
    foreground = pixels.masked_fill(pixels == BACKGROUND, IGNORE)
    background = pixels.masked_fill(pixels != BACKGROUND, IGNORE)
    return (pixel_cross_entropy(logits, background, trust) + pixel_cross_entropy(logits, foreground, trust)) / 2
