"""Full masks and scribbles of photos as arrays, from index images or painted from outlines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hintseg.formats.index_image import read_checked
from hintseg.formats.layout import MAX_CLASSES
from hintseg.formats.photos import photo_size
from hintseg.geometry.rasterise import pixels
from hintseg.types import BACKGROUND, IGNORE, FullMask, Mark, MaskFile, Photo, Shape

Mask = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

_KEPT = 1 << 24
"""Pixels of objects that are kept (16 bytes each) from counting to painting; the rest is worked out twice."""


def read_mask(
    photo: Photo, size: tuple[int, int] | None = None, *, n_classes: int = MAX_CLASSES, background: bool = True
) -> Mask | None:
    """Return the true mask of a photo; see `read_full`. None where it is not known."""
    return None if photo.truth is None else read_full(photo.truth, photo, size, n_classes, background)


def read_taught(photo: Photo, *, n_classes: int = MAX_CLASSES, background: bool = True) -> Mask | None:
    """Return the full mask of a photo that may be learned from; see `read_full`. None where there is none."""
    mask = photo.hints.mask
    return None if mask is None else read_full(mask, photo, None, n_classes, background)


def read_full(mask: FullMask, photo: Photo, size: tuple[int, int] | None, n_classes: int, background: bool) -> Mask:
    """Return a full mask as an array: an index image, or outlines, larger ones painted first.

    Crowd regions lie below all objects and are 255. A photo that is said to have no object is all background.

    Args:
        mask: The index image or the outlines.
        photo: Its photo.
        size: (height, width) the mask must have, pixels; None takes the photo's own after EXIF rotation.
        n_classes: K; larger ids are refused.
        background: Whether pixels may belong to no class; if not, value 0 and unpainted pixels become 255.

    Returns:
        (H, W) uint8: 0 background, 1..K, 255 ignore.

    Raises:
        LabelError: The mask cannot be read, has another size than the photo, or holds ids outside the class list.
        PhotoError: `size` is None and the photo cannot be read.
    """
    size = size or photo_size(photo.path)
    found = read_checked(mask, size, n_classes) if isinstance(mask, MaskFile) else paint(mask, size)
    if not background:
        found[found == BACKGROUND] = IGNORE
    return found


def read_scribbles(photo: Photo, size: tuple[int, int] | None = None, *, n_classes: int = MAX_CLASSES) -> Mask | None:
    """Return the strokes of a photo.

    Args:
        photo: The photo and its hints.
        size: (height, width) the image must have, pixels; None takes the photo's own after EXIF rotation.
        n_classes: K; larger ids are refused.

    Returns:
        (H, W) uint8: 0 strokes on background, 1..K strokes on classes, 255 nothing known. None without scribbles.

    Raises:
        LabelError: The image cannot be read, has another size than the photo, or holds ids outside the class list.
        PhotoError: `size` is None and the photo cannot be read.
    """
    scribbles = photo.hints.scribbles
    return None if scribbles is None else read_checked(scribbles, size or photo_size(photo.path), n_classes)


def paint(marks: Sequence[Mark[Shape]], size: tuple[int, int]) -> Mask:
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
