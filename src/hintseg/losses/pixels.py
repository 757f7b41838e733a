"""What losses of pixels share: all logits of a prediction, at the size of the labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.config.settings import Count
from hintseg.errors import ConfigError
from hintseg.nn.resize import grow
from hintseg.types import Prediction, Progress, Supervision, Targets


class PixelObjective(Objective):
    """Base of objectives that compare logits with labels, pixel by pixel.

    Logits are resized to the labels. Where a segmenter gives several, every one is judged and the losses are summed.

    Attributes:
        key: Name of the loss in log.csv.
        every: Judge each n-th pixel of each n-th row alone: the logits of neighbours differ little, and judging all of
            them may take longer than a light network.
    """

    needs = frozenset({Supervision.MASKS})
    key: ClassVar[str]
    every: Count = 1

    def of(self, logits: Tensor, pixels: Tensor, trust: Tensor | None) -> Tensor:
        """Return the loss of logits (B, C, H, W) float32 against `Targets.pixels` and `Targets.trust`, a scalar."""
        raise NotImplementedError

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return the weighted sum over all logits of the prediction."""
        pixels, trust, judged = self.pixels(targets), targets.trust, slice(self.every // 2, None, self.every)
        if self.every > 1:
            pixels, trust = pixels[:, judged, judged], None if trust is None else trust[:, judged, judged]
        if seen.logits is None:
            raise ConfigError(f"objective '{self.name}' judges logits, and this prediction has none")
        views = (grow(logits, pixels.shape[-2:]) for logits in (seen.logits, *seen.others))
        return {self.key: self.weight * torch.stack([self.of(v, pixels, trust) for v in views]).sum()}
