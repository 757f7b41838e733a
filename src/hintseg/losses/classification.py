"""Losses for image tags."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def multi_label_soft_margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean logistic loss over photos and classes, each class a yes-or-no question of its own.

    Args:
        logits: Scores before the sigmoid, (B, L).
        targets: 1 where the class is present, 0 where not, (B, L), any dtype.

    Returns:
        A scalar >= 0, natural logarithm.

    Example:
        >>> import torch
        >>> multi_label_soft_margin(torch.zeros(2, 3), torch.ones(2, 3))
        tensor(0.6931)

    Source:
        Eq. 8 of Ru, Du and Wu, IJCAI 2021, where the minus sign is missing.
    """
    return F.multilabel_soft_margin_loss(logits.float(), targets.float())
