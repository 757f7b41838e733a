"""Full masks and scribbles of photos as arrays, from index images or painted from outlines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hintseg.formats.index_image import read_checked
from hintseg.formats.layout import MAX_CLASSES
from hintseg.formats.photos import photo_size
from hintseg.geometry.rasterise import paint
from hintseg.types import BACKGROUND, IGNORE, FullMask, MaskFile, Photo

Mask = npt.NDArray[np.uint8]


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
