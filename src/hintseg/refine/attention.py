"""Spread class scores along the self-attention of a vision transformer, without training."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from hintseg.errors import ShapeError

SINKHORN_STEPS = 20
"""Times that columns and rows are scaled in turn. After as many, columns of real attention sum to 1 within 1e-3."""

LEAST = 1e-12
"""Sums are not divided by less: a cell that nobody looks at."""


@torch.no_grad()
def attention_refine(scores: Tensor, affinity: Tensor, *, power: int = 2, threshold: float = 0.4) -> Tensor:
    """Give every cell near a class the mean score of the cells it looks alike, by a transformer's attention.

    Attention has a direction, and some cells are looked at by all. Both are taken out: columns and rows are scaled in
    turn until both sum to 1 (Sinkhorn), and the matrix is averaged with its transpose. A class stays inside of its
    boxes, one around each region where its score is above `threshold` of its largest (regions join at corners too):
    cells outside of all of them give nothing and get 0.

    Args:
        scores: (K, h, w) float >= 0, on the grid of the attention.
        affinity: Attention of cells to cells, (N, N) float >= 0 with N = h * w, row-major.
        power: Steps of the random walk, >= 1; the paper takes 2.
        threshold: Where a box begins, as a share of the class's largest score, in 0..1, 1 excluded; the paper takes 0.4
            on VOC.

    Returns:
        (K, h, w) in the dtype of `scores`; no value is above the largest of its class.

    Raises:
        ShapeError: Shapes, dtypes, `power` or `threshold` are others.

    Cost:
        Time O(N^2 (K * power + 2 * 20)), memory of three matrices of N x N float32: 3 MiB each for 896 cells.

    Source:
        Lin et al., "CLIP is Also an Efficient Segmenter", CVPR 2023, section 3.3; Sinkhorn, 1964. There scores of cells
        outside of the boxes count too.

    Example:
        >>> alike = torch.block_diag(torch.full((2, 2), 0.5), torch.eye(2))
        >>> attention_refine(torch.tensor([[[1.0, 0.5, 0.9, 0.2]]]), alike, power=1)
        tensor([[[0.7500, 0.7500, 0.9000, 0.0000]]])
    """
    if scores.ndim != 3 or 0 in scores.shape[1:] or not scores.is_floating_point():
        raise ShapeError(
            f"scores are {scores.dtype} of shape {tuple(scores.shape)}; a float tensor (K, h, w) without an empty side "
            "is needed"
        )
    cells = scores.shape[1] * scores.shape[2]
    if tuple(affinity.shape) != (cells, cells) or not affinity.is_floating_point():
        raise ShapeError(
            f"affinity is {affinity.dtype} of shape {tuple(affinity.shape)}; scores of shape {tuple(scores.shape)} "
            f"need a float tensor ({cells}, {cells})"
        )
    if power < 1 or not 0 <= threshold < 1:
        raise ShapeError(
            f"power is {power} and threshold {threshold}; a power >= 1 and a threshold in 0..1, 1 excluded, are needed"
        )
    with torch.autocast(scores.device.type, enabled=False):
        walk = _transition(affinity.float())
        inside = torch.stack([_boxes(one, threshold) for one in scores]) if len(scores) else scores.bool()
        held = inside.flatten(1).T.float()
        values = scores.flatten(1).T.float() * held
        for _ in range(power):
            values = walk @ values
        return (values * held).T.reshape(scores.shape).to(scores.dtype)


def _transition(affinity: Tensor) -> Tensor:
    """Return the symmetric matrix whose rows and columns sum to 1 that is `affinity` with rows and columns scaled."""
    rows = torch.ones_like(affinity[0])
    for _ in range(SINKHORN_STEPS):
        columns = 1 / (rows @ affinity).clamp(min=LEAST)
        rows = 1 / (affinity @ columns).clamp(min=LEAST)
    scaled = rows[:, None] * affinity * columns
    walk = scaled + scaled.T
    return walk / walk.sum(dim=1, keepdim=True).clamp(min=LEAST)


def _boxes(score: Tensor, threshold: float) -> Tensor:
    """Return where the boxes around the regions of a map (h, w) above a share of its largest value are, bool."""
    high = (score > threshold * score.max()).byte().cpu().numpy()
    inside = np.zeros(high.shape, dtype=bool)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(high, connectivity=8)
    for x, y, width, height, _ in boxes[1:]:  # the first is of the rest
        inside[y : y + height, x : x + width] = True
    return torch.from_numpy(inside).to(score.device)
