"""The objects of a photo as writers need them: each with its box and its outline, also out of an index image."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from hintseg.formats.index_image import read_checked
from hintseg.geometry import runs
from hintseg.geometry.boxes import pixel_window
from hintseg.types import BACKGROUND, IGNORE, Box, Mark, MaskFile, Photo, Region, Shape

Mask = npt.NDArray[np.uint8]


class Outlined(NamedTuple):
    """One object.

    Attributes:
        label: 1..K.
        box: Its box; None where none was drawn.
        outline: Its outline; None where it has only a box.
        number: The number that clicks and strokes on it share; None: they share none.
    """

    label: int
    box: Box | None
    outline: Region | None
    number: int | None


def outlined(photo: Photo, size: tuple[int, int], n_classes: int, *, background: bool) -> tuple[list[Outlined], bool]:
    """Return the objects of a photo, and whether its full mask has pixels of which nothing is known.

    The pixels of an index image are given to the boxes of their class they lie in, to the smaller one where there are
    two; each connected part of what is left is an object of its own. So the outlines together are the image.

    Args:
        photo: The photo; its full mask is its truth, or else the one it teaches.
        size: (height, width) of the photo, pixels.
        n_classes: K.
        background: Whether pixels may belong to no class.

    Raises:
        LabelError: The index image cannot be used.
    """
    full = photo.truth if photo.truth is not None else photo.hints.mask
    boxes = photo.hints.objects
    if isinstance(full, MaskFile):
        mask = read_checked(full, size, n_classes)
        unknown = bool((mask == IGNORE).any()) or (not background and bool((mask == BACKGROUND).any()))
        return _shared_out(mask, boxes), unknown
    outlines: dict[tuple[int, int | None], Region] = {
        (mark.label, mark.object): mark.shape
        for mark in full or ()
        if mark.object is not None and isinstance(mark.shape, Region)
    }
    objects = [
        Outlined(mark.label, mark.shape, outlines.pop((mark.label, mark.object), None), mark.object) for mark in boxes
    ]
    alone = [mark for mark in full or () if mark.object is None or (mark.label, mark.object) in outlines]
    for mark in alone:
        if mark.label not in (BACKGROUND, IGNORE):
            objects.append(_alone(mark))
    return objects, any(mark.label == IGNORE for mark in full or ())


def _alone(mark: Mark[Shape]) -> Outlined:
    if isinstance(mark.shape, Region):
        return Outlined(mark.label, None, mark.shape, mark.object)
    return Outlined(mark.label, mark.shape if isinstance(mark.shape, Box) else None, None, mark.object)


def _shared_out(mask: Mask, boxes: tuple[Mark[Box], ...]) -> list[Outlined]:
    left = mask.copy()
    size = (mask.shape[0], mask.shape[1])
    windows = [pixel_window(mark.shape.corners, size) for mark in boxes]
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in windows]
    outlines: dict[int, Region] = {}
    for at in sorted(range(len(boxes)), key=areas.__getitem__):
        x0, y0, x1, y1 = windows[at]
        own = left[y0:y1, x0:x1] == boxes[at].label
        if own.any():
            outlines[at] = Region(rle=runs.encode_part(own, (x0, y0), size))
            left[y0:y1, x0:x1][own] = BACKGROUND
    found = [Outlined(mark.label, mark.shape, outlines.get(at), mark.object) for at, mark in enumerate(boxes)]
    for label in np.unique(left).tolist():
        if label in (BACKGROUND, IGNORE):
            continue
        count, parts, stats, _ = cv2.connectedComponentsWithStats((left == label).astype(np.uint8), connectivity=8)
        for part in range(1, count):
            x, y, width, height = stats[part, :4].tolist()
            own = parts[y : y + height, x : x + width] == part
            found.append(Outlined(label, None, Region(rle=runs.encode_part(own, (x, y), size)), None))
    return found
