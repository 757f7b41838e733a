"""What losses of pixels share: all logits of a prediction, at the size of the labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.errors import ConfigError
from hintseg.nn.resize import grow
from hintseg.types import Prediction, Progress, Supervision, Targets


class PixelObjective(Objective):
    """Base of objectives that compare logits with labels, pixel by pixel.

    Logits are resized to the labels. Where a segmenter gives several, every one is judged and the losses are summed.

    Attributes:
        key: Name of the loss in log.csv.
    """

    needs = frozenset({Supervision.MASKS})
    key: ClassVar[str]

    def of(self, logits: Tensor, pixels: Tensor, trust: Tensor | None) -> Tensor:
        """Return the loss of logits (B, C, H, W) float32 against `Targets.pixels` and `Targets.trust`, a scalar."""
        raise NotImplementedError

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return the weighted sum over all logits of the prediction."""
        pixels = self.pixels(targets)
        if seen.logits is None:
            raise ConfigError(f"objective '{self.name}' judges logits, and this prediction has none")
        views = (grow(logits, pixels.shape[-2:]) for logits in (seen.logits, *seen.others))
        return {self.key: self.weight * torch.stack([self.of(v, pixels, targets.trust) for v in views]).sum()}
