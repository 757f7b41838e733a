"""Losses of CSD: one object, seen in two photos, shall get the same scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div

REFERENCE_CELLS = 14 * 14
"""Cells of the grid on which the published weights 0.01 and 0.1 were found: 224 pixels in patches of 16."""


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
