"""Choose the background threshold without ground truth."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hintseg.errors import ShapeError

BINS = 1000

LARGEST = 0.59
"""End of the usual sweep; above it, seeds are specks."""


def choose_threshold(maps: Iterable[Tensor], *, area: float = 0.4) -> float:
    """Return the background score at which seeds cover a given share of the photos.

    How strong class maps are away from their maximum differs ten-fold from one network to the next, so no fixed score
    serves all; how much of a photo the named things cover differs little, and a person can judge it by eye. On two
    data sets with truth at hand the default lost 0.0 to 1.1 mIoU against the best threshold (docs/notebook.md);
    that of Otsu on the same scores lost up to 21.

    Args:
        maps: Normalised maps of each photo's present classes, (n, h, w) in 0..1, n >= 1; grids of any size.
        area: Share of the pixels of photos with tags that are to be seeds of a class, 0..1.

    Returns:
        The threshold, 0.01..0.59.

    Raises:
        ShapeError: There is no map.

    Example:
        >>> ramp = torch.arange(100).float().view(1, 10, 10) / 100
        >>> choose_threshold([ramp], area=0.595)
        0.401
    """
    counts = torch.zeros(BINS, dtype=torch.float64)
    for one in maps:
        scores = one.float().amax(dim=0)
        counts += torch.histc(scores, BINS, 0, 1).double() / scores.numel()  # every photo counts alike
    if not counts.sum():
        raise ShapeError("no class maps given; at least one photo with a tag is needed")
    above = 1 - counts.cumsum(0) / counts.sum()  # share of the pixels above the end of each bin
    chosen = int((above > area).sum()) + 1
    return round(min(max(chosen / BINS, 0.01), LARGEST), 3)
