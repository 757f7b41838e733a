"""How large marked objects are, as shares of their photos."""

from __future__ import annotations

from collections.abc import Iterator

from hintseg.errors import PhotoError
from hintseg.formats.photos import photo_size
from hintseg.types import BACKGROUND, IGNORE, Box, HintSet, Mark, Region, Shape

SMALL_PX = 32
"""Objects with a shorter side are hard to learn: two cells of a network with stride 16."""

MOST = 500
"""Photos that are looked at, spread evenly: their headers are read."""


def object_sides(hint_set: HintSet) -> Iterator[tuple[int, float]]:
    """Yield the class of each box or outline of an object, and its shorter side as a share of its photo's longer one.

    Run lengths are not looked at, nor are photos whose header cannot be read.
    """
    marked = [photo for photo in hint_set.photos if any(_is_object(mark) for mark in photo.hints.marks)]
    for photo in marked[:: max(1, -(-len(marked) // MOST))]:
        try:
            longest = max(photo_size(photo.path))
        except PhotoError:
            continue
        for mark in photo.hints.marks:
            if _is_object(mark) and (side := _shorter_side(mark.shape)) > 0:
                yield mark.label, side / longest


def _is_object(mark: Mark[Shape]) -> bool:
    return BACKGROUND < mark.label < IGNORE and isinstance(mark.shape, Box | Region)


def _shorter_side(shape: Shape) -> float:
    if isinstance(shape, Box):
        return min(shape.x1 - shape.x0, shape.y1 - shape.y0)
    if isinstance(shape, Region) and shape.polygons:
        across, down = ([value for ring in shape.polygons for value in ring[axis::2]] for axis in (0, 1))
        return min(max(across) - min(across), max(down) - min(down))
    return 0.0
