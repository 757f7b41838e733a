"""The pixels of shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hintseg.errors import LabelError
from hintseg.geometry import runs
from hintseg.geometry.strokes import near_line
from hintseg.types import BACKGROUND, IGNORE, Click, Mark, Region, Shape, Stroke

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]

_AT_ONCE = 1 << 21
"""Crossings of an outline's edges with rows that are worked out together: a long zigzag has more than memory holds."""

_KEPT = 1 << 24
"""Pixels of objects that are kept (16 bytes each) from counting to painting; the rest is worked out twice."""


def rasterise(shape: Shape, size: tuple[int, int]) -> Bools:
    """Return a shape as a mask.

    Args:
        shape: The shape; what lies outside of the photo is left out.
        size: (height, width) of the photo, pixels.

    Returns:
        (H, W) bool.

    Raises:
        LabelError: Its run lengths belong to another size.

    Example:
        >>> from hintseg.types import Box
        >>> rasterise(Box(1, 0, 3, 1), (2, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = np.zeros(size, dtype=np.bool_)
    mask[pixels(shape, size)] = True
    return mask


def pixels(shape: Shape, size: tuple[int, int]) -> tuple[Indices, Indices]:
    """Return the rows and columns of a shape's pixels.

    A box has every pixel it touches, a region those whose centre lies in it, a stroke those whose centre is at most
    half the pen's width away (where that is none, those that its points lie in), a click the one it lies in.

    Args:
        shape: The shape; what lies outside of the photo is left out.
        size: (height, width) of the photo, pixels.

    Raises:
        LabelError: Its run lengths belong to another size.

    Example:
        >>> rows, columns = pixels(Click(2.7, 0.2), (2, 4))
        >>> rows.tolist(), columns.tolist()
        ([0], [2])
    """
    if isinstance(shape, Region) and shape.rle is not None:
        if (shape.rle.height, shape.rle.width) != size:
            given, needed = f"{shape.rle.width} x {shape.rle.height}", f"{size[1]} x {size[0]}"
            raise LabelError(f"an object's run lengths are for {given} pixels, but the photo has {needed}")
        columns, rows = np.divmod(runs.positions(shape.rle), size[0])
        return rows, columns
    if isinstance(shape, Region):
        rings = [_points(ring) for ring in shape.polygons]
        corner, window = _window(np.concatenate(rings) if rings else np.zeros((1, 2)), 0.0, size)
        inside = fill([ring - corner for ring in rings], window)
    elif isinstance(shape, Stroke):
        line = _points(shape.points)
        corner, window = _window(line, shape.width / 2, size)
        inside = near_line(line - corner, max(shape.width, 1.0) / 2, window)
        if not inside.any():  # the pen is thinner than the way from a corner of pixels to their centres
            columns, rows = np.floor(line - corner).astype(np.int64).T
            there = (rows >= 0) & (rows < window[0]) & (columns >= 0) & (columns < window[1])
            inside[rows[there], columns[there]] = True
    elif isinstance(shape, Click):
        corner, window = _window(np.floor([[shape.x, shape.y], [shape.x + 1, shape.y + 1]]), 0.0, size)
        inside = np.ones(window, dtype=np.bool_)
    else:
        corner, window = _window(_points(shape.corners), 0.0, size)
        inside = np.ones(window, dtype=np.bool_)
    rows, columns = np.nonzero(inside)
    return rows + corner[1], columns + corner[0]


def _points(flat: Sequence[float]) -> Points:
    return np.asarray(flat, dtype=np.float64).reshape(-1, 2)


def _window(points: Points, margin: float, size: tuple[int, int]) -> tuple[Indices, tuple[int, int]]:
    """Return the corner (x, y) and the (height, width) of the pixels around points (n, 2), inside the photo."""
    most = (size[1], size[0])
    first = np.clip(np.floor(points.min(axis=0) - margin), 0, most).astype(np.int64)
    stop = np.clip(np.ceil(points.max(axis=0) + margin), first, most).astype(np.int64)
    width, height = (stop - first).tolist()
    return first, (height, width)


def fill(rings: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]) -> Bools:
    """Return the pixels whose centre lies in any of the rings.

    Args:
        rings: Outlines, each (n, 2) points (x, y), pixels; each is filled by the even-odd rule.
        size: (height, width), pixels.

    Returns:
        (H, W) bool.
    """
    height, width = size
    filled = np.zeros(size, dtype=np.bool_)
    for points in rings:
        ends = np.roll(points, -1, axis=0)
        # Each crossing toggles all pixels to its right, so a running parity along the row is the inside.
        toggles = np.zeros((height, width + 1), dtype=np.uint8)
        some = max(1, _AT_ONCE // max(1, height))
        for begin in range(0, len(points), some):
            (x0, y0), (x1, y1) = points[begin : begin + some].T, ends[begin : begin + some].T
            # An edge crosses the rows whose centre r + 0.5 lies in [min y, max y).
            first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
            stop = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
            edge = np.repeat(np.arange(len(x0)), stop - first)
            row = np.arange(edge.size) - np.repeat(np.cumsum(stop - first) - (stop - first), stop - first) + first[edge]
            x = x0[edge] + (row + 0.5 - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
            column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
            np.add.at(toggles, (row, column), 1)
        filled |= (np.cumsum(toggles[:, :width], axis=1, dtype=np.int32) & 1).astype(np.bool_)
    return filled


def paint(marks: Sequence[Mark[Shape]], size: tuple[int, int]) -> Labels:
    """Paint objects: crowds first as 255, then the larger ones first.

    Args:
        marks: The objects; those with the label 255 are crowds.
        size: (height, width), pixels.

    Returns:
        (H, W) uint8, 0 where there is no object.

    Raises:
        LabelError: An object's run lengths belong to another size.
    """
    mask = np.full(size, BACKGROUND, dtype=np.uint8)
    found, kept = list[tuple[Mark[Shape], int, tuple[Indices, Indices] | None]](), 0
    for mark in marks:
        covered = pixels(mark.shape, size)
        kept += covered[0].size
        found.append((mark, covered[0].size, covered if kept <= _KEPT else None))
    for mark, _, known in sorted(found, key=lambda item: (item[0].label != IGNORE, -item[1])):
        mask[known or pixels(mark.shape, size)] = mark.label
    return mask
