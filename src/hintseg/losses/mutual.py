"""The two losses by which BMP's branches teach each other: L_c2s and L_s2c."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from hintseg.config.objective import Objective
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.losses.pixels import PixelObjective
from hintseg.losses.soft_margin import pixel_soft_margin
from hintseg.nn.resize import grow
from hintseg.types import BACKGROUND, IGNORE, Prediction, Progress, Supervision, Targets


class C2s(PixelObjective):
    """L_c2s: ``sum M^c l_seg(S^s, Y^c) / sum M^c`` of Branch-S's logits S^s.

    `Targets.pixels` are Branch-C's labels Y^c, 255 where M^c is 0.

    Attributes:
        form: l_seg. The paper allows both, the authors' code takes the first.
        balance: Half the mean over background, half that over all other labelled pixels, as AFA has it.

    Source:
        Zhu et al., BMP, Eq. 6.
    """

    name: Literal["c2s"] = "c2s"
    form: Literal["soft_margin", "cross_entropy"] = "soft_margin"
    balance: bool = False
    key = "loss_c2s"

    def of(self, logits: Tensor, pixels: Tensor, trust: Tensor | None) -> Tensor:
        """Return the mean of l_seg over labelled pixels, or over its two halves."""
        l_seg = pixel_soft_margin if self.form == "soft_margin" else pixel_cross_entropy
        if not self.balance:
            return l_seg(logits, pixels, trust)
        objects, rest = (
            pixels.masked_fill(pixels == BACKGROUND, IGNORE),
            pixels.masked_fill(pixels != BACKGROUND, IGNORE),
        )
        return (l_seg(logits, objects, trust) + l_seg(logits, rest, trust)) / 2


class S2c(Objective):
    """L_s2c: ``sum M^s l_ce(S^c, Y^s) / sum M^s`` of Branch-C's logits S^c over the K classes, `maps`.

    `Targets.pixels` are Branch-S's labels Y^s, 255 where M^s is 0; background is passed over, for S^c has none.

    Attributes:
        balance: See `s2c_loss`; the paper has none.
        floor: See `s2c_loss`; the paper has 0.

    Source:
        Zhu et al., BMP, Eq. 8.
    """

    name: Literal["s2c"] = "s2c"
    balance: bool = False
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    needs = frozenset({Supervision.MASKS})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_s2c``."""
        y_s = self.pixels(targets)
        s_c = grow(self.own(seen, "maps"), y_s.shape[-2:])
        x0, y0, x1, y1 = targets.windows.unbind(dim=1)
        least = self.floor * int(((x1 - x0) * (y1 - y0)).sum())
        return {"loss_s2c": self.weight * s2c_loss(s_c, y_s, targets.trust, balance=self.balance, least=least)}


def s2c_loss(
    s_c: Tensor, y_s: Tensor, trust: Tensor | None = None, *, balance: bool = False, least: float = 0.0
) -> Tensor:
    """Return L_s2c (Eq. 8): the cross entropy of Branch-C's logits over the K classes where M^s is 1.

    Eq. 8 is a mean over the labelled pixels: where Branch-S is sure of a handful of pixels, those few pull as hard as a
    whole batch would, and where it is sure of one class, all of the pull is towards that one.

    Args:
        s_c: (B, K, H, W), without a background channel.
        y_s: Y^s, (B, H, W) uint8: 1..K, or 255 where M^s is 0.
        trust: Factor of each pixel, (B, H, W), 0..1; None: 1.
        balance: Take the mean for each class that Y^s shows, and the mean of those.
        least: Pixels that the sum is divided by at least, where there are fewer labelled ones; with `balance` each
            class's share of that.

    Returns:
        Scalar >= 0; 0, with a gradient of 0, where M^s is empty.
    """
    labels = torch.where(y_s == IGNORE, y_s, y_s - 1).long()
    each = cross_entropy(s_c.float(), labels, ignore_index=IGNORE, reduction="none")
    if trust is not None:
        each = each * trust
    if not balance:
        return each.sum() / (y_s != IGNORE).sum().clamp(min=max(1.0, least))
    counts = torch.bincount(labels.flatten(), minlength=IGNORE + 1)[:IGNORE]
    shown = (counts > 0).sum().clamp(min=1)
    weight = torch.cat([1 / counts.clamp(min=1).maximum(least / shown), counts.new_zeros(1)])
    return (each * weight[labels]).sum() / shown
