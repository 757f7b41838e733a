"""What's the Point's image-level terms: each class that is in a photo somewhere, and each that is not nowhere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.losses.reduced import logits_of, window_cells
from hintseg.types import Prediction, Progress, Supervision, Targets

SMALL = 1e-6
"""A probability nearer to 1 costs no more than this far from it."""


class ImageLevel(Objective):
    """``-(1 / |L|) sum_(c in L) log S_c - (1 / |L'|) sum_(c in L') log(1 - S_c)``, S_c the largest probability of c.

    L are the classes known to be in the photo, L' those known not to be; clicks and strokes imply tags. The mean over
    the photos of which a tag is known. In a crop, a class whose marks all lie outside of it is in neither; one that
    is known by its tag alone is asked for in all crops: take large ones.

    Source:
        Bearman, Russakovsky, Ferrari and Fei-Fei, "What's the Point: Semantic Segmentation with Point Supervision",
        ECCV 2016, Eq. 1.
    """

    name: Literal["image_level"] = "image_level"
    sees_images = False
    needs = frozenset({Supervision.TAGS})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``image_level``."""
        self.check(targets)
        logits = logits_of(self, seen)
        losses = []
        for number in targets.tags_known.any(dim=1).nonzero().flatten().tolist():
            cells = window_cells(targets.windows[number], images.shape[-2:], logits.shape[-2:])
            part = logits[number][(slice(None), *cells)].float().log_softmax(dim=0)[1:].flatten(1)
            if part.shape[1]:
                present = targets.tags[number] > 0
                losses.append(image_level_loss(part.amax(dim=1), present, targets.tags_known[number] & ~present))
        return {"image_level": self.weight * torch.stack(losses).mean() if losses else logits[:0].sum()}


def image_level_loss(highest: Tensor, present: Tensor, absent: Tensor) -> Tensor:
    """Return both terms of one photo, summed.

    Args:
        highest: Logarithm of the largest probability of each class, (K,).
        present: Which are in the photo, (K,) bool.
        absent: Which are not, (K,) bool.

    Returns:
        Scalar >= 0; a kind of class that does not occur adds 0.
    """
    there = -(highest * present).sum() / present.sum().clamp(min=1)
    nowhere = -torch.log1p(-highest.exp().clamp(max=1 - SMALL)) * absent
    return there + nowhere.sum() / absent.sum().clamp(min=1)
