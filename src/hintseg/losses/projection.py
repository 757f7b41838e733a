"""BoxInst's projection loss for a semantic segmenter: a class reaches the sides of its boxes, and no further."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.errors import ConfigError
from hintseg.losses.reduced import logits_of, window_cells
from hintseg.types import Prediction, Progress, Supervision, Targets


class Projection(Objective):
    """The mean over the boxed classes of ``D(max_y p, max_y b) + D(max_x p, max_x b)``.

    p is the probability of the class on the grid of the logits, b is 1 in the union of its boxes and 0 elsewhere, and D
    is the Dice loss, ``1 - 2 sum m t / (sum m^2 + sum t^2)``. Classes without a box in a photo are not judged there.

    Source:
        Tian, Shen, Wang and Chen, "BoxInst: High-Performance Instance Segmentation with Box Annotations", CVPR 2021,
        Eqs. 1 to 4, there for each object.
    """

    name: Literal["projection"] = "projection"
    sees_images = False
    needs = frozenset({Supervision.BOXES})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``projection``."""
        self.check(targets)
        logits = logits_of(self, seen)
        losses = [
            projection_loss(logits[number].float().softmax(dim=0)[label][cells], inside[cells])
            for number, label, inside, cells in boxed(self, targets, images, logits.shape[-2:])
        ]
        return {"projection": self.weight * torch.stack(losses).mean() if losses else logits[:0].sum()}


def projection_loss(probability: Tensor, inside: Tensor) -> Tensor:
    """Return the Dice losses of both projections, summed.

    Args:
        probability: Of one class, (h, w) in 0..1.
        inside: Whether a cell lies in a box of it, (h, w) bool.

    Returns:
        Scalar in 0..2.

    Example:
        >>> box = torch.tensor([[True, True], [False, False]])
        >>> projection_loss(box.float(), box), projection_loss((~box).float(), box)
        (tensor(0.), tensor(1.))
    """
    total = probability.new_zeros(())
    for axis in (0, 1):
        found, true = probability.amax(dim=axis), inside.any(dim=axis).to(probability)
        total = total + 1 - 2 * (found * true).sum() / (found.square().sum() + true.sum()).clamp(min=1e-6)
    return total


def boxed(
    objective: Objective, targets: Targets, images: Tensor, grid: torch.Size | tuple[int, int]
) -> list[tuple[int, int, Tensor, tuple[slice, slice]]]:
    """List what boxes say: photo, class, the union of its boxes as (h, w) bool, and the cells that are photo.

    A box has every cell that it touches.
    """
    if targets.boxes is None:
        raise ConfigError(f"objective '{objective.name}' looks at boxes; its `needs` must name them")
    height, width = images.shape[-2:]
    scale = torch.tensor([grid[1] / width, grid[0] / height] * 2)
    found = []
    for number, boxes in enumerate(targets.boxes):
        cells = window_cells(targets.windows[number], (height, width), grid)
        for label in boxes[:, 0].unique().int().tolist():
            inside = torch.zeros(tuple(grid), dtype=torch.bool, device=images.device)
            for box in (boxes[boxes[:, 0] == label, 1:].cpu() * scale).tolist():
                inside[int(box[1]) : -int(-box[3] // 1), int(box[0]) : -int(-box[2] // 1)] = True
            if inside[cells].any():
                found.append((number, label, inside, cells))
    return found
