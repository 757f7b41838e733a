"""Losses for image tags."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from hintseg.types import Targets


def tag_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Return the logistic loss of the tags that are known; a photo of which none is known contributes nothing.

    Args:
        logits: Scores before the sigmoid, (B, K).
        targets: The tags.

    Returns:
        A scalar >= 0, the mean over the known tags of the batch; 0, with a gradient of 0, where none is known.
    """
    return multi_label_soft_margin(logits, targets.tags, targets.tags_known)


def multi_label_soft_margin(logits: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
    """Return the mean logistic loss over photos and classes, each class a yes-or-no question of its own.

    Args:
        logits: Scores before the sigmoid, (B, L).
        targets: 1 where the class is present, 0 where not, (B, L), any dtype.
        known: Which entries count, (B, L) bool; None: all.

    Returns:
        A scalar >= 0, natural logarithm, the mean over what counts.

    Example:
        >>> import torch
        >>> multi_label_soft_margin(torch.zeros(2, 3), torch.ones(2, 3))
        tensor(0.6931)
        >>> multi_label_soft_margin(torch.tensor([[0.0, 9.0]]), torch.ones(1, 2), torch.tensor([[True, False]]))
        tensor(0.6931)

    Source:
        Eq. 8 of Ru, Du and Wu, IJCAI 2021, where the minus sign is missing.
    """
    if known is None:
        return F.multilabel_soft_margin_loss(logits.float(), targets.float())
    loss = F.multilabel_soft_margin_loss(logits.float(), targets.float(), weight=known.float())
    # From the mean over all entries to that over the known ones; where all are known the factor is 1.
    return loss * (known.numel() / known.sum().clamp(min=1))
