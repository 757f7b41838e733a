"""Losses of CSD: one object, seen in two photos, shall get the same scores.

The paper compares raw scores and sums over cells, so what its losses weigh depends on the network, the number of
classes and how far training has come: with a classifier of few classes their gradient is several times that of the
tags, with two layers of a transformer it is nothing (docs/notebook.md). The `scale_free` form compares
scores in units of one number a pair, and takes means.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, kl_div

from hintseg.cam.maps import EPSILON
from hintseg.config.objective import Objective
from hintseg.types import IGNORE, Prediction, Progress, Supervision, Targets

REFERENCE_CELLS = 14 * 14
"""Cells of the grid on which the published weights 0.01 and 0.1 were found: 224 pixels in patches of 16."""

TEMPERATURE = 0.2
"""Of the scale-free softmax: with scores in 0..1 the strongest of 21 classes gets 0.88."""


class ObjectConsistency(Objective):
    """L_fg: pasted objects keep the class scores that they had at home, over the cells that a paste covers.

    `student` are the raw maps of the pastes, `teacher` those of the sources, moved as what was pasted, (P, K, h, w)
    each; `reliable` says where the teacher counts, (P, h, w) bool. `Targets.pixels` are 255 where nothing was pasted.

    Source:
        Eqs. 2 and 3 of Yang et al., BMVC 2023.
    """

    name: Literal["object_consistency"] = "object_consistency"
    scale_free: bool = False
    needs = frozenset({Supervision.MASKS})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_fg``."""
        teacher = self.own(seen, "teacher")
        cells = covered(self.pixels(targets) != IGNORE, (teacher.shape[-2], teacher.shape[-1]))
        cells &= self.own(seen, "reliable")
        student = self.own(seen, "student")
        compare = scale_free_consistency if self.scale_free else consistency
        return {"loss_fg": self.weight * compare(teacher, student, cells)}


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
    scale_free: bool = False
    needs = frozenset({Supervision.MASKS})

    def __call__(self, seen: Prediction, targets: Targets, images: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Return ``loss_bg``."""
        teacher, student = self.own(seen, "teacher"), self.own(seen, "student")
        cells = covered(self.pixels(targets) != IGNORE, (teacher.shape[-2], teacher.shape[-1]))
        if self.scale_free:
            return {"loss_bg": self.weight * suppression(teacher, student, cells)}
        two, found = (with_dummy(maps, self.dummy) for maps in (teacher, student))
        return {"loss_bg": self.weight * consistency(two, found, cells)}


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


def unit(teacher: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return the one number by which a pair is measured, and the cells of pairs that can be measured.

    Args:
        teacher: Raw scores of the sources, (P, C, h, w).
        cells: The cells that count, (P, h, w) bool.

    Returns:
        The largest score of each source, (P, 1, 1, 1) > 0; and the cells without those of sources in which the teacher
        sees nothing, no score above 0.
    """
    largest = teacher.detach().float().amax(dim=(1, 2, 3), keepdim=True)
    return largest.clamp_min(EPSILON), cells & (largest[:, 0] > EPSILON)


def scale_free_consistency(teacher: Tensor, student: Tensor, cells: Tensor) -> Tensor:
    """Return how far the student's class distribution is from the teacher's, whatever the scale of the scores.

    Scores below 0, of which a class map shows nothing, count as 0. Both are divided by the source's largest score and
    by `TEMPERATURE`; the divergence is a mean over the marked cells of each pair, then over pairs that have any.

    Args:
        teacher: Raw scores, (P, C, h, w), float, any range; they get no gradient.
        student: Raw scores of the same places, (P, C, h, w), float.
        cells: The cells that count, (P, h, w) bool.

    Returns:
        A scalar >= 0, natural logarithm; 0 where no cell is marked.

    Example:
        >>> teacher, student = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.0, 0.0]])
        >>> cells = torch.ones(1, 1, 1, dtype=torch.bool)
        >>> scale_free_consistency(teacher[..., None, None], student[..., None, None], cells)
        tensor(0.6530)
        >>> scale_free_consistency(9 * teacher[..., None, None], student[..., None, None], cells)
        tensor(0.6530)

    Source:
        In place of Eq. 3 of Yang et al., BMVC 2023.
    """
    one, cells = unit(teacher, cells)
    one = one * TEMPERATURE
    wanted = (teacher.detach().float().relu() / one).log_softmax(dim=1)
    found = (student.float().relu() / one).log_softmax(dim=1)
    divergence = kl_div(found, wanted, reduction="none", log_target=True).sum(dim=1)
    return _mean_of_pairs(divergence, cells)


def suppression(teacher: Tensor, student: Tensor, cells: Tensor) -> Tensor:
    """Return how strong any class is where background was pasted, in units of the source's largest score.

    Args:
        teacher: Raw scores of the sources, (P, C, h, w).
        student: Raw scores of the pastes, (P, C, h, w).
        cells: The cells that count, (P, h, w) bool.

    Returns:
        A scalar >= 0: the strongest class's score above 0, a mean over the marked cells of each pair, then over pairs.

    Source:
        In place of Eqs. 4 and 5 of Yang et al., BMVC 2023, whose sum of signed scores is negative over background
        and nearly all else: it taught nothing of where objects are.
    """
    one, cells = unit(teacher, cells)
    strongest = (student.float().relu() / one).amax(dim=1)
    return _mean_of_pairs(strongest, cells)


def _mean_of_pairs(values: Tensor, cells: Tensor) -> Tensor:
    """Return the mean of values (P, h, w) over the marked cells of each pair, then over the pairs that have any."""
    counts = cells.sum(dim=(1, 2))
    means = torch.where(cells, values, 0.0).sum(dim=(1, 2)) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)


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
