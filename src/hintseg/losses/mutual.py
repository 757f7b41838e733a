"""The two losses by which BMP's branches teach each other: L_c2s and L_s2c."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.losses.pixels import PixelObjective
from hintseg.losses.soft_margin import pixel_soft_margin
from hintseg.nn.resize import grow
from hintseg.types import IGNORE, Prediction, Progress, Supervision, Targets


class C2s(PixelObjective):
    """L_c2s: ``sum M^c l_seg(S^s, Y^c) / sum M^c`` of Branch-S's logits S^s.

    `Targets.pixels` are Branch-C's labels Y^c, 255 where M^c is 0.

    Attributes:
        form: l_seg. The paper allows both, the authors' code takes the first.

    Source:
        Zhu et al., BMP, Eq. 6.
    """

    name: Literal["c2s"] = "c2s"
    form: Literal["soft_margin", "cross_entropy"] = "soft_margin"
    key = "loss_c2s"

    def of(self, logits: Tensor, pixels: Tensor, trust: Tensor | None) -> Tensor:
        """Return the mean of l_seg over labelled pixels."""
        l_seg = pixel_soft_margin if self.form == "soft_margin" else pixel_cross_entropy
        return l_seg(logits, pixels, trust)


class S2c(Objective):
    """L_s2c: ``sum M^s l_ce(S^c, Y^s) / sum M^s`` of Branch-C's logits S^c over the K classes, `maps`.

    `Targets.pixels` are Branch-S's labels Y^s, 255 where M^s is 0; background is passed over, for S^c has none.

    Source:
        Zhu et al., BMP, Eq. 8.
    """

    name: Literal["s2c"] = "s2c"
    needs = frozenset({Supervision.MASKS})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_s2c``."""
        y_s = self.pixels(targets)
        s_c = grow(self.own(seen, "maps"), y_s.shape[-2:])
        return {"loss_s2c": self.weight * s2c_loss(s_c, y_s, targets.trust)}


def s2c_loss(s_c: Tensor, y_s: Tensor, trust: Tensor | None = None) -> Tensor:
    """Return L_s2c (Eq. 8): the cross entropy of Branch-C's logits over the K classes where M^s is 1.

    Args:
        s_c: (B, K, H, W), without a background channel.
        y_s: Y^s, (B, H, W) uint8: 1..K, or 255 where M^s is 0.
        trust: Factor of each pixel, (B, H, W), 0..1; None: 1.

    Returns:
        Scalar >= 0; 0, with a gradient of 0, where M^s is empty.
    """
    return pixel_cross_entropy(s_c, torch.where(y_s == IGNORE, y_s, y_s - 1), trust)
