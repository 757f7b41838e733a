"""Pixel affinity read out of self-attention (AFA), kept only within a window around each cell."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hintseg.nn.mit import ATTENTION_HEADS, Attention

RADIUS = 8
"""Cells farther apart than this, along either axis (Chebyshev), have no affinity."""


class Window(NamedTuple):
    """Which cells lie around each cell of a grid.

    Attributes:
        cells: Row-major number of the cell at each of the S = (2 * radius + 1)^2 offsets, (S, N) int64; 0 outside.
        inside: Whether that cell is on the grid, (S, N) bool.
    """

    cells: Tensor
    inside: Tensor


@lru_cache(maxsize=32)
def window(height: int, width: int, radius: int, device: torch.device) -> Window:
    """Return the window of every cell of a grid; computed once per grid.

    Example:
        >>> window(1, 3, 1, torch.device("cpu")).inside.sum(dim=0)  # the corners see two cells, the middle all three
        tensor([2, 3, 2])
    """
    with torch.inference_mode(False):  # the cached tensors serve training too
        offsets = torch.arange(-radius, radius + 1, device=device)
        dy, dx = torch.meshgrid(offsets, offsets, indexing="ij")
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        rows, columns = y.reshape(1, -1) + dy.reshape(-1, 1), x.reshape(1, -1) + dx.reshape(-1, 1)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return Window((rows * width + columns) * inside, inside)


class AffinityHead(nn.Module):
    """One weight per attention head turns self-attention into a symmetric affinity of cells.

    Source:
        Ru et al., AFA, CVPR 2022, section 3.2.
    """

    def __init__(self, heads: int = ATTENTION_HEADS) -> None:
        super().__init__()
        self.project = nn.Conv2d(heads, 1, kernel_size=1)
        nn.init.kaiming_normal_(self.project.weight, a=5**0.5, mode="fan_out")

    def forward(self, attention: Attention, size: tuple[int, int], radius: int = RADIUS) -> Tensor:
        """Return the affinity of every cell to those around it.

        The weighted sum over heads is one product of weighted queries and keys: no map per head is made.

        Args:
            attention: Queries and keys of N = h * w cells.
            size: (h, w).
            radius: Reach in cells.

        Returns:
            (B, S, N) in 0..1: entry (s, j) belongs to cell j and the cell at offset s; meaningless where that is
            outside (see `window`).

        Cost:
            Memory 4 * N^2 bytes per photo and 4 * S * N for the result.
        """
        batch, heads, cells, depth = attention.query.shape
        weighted = attention.query * self.project.weight.view(1, heads, 1, 1)
        query, key = (t.transpose(1, 2).reshape(batch, cells, heads * depth) for t in (weighted, attention.key))
        logits = query @ key.transpose(1, 2)  # (B, N, N)
        index = window(*size, radius, logits.device).cells.expand(batch, -1, -1)
        # Both directions are gathered rather than the transpose added: only the window is needed of the sum.
        both = logits.gather(1, index) + logits.transpose(1, 2).gather(1, index)
        return torch.sigmoid(both.float() + self.project.get_parameter("bias"))


def gather_window(values: Tensor, radius: int) -> Tensor:
    """Return the values around every cell, (B, h, w) -> (B, S, N); those outside the grid repeat cell 0."""
    near = window(values.shape[1], values.shape[2], radius, values.device)
    return values.flatten(1)[:, near.cells]


def spread(scores: Tensor, affinity: Tensor, radius: int = RADIUS) -> Tensor:
    """Spread scores once along squared, column-normalised affinities.

    Args:
        scores: (B, C, h, w).
        affinity: (B, S, N) in 0..1, of the same grid and radius.
        radius: Reach in cells.

    Returns:
        (B, C, h, w).

    Source:
        Ru et al., AFA, CVPR 2022, Eqs. 5-6, with one step; 0.1 in the denominator is from their code.
    """
    batch, channels, height, width = scores.shape
    near = window(height, width, radius, scores.device)
    weight = affinity.float() ** 2 * near.inside
    weight = weight / (weight.sum(dim=1, keepdim=True) + 0.1)
    flat = scores.float().flatten(2)
    # One channel at a time: all of them would make C * S * N numbers.
    rows = [(flat[:, c][:, near.cells] * weight).sum(dim=1) for c in range(channels)]
    return torch.stack(rows, dim=1).reshape(batch, channels, height, width)
