"""What writers write of a photo: its marks, those of objects with their outlines, whatever its full mask is kept as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from hintseg.errors import HintsegError
from hintseg.formats.fitting import Size, bounds_of
from hintseg.formats.index_image import read_checked
from hintseg.formats.photos import size_or_none
from hintseg.geometry import runs
from hintseg.geometry.rasterise import rasterise
from hintseg.types import BACKGROUND, IGNORE, Box, FullMask, Mark, MaskFile, Photo, Region, Shape


@dataclass(frozen=True, slots=True)
class Drawn:
    """A mark as it is written.

    Attributes:
        mark: The mark; a region that is no object's outline stands here as its box.
        outline: The outline of the object in the box.
    """

    mark: Mark[Shape]
    outline: Region | None = None

    @property
    def box(self) -> Box | None:
        """The object's box; None for clicks and strokes."""
        return self.mark.shape if isinstance(self.mark.shape, Box) else None

    @property
    def own_box(self) -> bool:
        """Whether the box says more than the outline: it is not just the box around it, or there is no outline."""
        if self.outline is None or self.box is None:
            return self.box is not None
        apart = (abs(a - b) for a, b in zip(bounds_of(self.outline), self.box.corners, strict=True))
        return max(apart) > 1e-6


@dataclass(frozen=True, slots=True)
class PhotoMarks:
    """What is written of one photo.

    Attributes:
        photo: The photo.
        size: Its (height, width), pixels; None where it cannot be read.
        drawn: Its marks.
        negative: Whether it is said to show no class.
        wrong: Why its full mask is left out; empty: it is not.
    """

    photo: Photo
    size: Size | None
    drawn: tuple[Drawn, ...]
    negative: bool
    wrong: str = ""


def drawn(photo: Photo, classes: int) -> PhotoMarks:
    """Return the marks of a photo, each object's box with its outline.

    Outlines are those of the photo's full mask with the object's number. An index image is cut into the objects of the
    photo's boxes; what of a class is in none of them becomes an object of its own.

    Args:
        photo: The photo.
        classes: K.
    """
    hints, size = photo.hints, size_or_none(photo.path)
    full = hints.mask if photo.truth is None else photo.truth
    negative = (hints.tags is not None and len(hints.tags.absent) == classes and not hints.marks) or full == ()
    marks = [_boxed(mark) for mark in hints.marks]
    if full is None:
        return PhotoMarks(photo, size, tuple(marks), negative)
    try:
        found = _outlined(marks, _outlines(full, size, classes), size)
    except HintsegError as error:
        return PhotoMarks(photo, size, tuple(marks), negative, str(error))
    return PhotoMarks(photo, size, tuple(found), negative and not found)


def _boxed(mark: Mark[Shape]) -> Drawn:
    if isinstance(mark.shape, Region):
        return Drawn(replace(mark, shape=Box(*bounds_of(mark.shape))), mark.shape)
    return Drawn(mark)


def _outlines(full: FullMask, size: Size | None, classes: int) -> list[Mark[Region]]:
    """Return the regions of a full mask; those of an index image are whole classes, without a number."""
    if not isinstance(full, MaskFile):
        regions = ((mark, mark.shape if isinstance(mark.shape, Region) else _rectangle(mark.shape)) for mark in full)
        return [Mark(mark.label, region, mark.object, mark.source, mark.trust) for mark, region in regions]
    if size is None:
        return []
    values = read_checked(full, size, classes)
    labels = [value for value in np.unique(values).tolist() if value != BACKGROUND]
    return [Mark(label, Region(rle=runs.encode(values == label))) for label in labels]


def _rectangle(shape: Shape) -> Region:
    x0, y0, x1, y1 = shape.corners if isinstance(shape, Box) else (0.0, 0.0, 0.0, 0.0)
    return Region(((x0, y0, x1, y0, x1, y1, x0, y1),))


def _outlined(marks: Sequence[Drawn], outlines: Sequence[Mark[Region]], size: Size | None) -> Iterator[Drawn]:
    """Yield the marks with their outlines, then the outlines that belong to none."""
    left, found = list(outlines), [one.outline for one in marks]
    for place, one in enumerate(marks):
        number = next((n for n, other in enumerate(left) if _same(one, other)), None)
        if number is not None:
            found[place] = left.pop(number).shape
    boxes = [(one.box, place) for place, one in enumerate(marks) if one.box is not None and found[place] is None]
    for box, place in sorted(boxes, key=lambda pair: _area(pair[0])):  # small ones in large ones come first
        if size is not None:
            found[place] = _cut_out(box, marks[place].mark.label, left, size)
    yield from (Drawn(one.mark, outline) for one, outline in zip(marks, found, strict=True))
    numbers = count(1 + max((one.mark.object or 0 for one in marks), default=0))
    for other in left:
        if other.shape.rle is None or runs.bounds(other.shape.rle) is not None:
            number = None if other.label == IGNORE else other.object or next(numbers)
            box = Box(*bounds_of(other.shape))
            yield Drawn(Mark(other.label, box, number, other.source, other.trust), other.shape)


def _same(one: Drawn, other: Mark[Region]) -> bool:
    """Return whether an outline is that of a box: they have one number, or are crowds at one place."""
    if one.box is None or one.outline is not None or one.mark.label != other.label:
        return False
    if other.object is not None:
        return one.mark.object == other.object
    return other.label == IGNORE and one.box == Box(*bounds_of(other.shape))


def _area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def _cut_out(box: Box, label: int, left: list[Mark[Region]], size: Size) -> Region | None:
    """Return what of its whole class lies in a box, and leave the rest there; None where that is nothing."""
    for number, other in enumerate(left):
        if other.label == label and other.object is None and other.shape.rle is not None:
            of_class = runs.decode(other.shape.rle)
            inside = of_class & rasterise(box, size)
            if inside.any():
                left[number] = replace(other, shape=Region(rle=runs.encode(of_class & ~inside)))
                return Region(rle=runs.encode(inside))
    return None
