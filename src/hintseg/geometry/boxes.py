"""Corners of boxes and points: checked as they are read, brought to whole pixels, expanded."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hintseg.errors import LabelError, ShapeError

Corners = tuple[float, float, float, float]

Window = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in whole pixels, right and bottom exclusive, inside the photo, at least one pixel."""

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


def turned_box(centre: tuple[float, float], size: tuple[float, float], angle: float) -> Corners:
    """Return the box around a turned rectangle.

    Args:
        centre: Its centre (x, y), pixels.
        size: Its width and height before it is turned, pixels.
        angle: How far it is turned clockwise around its centre, radians.

    Example:
        >>> turned_box((10.0, 5.0), (4.0, 2.0), math.pi / 2)
        (9.0, 3.0, 11.0, 7.0)
    """
    (x, y), (width, height) = centre, size
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    across, down = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    return x - across, y - down, x + across, y + down


def pixel_window(box: Iterable[float], size: tuple[int, int]) -> Window:
    """Round a box to whole pixels, at least one, and clip it to the photo.

    Args:
        box: (x0, y0, x1, y1), pixels, right and bottom exclusive; it may reach outside, and be narrower than a pixel.
        size: (height, width) of the photo, pixels.

    Raises:
        ShapeError: The box is not four finite numbers, has swapped corners, or lies outside the photo.

    Example:
        >>> pixel_window((-3.0, 2.4, 5.6, 9.0), (8, 10)), pixel_window((4.2, 3.0, 4.2, 3.0), (8, 10))
        ((0, 2, 6, 8), (4, 3, 5, 4))
    """
    edges = [float(edge) for edge in box]
    if len(edges) != 4 or not all(math.isfinite(edge) for edge in edges):
        raise ShapeError(f"box is {edges}; four finite numbers (x0, y0, x1, y1) in pixels are needed")
    x0, y0, x1, y1 = edges
    height, width = size
    if x1 < x0 or y1 < y0:
        raise ShapeError(f"box {edges} is empty; (x0, y0, x1, y1) needs x0 < x1 and y0 < y1")
    if x0 < 0 >= x1 or y0 < 0 >= y1 or x1 > width <= x0 or y1 > height <= y0:
        raise ShapeError(f"box {edges} lies outside the photo of {width} x {height} pixels")
    left, right = _span(x0, x1, width)
    top, bottom = _span(y0, y1, height)
    return left, top, right, bottom


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    begin, end = max(round(low), 0), min(round(high), size)
    if begin < end:
        return begin, end
    # Narrower than a pixel: the pixel that holds its middle.
    pixel = min(max(math.floor((low + high) / 2), 0), size - 1)
    return pixel, pixel + 1


def expand_box(
    window: Window,
    size: tuple[int, int],
    expand: float = 0.5,
    factors: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Window:
    """Return the window that CFS sees of a box: the box and a margin, clipped at the photo's border.

    Args:
        window: The box in whole pixels, as `pixel_window` returns it.
        size: (height, width) of the photo, pixels.
        expand: Height and width grow by this share in total, half of it on each side.
        factors: Of the left, top, right and bottom margin, >= 0; training draws them at random.

    Returns:
        The expanded window; it holds all of `window`.

    Source:
        Section 3.2 of the CFS and LGSA paper: 50 %.

    Example:
        >>> expand_box((20, 2, 60, 22), (100, 100))
        (10, 0, 70, 27)
    """
    x0, y0, x1, y1 = window
    height, width = size
    across, down = expand / 2 * (x1 - x0), expand / 2 * (y1 - y0)
    left, top, right, bottom = (
        round(margin * factor) for margin, factor in zip((across, down) * 2, factors, strict=True)
    )
    return max(x0 - left, 0), max(y0 - top, 0), min(x1 + right, width), min(y1 + bottom, height)
