"""Shapes of label files brought into their photo: what reaches outside is cut off, what cannot be right is refused.

One bad shape does not cost the file: `formats.gather` counts what is mended or left out here, and refuses the file
where that is a large part of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from hintseg.errors import LabelError
from hintseg.geometry import runs
from hintseg.geometry.boxes import SLACK_PX, fit_box, fit_point
from hintseg.geometry.clipping import clip_line, clip_ring
from hintseg.types import Box, Click, Region, Shape, Stroke

Size = tuple[int, int]

INSIDE = 0.5
"""A box less of which lies in its photo is not cut off but left out: it was drawn on another picture."""


class Fitted(NamedTuple):
    """A shape in its photo.

    Attributes:
        shapes: A box, stroke or click; several where a stroke leaves the photo and comes back.
        outline: The object's outline, where the box has one.
        mended: What was changed, in a few words; empty: nothing.
    """

    shapes: tuple[Box | Stroke | Click, ...]
    outline: Region | None = None
    mended: str = ""


def fit(shape: Shape, outline: Region | None, size: Size | None) -> Fitted:
    """Bring a shape into its photo.

    Args:
        shape: The shape; a region stands for an object and its box.
        outline: The outline of the object in the box `shape`.
        size: (height, width) of the photo, pixels; None where unknown, then nothing is cut off.

    Raises:
        LabelError: It cannot be right: no number, no area, or outside of the photo.

    Example:
        >>> fit(Box(5, 2, 25, 8), None, (10, 20)).shapes
        (Box(x0=5, y0=2, x1=20.0, y1=8),)
        >>> fit(Box(15, 2, 45, 8), None, (10, 20))
        Traceback (most recent call last):
        hintseg.errors.LabelError: box (15, 2, 45, 8) lies outside of its photo of 20 x 10
    """
    if isinstance(shape, Click):
        return Fitted((Click(*fit_point(shape.x, shape.y, size)),))
    if isinstance(shape, Stroke):
        lines, cut = _fit_points(shape.points, size, "stroke", fewest=1)
        return Fitted(tuple(Stroke(line, shape.width) for line in lines), None, _CUT if cut else "")
    if isinstance(shape, Region):
        region, changed = _fit_region(shape, size)
        return Fitted((Box(*fit_box(bounds_of(region), size)),), region, changed)
    corners, mended = _fit_box(shape, size)
    if outline is None:
        return Fitted((corners,), None, mended)
    try:
        region, changed = _fit_region(outline, size)
    except LabelError as error:
        return Fitted((corners,), None, f"have an outline that cannot be used, so their box alone counts ({error})")
    return Fitted((corners,), region, mended or changed)


_CUT = "reach outside of the photo and are cut off"
SWAPPED = "have their corners the other way round and are read so"


def _fit_box(box: Box, size: Size | None) -> tuple[Box, str]:
    x0, y0, x1, y1 = box.corners
    mended = ""
    if x1 < x0 or y1 < y0:
        x0, y0, x1, y1, mended = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1), SWAPPED
    if size is not None and all(map(math.isfinite, (x0, y0, x1, y1))):
        height, width = size
        if max(-x0, -y0, x1 - width, y1 - height) > SLACK_PX:
            inside = max(0.0, min(x1, width) - max(x0, 0)) * max(0.0, min(y1, height) - max(y0, 0))
            if inside < INSIDE * (x1 - x0) * (y1 - y0):
                shown = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
                raise LabelError(f"{shown} lies outside of its photo of {width} x {height}")
            x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
            mended = _CUT
    return Box(*fit_box((x0, y0, x1, y1), size)), mended


def _fit_region(region: Region, size: Size | None) -> tuple[Region, str]:
    if region.rle is not None:
        runs.check_runs(region.rle)
        if size is not None and (region.rle.height, region.rle.width) != size:
            given = f"{region.rle.width} x {region.rle.height}"
            raise LabelError(f"the run-length mask is {given}, but its photo is {size[1]} x {size[0]}")
        if runs.bounds(region.rle) is None:
            raise LabelError("the run-length mask is empty")
        return region, ""
    rings, cut, wrong = list[tuple[float, ...]](), False, ""
    for ring in region.polygons:
        try:
            fitted, outside = _fit_points(ring, size, "polygon", fewest=3)
        except LabelError as error:
            wrong = wrong or str(error)
            continue
        rings += fitted
        cut = cut or outside
    if not rings:
        raise LabelError(wrong or "the outline has no points")
    if wrong:
        return Region(tuple(rings)), f"have a part that cannot be used ({wrong})"
    return Region(tuple(rings)), _CUT if cut else ""


def _fit_points(
    flat: Sequence[float], size: Size | None, what: Literal["polygon", "stroke"], fewest: int
) -> tuple[list[tuple[float, ...]], bool]:
    """Return what lies inside the photo, and whether any was farther outside than rounding puts it."""
    if len(flat) % 2 or len(flat) < 2 * fewest:
        raise LabelError(f"a {what} has {len(flat)} numbers; at least {fewest} points (x, y) are needed")
    if not all(map(math.isfinite, flat)):
        raise LabelError(f"a {what} has a coordinate that is not a number")
    if size is None:
        return [tuple(flat)], False
    xs, ys = flat[0::2], flat[1::2]
    height, width = size
    outside = min(xs) > width or max(xs) < 0 or min(ys) > height or max(ys) < 0
    far = max(-min(xs), -min(ys), max(xs) - width, max(ys) - height) > SLACK_PX
    parts = [tuple(flat)]
    if far and not outside:
        parts = clip_line(flat, size) if what == "stroke" else list(filter(None, [clip_ring(flat, size)]))
    if outside or not parts:
        raise LabelError(f"a {what} lies outside of its photo of {width} x {height}")
    return [_moved_in(part, size) for part in parts], far


def _moved_in(flat: Sequence[float], size: Size) -> tuple[float, ...]:
    height, width = size
    pairs = zip(flat[0::2], flat[1::2], strict=True)
    inside = ((min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))) for x, y in pairs)
    return tuple(value for pair in inside for value in pair)


def bounds_of(region: Region) -> tuple[float, float, float, float]:
    """Return the box (x0, y0, x1, y1) around an outline, pixels.

    Raises:
        LabelError: It has no pixel.
    """
    if region.rle is not None:
        found = runs.bounds(region.rle)
        if found is None:
            raise LabelError("the run-length mask is empty")
        return found
    xs = [value for ring in region.polygons for value in ring[0::2]]
    ys = [value for ring in region.polygons for value in ring[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
