"""What a teacher is sure of, on pixels that nobody spoke of: an average of the segmenter's own weights teaches it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from hintseg.config.objective import Objective
from hintseg.config.settings import Count
from hintseg.errors import ConfigError
from hintseg.losses.affinity import labels_on_grid
from hintseg.losses.cross_entropy import pixel_cross_entropy
from hintseg.losses.reduced import grid_of, logits_of
from hintseg.nn.resize import grow
from hintseg.refine.pseudo_labels import inside
from hintseg.types import IGNORE, Prediction, Progress, Supervision, Targets


class TaughtObjective(Objective):
    """Base of objectives that learn from `Targets.taught`, see `hintseg.methods.taught`.

    Attributes:
        threshold: The teacher is sure where the probability of its class is above this, among the classes that the
            photo may show.
        cell: Side of the cells that it is worked out on, image pixels.
        ramp: Share of the training over which the weight rises from 0: at first the teacher knows nothing.
    """

    sees_images = False
    threshold: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    cell: Count = 4
    ramp: Annotated[float, Field(ge=0, le=1)] = 0.2

    def asked(self, targets: Targets, size: tuple[int, int]) -> Tensor:
        """Return the cells that the teacher is asked about, (B, h, w) bool, before the padding is left out."""
        raise NotImplementedError

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return the weighted loss, by the objective's name."""
        self.check(targets)
        if targets.taught is None:
            raise ConfigError(
                f"objective '{self.name}' learns from a teacher, and this batch has none; wrap the segmenter in "
                "hintseg.methods.taught.Taught, as training does"
            )
        size, given = grid_of(images, self.cell), (logits_of(self, seen), *seen.others)
        photo = inside(targets.windows, (images.shape[2], images.shape[3])).byte()
        asked = self.asked(targets, size) & (labels_on_grid(photo, size) > 0)
        taught, threshold = grow(targets.taught, size), self.threshold
        losses = [taught_loss(grow(logits, size), taught, asked, threshold=threshold) for logits in given]
        risen = min(1.0, progress.fraction / self.ramp) if self.ramp else 1.0
        return {self.name: self.weight * risen * torch.stack(losses).sum()}


class Teacher(TaughtObjective):
    """``-(1 / |U|) sum_(i in U) [max_c q_ic > threshold] log p_i(argmax_c q_ic)`` over the cells U nobody spoke of.

    p are the segmenter's probabilities, q those of its teacher: the same network with an exponential moving average of
    its weights, which sees the same crop without dropout. Classes known to be absent are no choice for it, and where a
    label says something it is not asked. Crops in which nothing is said of any pixel contribute nothing.

    Source:
        Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, for the average; Lee,
        "Pseudo-Label", ICML workshops 2013, for the target.
    """

    needs = frozenset({Supervision.MASKS})
    name: Literal["teacher"] = "teacher"

    def asked(self, targets: Targets, size: tuple[int, int]) -> Tensor:
        """Return the cells without a label in photos that have one."""
        pixels = self.pixels(targets)
        spoken = (pixels != IGNORE).flatten(1).any(dim=1)
        return (labels_on_grid(pixels, size) == IGNORE) & spoken[:, None, None]


def taught_loss(logits: Tensor, taught: Tensor, asked: Tensor, *, threshold: float) -> Tensor:
    """Return the cross entropy with what the teacher is sure of, the mean over all cells that it is asked about.

    Args:
        logits: Of the segmenter, (B, C, h, w).
        taught: Of the teacher, (B, C, h, w), without a gradient.
        asked: (B, h, w) bool.
        threshold: Probability above which it is sure.

    Returns:
        Scalar >= 0; 0, with a gradient of 0, where it is asked about nothing or sure of nothing.

    Example:
        >>> sure, unsure = torch.tensor([[[[9.0, 0.1]], [[0.0, 0.0]]]]), torch.zeros(1, 2, 1, 2)
        >>> taught_loss(unsure, sure, torch.ones(1, 1, 2, dtype=torch.bool), threshold=0.95)
        tensor(0.3466)
    """
    sure, label = taught.softmax(dim=1).max(dim=1)
    target = label.masked_fill(~asked, IGNORE).to(torch.uint8)
    return pixel_cross_entropy(logits, target, (sure > threshold).float())
