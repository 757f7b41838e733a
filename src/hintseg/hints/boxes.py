"""Check the corners of boxes and points as they are read."""

from __future__ import annotations

import math

from hintseg.errors import LabelError

Corners = tuple[float, float, float, float]

SLACK_PX = 2.0
"""Boxes and points this far outside the photo are moved in: rounding, and tools that count from 1."""


def fit_box(corners: Corners, size: tuple[int, int] | None) -> Corners:
    """Check a box and clip it to its photo.

    Args:
        corners: (x0, y0, x1, y1), pixels, right and bottom exclusive.
        size: (height, width) of the photo, pixels; None where unknown, then nothing is clipped.

    Returns:
        The clipped corners.

    Raises:
        LabelError: A corner is no number, the corners are swapped, or the box reaches more than 2 px outside.

    Example:
        >>> fit_box((-1.0, 2.0, 10.0, 12.0), (12, 10))
        (0.0, 2.0, 10.0, 12.0)
    """
    x0, y0, x1, y1 = corners
    shown = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not all(map(math.isfinite, corners)):
        raise LabelError(f"{shown} has a corner that is not a number")
    if x1 < x0 or y1 < y0:
        raise LabelError(f"{shown} has swapped corners; x0 must be left of x1 and y0 above y1")
    if size is not None:
        height, width = size
        outside = max(-x0, -y0, x1 - width, y1 - height)
        if outside > SLACK_PX:
            raise LabelError(f"{shown} reaches {outside:g} px outside its photo of {width} x {height}")
        x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if x1 <= x0 or y1 <= y0:
        raise LabelError(f"{shown} is empty")
    return x0, y0, x1, y1


def fit_point(x: float, y: float, size: tuple[int, int] | None) -> tuple[float, float]:
    """Check a point and move it into its photo.

    Args:
        x: Pixels from the left.
        y: Pixels from the top.
        size: (height, width) of the photo, pixels; None where unknown.

    Returns:
        The point, with 0 <= x < width and 0 <= y < height.

    Raises:
        LabelError: A coordinate is no number, or the point is more than 2 px outside.
    """
    if not (math.isfinite(x) and math.isfinite(y)):
        raise LabelError(f"point ({x:g}, {y:g}) has a coordinate that is not a number")
    if size is None:
        return x, y
    height, width = size
    outside = max(-x, -y, x - width, y - height)
    if outside > SLACK_PX:
        raise LabelError(f"point ({x:g}, {y:g}) is {outside:g} px outside its photo of {width} x {height}")
    return min(max(x, 0.0), math.nextafter(width, 0)), min(max(y, 0.0), math.nextafter(height, 0))
