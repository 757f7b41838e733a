"""Loss of the affinity that AFA reads out of self-attention."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.losses.affinity import labels_on_grid
from hintseg.nn.affinity import RADIUS, gather_window, window
from hintseg.types import IGNORE, Prediction, Progress, Supervision, Targets


class WindowAffinity(Objective):
    """L_aff: half the mean of ``1 - A`` over near pairs of cells of one label, plus half that of ``A`` over the others.

    A is the `affinity` that AFA and BMP read out of self-attention, on the grid of their class `maps`.

    Source:
        Ru et al., AFA, CVPR 2022, Eq. 7, as in their code.
    """

    name: Literal["window_affinity"] = "window_affinity"
    needs = frozenset({Supervision.MASKS})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_aff``."""
        height, width = self.own(seen, "maps").shape[2:]
        labels = labels_on_grid(self.pixels(targets), (height, width))
        return {"loss_aff": self.weight * window_affinity_loss(self.own(seen, "affinity"), labels)}


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
