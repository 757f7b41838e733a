"""Outlines and lines cut off at the photo's border."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

Point = tuple[float, float]
Flat = tuple[float, ...]
"""Points as (x, y, x, y, ...), pixels."""


def clip_ring(flat: Sequence[float], size: tuple[int, int]) -> Flat:
    """Return what of a ring lies in its photo, one ring: parts of it hang together along the border.

    Args:
        flat: Its corners as (x, y, x, y, ...), pixels.
        size: (height, width) of the photo, pixels.

    Returns:
        The ring; empty where no area of it lies inside.

    Source:
        Sutherland and Hodgman, Reentrant polygon clipping, 1974.

    Example:
        >>> clip_ring((1, 1, 7, 4, 1, 4), (9, 5))
        (1, 1, 5.0, 3.0, 5.0, 4.0, 1, 4)
    """
    points = list(zip(flat[0::2], flat[1::2], strict=True))
    for axis, edge, sign in _borders(size):
        kept = list[Point]()
        for begin, end in zip(points[-1:] + points[:-1], points, strict=True):
            before, after = sign * (begin[axis] - edge), sign * (end[axis] - edge)
            if min(before, after) < 0 < max(before, after):
                x, y = _between(begin, end, before / (before - after))
                kept.append((edge, y) if axis == 0 else (x, edge))
            if after >= 0:
                kept.append(end)
        points = kept
    thin = any(len({point[axis] for point in points}) < 2 for axis in (0, 1))
    return () if thin else tuple(chain.from_iterable(points))


def clip_line(flat: Sequence[float], size: tuple[int, int]) -> list[Flat]:
    """Return what of a line lies in its photo: several lines where it leaves the photo and comes back.

    Args:
        flat: Its vertices as (x, y, x, y, ...), pixels.
        size: (height, width) of the photo, pixels.

    Example:
        >>> clip_line((1, 1, 9, 5, 9, 7, 1, 7), (8, 5))
        [(1, 1, 5.0, 3.0), (5.0, 7.0, 1, 7)]
    """
    lines = list[list[Point]]()
    for begin, end in pairwise(zip(flat[0::2], flat[1::2], strict=True)):
        enters, leaves = 0.0, 1.0
        for axis, edge, sign in _borders(size):
            before, after = sign * (begin[axis] - edge), sign * (end[axis] - edge)
            if before < 0 and after < 0:
                leaves = 0.0
            elif before < 0:
                enters = max(enters, before / (before - after))
            elif after < 0:
                leaves = min(leaves, before / (before - after))
        if enters >= leaves:
            continue
        first = begin if enters == 0 else _between(begin, end, enters)
        last = end if leaves == 1 else _between(begin, end, leaves)
        if lines and lines[-1][-1] == first:
            lines[-1].append(last)
        else:
            lines.append([first, last])
    return [tuple(chain.from_iterable(line)) for line in lines]


def _borders(size: tuple[int, int]) -> tuple[tuple[int, float, int], ...]:
    """Return the photo's borders: axis, where on it, and the sign of the way inside."""
    height, width = size
    return (0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)


def _between(begin: Point, end: Point, share: float) -> Point:
    (x0, y0), (x1, y1) = begin, end
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)
