"""Loss of the affinity that AFA reads out of self-attention."""

from __future__ import annotations

from torch import Tensor

from hintseg.nn.affinity import RADIUS, gather_window, window
from hintseg.types import IGNORE


def window_affinity_loss(affinity: Tensor, labels: Tensor, radius: int = RADIUS) -> Tensor:
    """Pull affinities of like cells to 1 and those of unlike cells to 0, linearly.

    Args:
        affinity: (B, S, N) in 0..1, as `hintseg.nn.affinity.AffinityHead` gives it.
        labels: Labels on the grid, (B, h, w) uint8: 0 background, 1..K, 255 ignore; N = h * w.
        radius: Reach in cells.

    Returns:
        Scalar in 0..1; 0 where no pair is known.

    Source:
        Ru et al., AFA, CVPR 2022, Eq. 7 and their code, which is linear in the affinity where the paper has logarithms.
    """
    near, own = gather_window(labels, radius), labels.flatten(1)[:, None]
    inside = window(labels.shape[1], labels.shape[2], radius, labels.device).inside
    known = inside & (near != IGNORE) & (own != IGNORE)
    like, unlike = known & (near == own), known & (near != own)
    # One is added to the counts, as published: an empty kind of pair costs nothing.
    positive = ((1 - affinity) * like).sum() / (like.sum() + 1)
    negative = (affinity * unlike).sum() / (unlike.sum() + 1)
    return 0.5 * (positive + negative)
