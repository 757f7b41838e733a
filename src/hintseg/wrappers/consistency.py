"""Losses of CSD: one object, seen in two photos, shall get the same scores."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, kl_div

from hintseg.config.objective import Objective
from hintseg.types import IGNORE, Prediction, Progress, Supervision, Targets

REFERENCE_CELLS = 14 * 14
"""Cells of the grid on which the published weights 0.01 and 0.1 were found: 224 pixels in patches of 16."""


class ObjectConsistency(Objective):
    """L_fg: pasted objects keep the class scores that they had at home, over the cells that a paste covers.

    `student` are the raw maps of the pastes, `teacher` those of the sources, moved as what was pasted, (P, K, h, w)
    each; `reliable` says where the teacher counts, (P, h, w) bool. `Targets.pixels` are 255 where nothing was pasted.

    Source:
        Eqs. 2 and 3 of Yang et al., BMVC 2023.
    """

    name: Literal["object_consistency"] = "object_consistency"
    needs = frozenset({Supervision.MASKS})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_fg``."""
        teacher = self.own(seen, "teacher")
        cells = covered(self.pixels(targets) != IGNORE, (teacher.shape[-2], teacher.shape[-1]))
        cells &= self.own(seen, "reliable")
        return {"loss_fg": self.weight * consistency(teacher, self.own(seen, "student"), cells)}


class BackgroundConsistency(Objective):
    """L_bg: pasted background keeps its score of having anything in it, beside a constant.

    Parts of the prediction and targets as for `ObjectConsistency`.

    Attributes:
        dummy: The constant M'.

    Source:
        Eqs. 4 and 5 of Yang et al., BMVC 2023.
    """

    name: Literal["background_consistency"] = "background_consistency"
    dummy: float = 0.1
    needs = frozenset({Supervision.MASKS})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_bg``."""
        teacher, student = (with_dummy(self.own(seen, part), self.dummy) for part in ("teacher", "student"))
        cells = covered(self.pixels(targets) != IGNORE, (teacher.shape[-2], teacher.shape[-1]))
        return {"loss_bg": self.weight * consistency(teacher, student, cells)}


def consistency(teacher: Tensor, student: Tensor, cells: Tensor) -> Tensor:
    """Return how far the student's class distribution is from the teacher's, over the marked cells.

    The paper sums over cells, so its value, and what its weights mean, depend on the grid. Here the sum is multiplied
    by 196 / (h * w): it is the paper's sum on the paper's grid of 14 x 14, and the same for any other grid that shows
    the same maps.

    Args:
        teacher: Raw scores, (P, C, h, w), float, any range; they get no gradient.
        student: Raw scores of the same places, (P, C, h, w), float.
        cells: The cells that count, (P, h, w) bool.

    Returns:
        A scalar >= 0, natural logarithm: sum over cells, scaled to 196 cells, mean over the P photos; 0 where no cell
        is marked or there is no photo.

    Example:
        >>> teacher, student = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> cells = torch.ones(1, 1, 1, dtype=torch.bool)
        >>> (consistency(teacher[..., None, None], student[..., None, None], cells) / 196).item()
        0.110...

    Source:
        Eqs. 3 and 5 of Yang et al., BMVC 2023.
    """
    wanted, found = teacher.detach().float().log_softmax(dim=1), student.float().log_softmax(dim=1)
    divergence = kl_div(found, wanted, reduction="none", log_target=True).sum(dim=1)  # (P, h, w)
    photos, height, width = cells.shape
    total = torch.where(cells, divergence, 0.0).sum()
    return total * (REFERENCE_CELLS / (height * width)) / max(photos, 1)


def with_dummy(maps: Tensor, dummy: float) -> Tensor:
    """Return the two channels of the background: all classes together, and a constant.

    Class maps have no channel for background. Their sum over classes says how much of anything there is, and a
    constant beside it makes that a distribution of two.

    Args:
        maps: Raw scores, (P, K, h, w).
        dummy: The constant M'.

    Returns:
        (P, 2, h, w) float32.

    Source:
        Eq. 4 of Yang et al., BMVC 2023. It is lost in the copies at hand; this is its reconstruction from the text.
    """
    salient = maps.float().sum(dim=1, keepdim=True)
    return torch.cat([salient, torch.full_like(salient, dummy)], dim=1)


def covered(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the cells whose pixels are all marked.

    Args:
        pixels: (P, H, W) bool.
        size: (h, w) of the grid.

    Returns:
        (P, h, w) bool.

    Example:
        >>> covered(torch.tensor([[[True, True, True, False]]]), (1, 2))
        tensor([[[ True, False]]])
    """
    gaps = (~pixels).float()[:, None]
    return adaptive_max_pool2d(gaps, size)[:, 0] == 0
