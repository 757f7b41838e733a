"""Spread class scores along learned boundaries: sparse affinities of an edge map and the walk along them."""

from __future__ import annotations

import warnings
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from hintseg.errors import ShapeError


class Path(NamedTuple):
    """The straight path from a cell to the cell at offset (dy, dx)."""

    dy: int
    dx: int
    cells: tuple[tuple[int, int], ...]
    """Offsets (y, x) of every cell on the path, both ends included, row-major."""


@lru_cache(maxsize=16)
def path_offsets(radius: float) -> tuple[Path, ...]:
    """List the paths from a cell to every neighbour in the lower half of a disc.

    Neighbours satisfy y^2 + x^2 < radius^2 (strictly) and come after the cell in row-major order, so that every
    unordered pair occurs once. A path holds each cell of the bounding rectangle whose distance to the straight
    segment is below 1 cell. Paths are sorted by number of cells, then row-major by offset.

    Args:
        radius: Reach in cells, > 1. IRNet trains with 10 (152 paths) and propagates with 5 (34 paths).

    Returns:
        One `Path` per neighbour.

    Raises:
        ShapeError: `radius` reaches no neighbour.

    Source:
        Ahn, Cho and Kwak, CVPR 2019, section 4.1 (the set Pi_ij of Eq. 4).

    Example:
        >>> path_offsets(2)
        (Path(dy=0, dx=1, cells=((0, 0), (0, 1))),
         Path(dy=1, dx=0, cells=((0, 0), (1, 0))),
         Path(dy=1, dx=-1, cells=((0, -1), (0, 0), (1, -1), (1, 0))),
         Path(dy=1, dx=1, cells=((0, 0), (0, 1), (1, 0), (1, 1))))
    """
    if not radius > 1:
        raise ShapeError(f"radius {radius} reaches no neighbour; give a radius above 1 cell, such as 5")
    reach = ceil(radius) - 1
    neighbours = [
        (dy, dx)
        for dy in range(reach + 1)
        for dx in range(-reach, reach + 1)
        if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius
    ]
    paths = [Path(dy, dx, _cells(dy, dx)) for dy, dx in neighbours]
    return tuple(sorted(paths, key=lambda path: len(path.cells)))


def _cells(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    columns = range(min(dx, 0), max(dx, 0) + 1)
    # Inside the rectangle the distance to the segment is the distance to its line, |cross product| / length < 1:
    # beyond an end point the rectangle holds no cell. Integers keep the comparison exact.
    return tuple((y, x) for y in range(dy + 1) for x in columns if (y * dx - x * dy) ** 2 < dy * dy + dx * dx)


class _Grid(NamedTuple):
    """Index sets of all transitions on one grid: they depend on size and radius only."""

    crow: Tensor
    column: Tensor
    source: Tensor
    """For each entry, where its affinity lies in the stack [self, paths, reversed paths] x cells."""


@lru_cache(maxsize=16)
def _grid(height: int, width: int, radius: float, device: torch.device) -> _Grid:
    paths = path_offsets(radius)
    count = height * width
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    # Row by row the entries follow the column, so the offsets are sorted row-major.
    ends = [(0, 0, 0)]
    ends += [(path.dy, path.dx, 1 + n) for n, path in enumerate(paths)]
    ends += [(-path.dy, -path.dx, 1 + n) for n, path in enumerate(paths)]
    columns, sources, inside = [], [], []
    for dy, dx, n in sorted(ends):
        far = (y + dy) * width + (x + dx)
        near = y * width + x
        # The affinity of a pair is stored at its first cell in row-major order.
        columns.append(far)
        sources.append(n * count + (near if (dy, dx) >= (0, 0) else far))
        inside.append((y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width))
    mask = torch.stack(inside, dim=-1).reshape(count, -1)
    crow = torch.zeros(count + 1, dtype=torch.int32)
    crow[1:] = mask.sum(dim=1).cumsum(dim=0)
    column = torch.stack(columns, dim=-1).reshape(count, -1)[mask].int()
    source = torch.stack(sources, dim=-1).reshape(count, -1)[mask]
    return _Grid(crow.to(device), column.to(device), source.to(device))


@torch.no_grad()
def edge_transition(edge: Tensor, *, radius: float = 5, beta: float = 10) -> Tensor:
    """Turn an edge map into the sparse transition matrix of a random walk.

    The affinity of two cells is 1 - the largest edge value on the path between them, both ends included, to the
    power `beta`; a cell's affinity to itself is 1. Cells outside the grid are left out, which is what padding the
    edges with 1.0 amounts to. Each row is divided by its sum. The published code normalises the columns of the
    symmetric affinity and multiplies row vectors from the left; this matrix is the transpose of that one, so that
    a step is `transition @ scores`.

    Args:
        edge: Edge strength (after the sigmoid), (h, w) or (B, h, w), float in 0..1.
        radius: Reach of a step in cells, > 1; neighbours lie strictly inside.
        beta: Power of the affinity, > 0. IRNet uses 10.

    Returns:
        Row-stochastic matrix in torch's CSR layout, (h*w, h*w) or (B, h*w, h*w), float32, row-major
        cells. All photos of a batch have their entries at the same places, zeros included.

    Raises:
        ShapeError: `edge` has the wrong number of axes, an empty axis, no float dtype or values outside 0..1.

    Cost:
        69 entries a cell at radius 5 (12 bytes each in all): 8 MB for a grid of 81 x 121 cells. The index sets
        of the 16 last grids are kept.

    Source:
        Ahn, Cho and Kwak, CVPR 2019, Eqs. 4 and 7.

    Example:
        >>> edge = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
        >>> edge_transition(edge, radius=2).to_dense()
        tensor([[0.5000, 0.5000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.0000, 1.0000, 0.0000],
                [0.0000, 0.0000, 0.0000, 1.0000]])
    """
    if edge.ndim not in (2, 3) or 0 in edge.shape[-2:] or not edge.is_floating_point():
        raise ShapeError(
            f"edge is {edge.dtype} of shape {tuple(edge.shape)}; a float tensor (h, w) or (B, h, w) without an "
            "empty side is needed"
        )
    if not bool(((edge >= 0) & (edge <= 1)).all()):
        raise ShapeError("edge has values outside 0..1 (or NaN); give edge strengths after the sigmoid")
    if not beta > 0:
        raise ShapeError(f"beta {beta} is not above 0; IRNet uses 10")
    height, width = edge.shape[-2:]
    batch = edge.reshape(-1, height, width)
    paths = path_offsets(radius)
    reach = ceil(radius) - 1
    # Eq. 7: the power keeps the order, so the weakest cell of a path may be sought after it. In float64 its rounding
    # does not depend on where in a vector register a cell lies.
    padded = pad(((1 - batch.double()) ** beta).float(), (reach, reach, 0, reach))
    affinity = padded.new_ones(len(batch), len(paths), height, width)
    for path, plane in zip(paths, affinity.unbind(dim=1), strict=True):
        for y, x in path.cells:
            torch.minimum(plane, padded[:, y : y + height, reach + x : reach + x + width], out=plane)
    return pair_transition(affinity if edge.ndim == 3 else affinity[0], radius=radius)


@torch.no_grad()
def pair_transition(affinity: Tensor, *, radius: float = 5) -> Tensor:
    """Turn the affinities of cell pairs into the sparse transition matrix of a random walk.

    A cell's affinity to itself is 1. Each row is divided by its sum.

    Args:
        affinity: Affinity of each cell and its n-th neighbour in the order of `path_offsets(radius)`, stored at the
            first cell in row-major order, (N, h, w) or (B, N, h, w), float in 0..1; 0 where the neighbour lies outside
            the grid.
        radius: Reach of a step in cells, > 1.

    Returns:
        Row-stochastic CSR matrix, (h*w, h*w) or (B, h*w, h*w), as of `edge_transition`.

    Raises:
        ShapeError: `affinity` does not have one plane per neighbour.

    Example:
        >>> pair_transition(torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]]), radius=2).to_dense()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    paths = path_offsets(radius)
    if affinity.ndim not in (3, 4) or affinity.shape[-3] != len(paths):
        raise ShapeError(
            f"affinity has shape {tuple(affinity.shape)}; (N, h, w) or (B, N, h, w) with N = {len(paths)} neighbours "
            f"within {radius} cells is needed"
        )
    height, width = affinity.shape[-2:]
    reach = ceil(radius) - 1
    planes = affinity.reshape(-1, len(paths), height, width)
    # Affinities are symmetric: the sum over a row is the sum over a column of the published matrix.
    total = planes.new_ones(len(planes), height + reach, width + 2 * reach, dtype=torch.float64)

    def shifted(y: int, x: int) -> Tensor:
        return total[:, y : y + height, reach + x : reach + x + width]

    for path, plane in zip(paths, planes.unbind(dim=1), strict=True):
        shifted(0, 0).add_(plane)
        shifted(path.dy, path.dx).add_(plane)
    grid = _grid(height, width, float(radius), affinity.device)
    own = planes.new_ones(len(planes), 1, height, width)
    value = torch.cat([own, planes], dim=1).flatten(1)[:, grid.source]
    row = torch.repeat_interleave(grid.crow.diff(), output_size=len(grid.column))
    value /= shifted(0, 0).flatten(1)[:, row]
    if affinity.ndim == 3:
        crow, column, value = grid.crow, grid.column, value[0]
    else:
        crow, column = grid.crow.expand(len(planes), -1), grid.column.expand(len(planes), -1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        size = (*affinity.shape[:-3], height * width, height * width)
        return torch.sparse_csr_tensor(crow, column, value, size, check_invariants=False)


def steps_on(pixels: int) -> int:
    """Return the steps of a walk that gets as far, relative to the photo, as 256 steps on a photo of VOC.

    A walk gets as far as the root of its steps; on a small photo it would lose its way.

    Example:
        >>> steps_on(376 * 500), steps_on(96 * 96)
        (256, 13)
    """
    return max(4, round(256 * pixels / (376 * 500)))


@torch.no_grad()
def random_walk(scores: Tensor, transition: Tensor, *, steps: int = 256) -> Tensor:
    """Spread class scores along learned affinities.

    IRNet multiplies its seeds by (1 - edge) first, so that boundary cells do not vote; AffinityNet does not. This
    function only walks: `random_walk(scores * (1 - edge), edge_transition(edge))` is IRNet's propagation.

    Args:
        scores: Seed scores, (K, h, w) or (B, K, h, w), float, on the grid of the affinities.
        transition: Row-stochastic matrix from `edge_transition`, or any in torch's CSR layout: (h*w, h*w), or
            (B, h*w, h*w) for a batch. Row-major cells. A published column-normalised T is given as `T.t()`.
        steps: Number of steps, >= 0. The paper squares the matrix eight times: 256 steps.

    Returns:
        Scores after the walk, in the shape and dtype of `scores`; no value exceeds the largest score of its class.

    Raises:
        ShapeError: `transition` is not CSR or does not fit the grid of `scores`, or `steps` is negative.

    Cost:
        Time O(steps * entries * K): about 0.1 s for 256 steps, 2 classes, 81 x 121 cells and radius 5 on one CPU
        thread. Memory O(entries): no dense (h*w)^2 matrix is made. Sums run along a row in a fixed order, so the
        result does not depend on threads, batch or the other classes.

    Source:
        Ahn, Cho and Kwak, CVPR 2019, section 4.3, Eq. 8; Ahn and Kwak, CVPR 2018, section 3.3.

    Example:
        >>> transition = edge_transition(torch.tensor([[0.0, 0.0, 1.0, 0.0]]), radius=2)
        >>> random_walk(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), transition, steps=2)
        tensor([[[0.5000, 0.5000, 0.0000, 0.0000]]])
    """
    if scores.ndim not in (3, 4) or not scores.is_floating_point():
        raise ShapeError(
            f"scores are {scores.dtype} of shape {tuple(scores.shape)}; a float tensor (K, h, w) or (B, K, h, w) is "
            "needed"
        )
    cells = scores.shape[-2] * scores.shape[-1]
    size = (*scores.shape[:-3], cells, cells)
    if transition.layout != torch.sparse_csr or tuple(transition.shape) != size:
        raise ShapeError(
            f"transition is {transition.layout} of shape {tuple(transition.shape)}; scores of shape "
            f"{tuple(scores.shape)} need a torch.sparse_csr matrix of shape {size}, as edge_transition makes"
        )
    if steps < 0:
        raise ShapeError(f"steps is {steps}; give 0 or more, such as 256")
    if not scores.numel():
        return scores.clone()
    # The photos of a batch are one walk on grids side by side: a step is one product, whatever their number.
    batch = scores.reshape(-1, scores.shape[-3], cells)
    values = batch.double().transpose(1, 2).reshape(-1, batch.shape[1])
    matrix = _side_by_side(transition) if scores.ndim == 4 else transition.double()
    for _ in range(steps):
        values = matrix @ values
    return values.view(len(batch), cells, -1).transpose(1, 2).reshape(scores.shape).to(scores.dtype)


def _side_by_side(transition: Tensor) -> Tensor:
    """Turn a batch of CSR matrices (B, n, n) into one of their blocks, (B * n, B * n), float64."""
    crow, column, value = transition.crow_indices(), transition.col_indices(), transition.values()
    photos, entries = column.shape
    number = torch.arange(photos, device=crow.device)[:, None]
    rows = (crow[:, :-1] + entries * number).flatten()
    size = photos * transition.shape[-1]
    ends = torch.cat([rows, rows.new_tensor([photos * entries])])
    columns = (column + transition.shape[-1] * number).flatten()
    return torch.sparse_csr_tensor(ends, columns, value.flatten().double(), (size, size), check_invariants=False)
