"""Choose the background threshold without ground truth."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

BINS = 100


def choose_threshold(maps: Iterable[Tensor]) -> float:
    """Return the score that best parts background from objects in the histogram of the largest class score (Otsu).

    Args:
        maps: Normalised maps of each photo's present classes, (n, h, w) in 0..1, n >= 1.

    Returns:
        A threshold in 0..1.
    """
    counts = torch.zeros(BINS)
    for one in maps:
        counts += torch.histc(one.amax(dim=0), BINS, 0, 1)
    share = counts / counts.sum().clamp(min=1)
    level = (torch.arange(BINS) + 0.5) / BINS
    below, total = share.cumsum(0), (share * level).sum()
    mass = (share * level).cumsum(0)
    between = (total * below - mass).square() / (below * (1 - below)).clamp(min=1e-9)
    return min(float((between.argmax() + 1) / BINS), 0.59)
