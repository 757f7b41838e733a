"""Losses of cell pairs: should two cells of a map be joined or parted, and where does each cell's object lie?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hintseg.errors import ShapeError
from hintseg.types import BACKGROUND, IGNORE

Offsets = Sequence[tuple[int, int]]
"""Steps (dy, dx) from a cell to its partners, in cells; dy >= 0."""

_EPS = 1e-5


class PairLabels(NamedTuple):
    """What is known about each pair of cells; a pair with an unlabelled end is in none of the three.

    Attributes:
        background: Both ends are background, (B, N, S) bool.
        foreground: Both ends are of the same class, (B, N, S) bool.
        negative: The ends differ, (B, N, S) bool.
    """

    background: Tensor
    foreground: Tensor
    negative: Tensor


def pair_ends(values: Tensor, offsets: Offsets) -> tuple[Tensor, Tensor]:
    """Return the values at both ends of every pair of cells.

    A source is a cell from which every offset stays on the grid: with reach r = the largest component of an offset,
    all cells but the last r rows and the first and last r columns, row-major. So every source has all its partners.

    Args:
        values: Anything on a grid of cells, (..., h, w).
        offsets: N offsets (dy, dx), dy >= 0.

    Returns:
        Values at the S sources, (..., 1, S), and at their partners, (..., N, S).

    Raises:
        ShapeError: The grid is too small to hold a source.

    Example:
        >>> source, partner = pair_ends(torch.arange(6).view(2, 3), [(0, 1), (1, 0)])
        >>> source, partner
        (tensor([[1]]), tensor([[2], [4]]))
    """
    reach = max(max(dy, abs(dx)) for dy, dx in offsets)
    rows, columns = values.shape[-2] - reach, values.shape[-1] - 2 * reach
    if rows < 1 or columns < 1:
        raise ShapeError(
            f"on {values.shape[-2]} x {values.shape[-1]} cells no cell has all partners within {reach} cells; "
            f"at least {reach + 1} x {2 * reach + 1} cells are needed: give larger crops or a smaller radius"
        )
    partner = torch.stack([values[..., y : y + rows, reach + x : reach + x + columns] for y, x in offsets], dim=-3)
    source = values[..., :rows, reach : reach + columns]
    return source.flatten(-2).unsqueeze(-2), partner.flatten(-2)


def labels_on_grid(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample masks at the cell centres of a coarser grid.

    Args:
        masks: (B, H, W) uint8.
        size: (h, w), cells.

    Returns:
        (B, h, w) uint8, the nearest pixel of each cell centre.
    """
    # Float holds every value of uint8; "nearest-exact" takes the pixel under the centre, as PIL does.
    return interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0].to(torch.uint8)


def pair_labels(labels: Tensor, offsets: Offsets) -> PairLabels:
    """Say which pairs of cells belong together.

    Args:
        labels: Masks on the grid, (B, h, w) uint8: 0 background, 1..K, 255 ignore.
        offsets: N offsets (dy, dx), dy >= 0.

    Returns:
        The three kinds of pairs, (B, N, S) bool each.

    Raises:
        ShapeError: The grid is too small to hold a source.

    Source:
        Ahn and Kwak, CVPR 2018, section 3.2.1; Ahn, Cho and Kwak, CVPR 2019, section 4.2.
    """
    source, partner = pair_ends(labels, offsets)
    known = (source != IGNORE) & (partner != IGNORE)
    equal = source == partner
    joined = known & equal
    return PairLabels(joined & (source == BACKGROUND), joined & (source != BACKGROUND), known & ~equal)


def affinity_loss(affinity: Tensor, pairs: PairLabels, *, background: bool = True) -> tuple[Tensor, Tensor]:
    """Pull affinities of joined pairs to 1 and those of parted pairs to 0.

    Each kind of pair has its own mean, so the many background pairs do not drown the others. Background and
    foreground pairs weigh one half each; without background the foreground pairs weigh one. A kind that does not
    occur in the batch adds zero.

    Args:
        affinity: (B, N, S) in 0..1.
        pairs: What is known about the pairs.
        background: Whether pixels may belong to no class.

    Returns:
        The positive and the negative loss, scalars >= 0, each with weight 1.

    Source:
        Ahn, Cho and Kwak, CVPR 2019, Eq. 5.

    Example:
        >>> pairs = pair_labels(torch.tensor([[[1, 1, 1], [0, 2, 0]]], dtype=torch.uint8), [(0, 1), (1, 0)])
        >>> positive, negative = affinity_loss(torch.tensor([[[0.5], [0.5]]]), pairs, background=False)
        >>> round(positive.item(), 3), round(negative.item(), 3)
        (0.693, 0.693)
    """
    joined = -torch.log(affinity + _EPS)
    parted = -torch.log(1 + _EPS - affinity)
    positive = _mean_of(joined, pairs.foreground)
    if background:
        positive = (positive + _mean_of(joined, pairs.background)) / 2
    return positive, _mean_of(parted, pairs.negative)


def displacement_loss(displacement: Tensor, pairs: PairLabels, offsets: Offsets, *, background: bool = True) -> Tensor:
    """Let all cells of an object point to one place.

    Cells i and j of a class agree on a place if D(i) - D(j) = j - i. Background has no place: there displacements
    must not differ. Both weigh one half; without background the foreground pairs weigh one.

    Args:
        displacement: Steps (dy, dx) to the object's centre, (B, 2, h, w), cells.
        pairs: What is known about the pairs.
        offsets: The N offsets (dy, dx) of the pairs.
        background: Whether pixels may belong to no class.

    Returns:
        Mean absolute error in cells, a scalar >= 0.

    Raises:
        ShapeError: The grid is too small to hold a source.

    Source:
        Ahn, Cho and Kwak, CVPR 2019, Eqs. 2 and 3.
    """
    source, partner = pair_ends(displacement, offsets)
    difference = source - partner
    target = torch.tensor(offsets, dtype=difference.dtype, device=difference.device).T[None, :, :, None]
    foreground = _mean_of((difference - target).abs().mean(dim=1), pairs.foreground)
    if not background:
        return foreground
    return (foreground + _mean_of(difference.abs().mean(dim=1), pairs.background)) / 2


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    # Zero where nothing is chosen: an empty mean would be NaN, and 0 * NaN is NaN.
    return (values * chosen).sum() / (chosen.sum() + _EPS)
