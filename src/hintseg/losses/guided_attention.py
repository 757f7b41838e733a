"""LGSA's affinity loss: cells shall attend to cells of their own class, and to no others."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.types import Prediction, Progress, Supervision, Targets

PUBLISHED_CELLS = 41 * 41
"""Cells of the crop of 321 pixels that alpha was published for."""


class GuidedAttention(Objective):
    """``alpha (N / 1681)^2`` times the mean of ``(W - W_gt)^2`` over pairs of labelled cells, summed over the modules.

    `lgsa` measures it in its forward pass (`attention_loss`), so that the N x N map W need not be kept; N is the number
    of cells of the last level. The factor makes it pull alike on any grid: see `hintseg.methods.lgsa`. With ``form:
    mass`` it is alpha times `hintseg.nn.attention.mass_loss`, which does so by itself.

    Source:
        Xie et al., BMVC 2020, Eqs. 7 and 10; the factor is ours.
    """

    name: Literal["guided_attention"] = "guided_attention"
    form: Literal["mse", "mass"] = "mse"
    needs = frozenset({Supervision.MASKS})
    sees_images = False

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``att``."""
        self.check(targets)
        height, width = seen.levels[-1].shape[2:]
        factor = (height * width / PUBLISHED_CELLS) ** 2 if self.form == "mse" else 1.0
        return {"att": self.weight * factor * self.own(seen, "attention_loss")}
