"""Full masks and scribbles of photos as arrays, from index images or painted from outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hintseg.errors import LabelError
from hintseg.files.images import open_image
from hintseg.hints import rle
from hintseg.hints.layout import MAX_CLASSES
from hintseg.hints.photos import photo_size, size_or_none
from hintseg.hints.problems import Problems
from hintseg.types import BACKGROUND, IGNORE, Box, HintSet, MaskFile, Photo

Mask = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


_AT_ONCE = 1 << 21
"""Crossings of an outline's edges with rows that are worked out together: a long zigzag has more than memory holds."""


_KEPT = 1 << 24
"""Pixels of objects that are kept (16 bytes each) from counting to painting; the rest is worked out twice."""


def read_mask(
    photo: Photo, size: tuple[int, int] | None = None, *, n_classes: int = MAX_CLASSES, background: bool = True
) -> Mask | None:
    """Return the full mask of a photo: its mask file, else its objects' outlines, larger ones painted first.

    Crowd regions lie below all objects and are 255. A photo that is said to have no object is all background.

    Args:
        photo: The photo and its hints.
        size: (height, width) the mask must have, pixels; None takes the photo's own after EXIF rotation.
        n_classes: K; larger ids are refused.
        background: Whether pixels may belong to no class; if not, value 0 and unpainted pixels become 255.

    Returns:
        (H, W) uint8: 0 background, 1..K, 255 ignore. None where the full mask is not known.

    Raises:
        LabelError: The mask cannot be read, has another size than the photo, or holds ids outside the class list.
        PhotoError: `size` is None and the photo cannot be read.
    """
    hints = photo.hints
    if hints.mask is not None:
        mask = _read_checked(hints.mask, size or photo_size(photo.path), n_classes)
    elif hints.boxes is not None and all(box.crowd or _has_outline(box) for box in hints.boxes):
        mask = paint(hints.boxes, size or photo_size(photo.path))
    else:
        return None
    if not background:
        mask[mask == BACKGROUND] = IGNORE
    return mask


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
    return None if scribbles is None else _read_checked(scribbles, size or photo_size(photo.path), n_classes)


def truth_ids(hint_set: HintSet) -> frozenset[str]:
    """Return the ids of the photos whose full mask is known, without opening a file.

    These have a mask file or an outline for every object. Photos without objects count where any photo has outlines:
    in a set of plain boxes they alone would make a truth of background only.
    """
    outlined = any(_has_outline(box) for photo in hint_set.photos for box in photo.hints.boxes or ())
    return frozenset(
        photo.id
        for photo in hint_set.photos
        if photo.hints.mask is not None
        or (
            outlined
            and photo.hints.boxes is not None
            and all(box.crowd or _has_outline(box) for box in photo.hints.boxes)
        )
    )


def read_index(path: Path) -> Mask:
    """Return the values of an index image, (H, W) uint8.

    Raises:
        LabelError: It is missing, cut off, a colour image, or has values above 255.
    """
    try:
        with open_image(path) as image:
            if image.mode not in _INDEX_MODES:
                raise LabelError(
                    f"{path} is a colour image (mode {image.mode}); a mask needs one channel whose values are class ids"
                )
            values = np.array(image)
    except LabelError:
        raise
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise LabelError(f"cannot read the mask {path}: {error}; it may be missing or cut off") from error
    if values.size and (values.min() < 0 or values.max() > IGNORE):
        raise LabelError(f"{path} holds values from {values.min()} to {values.max()}; class ids are 0 to 255")
    return values.astype(np.uint8)


def outside_classes(mask: Mask, file: MaskFile, n_classes: int) -> str:
    """Return a sentence on the values of a mask that are no class id, or an empty string."""
    counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)
    wrong = [v for v in np.flatnonzero(counts).tolist() if n_classes < v < IGNORE and v != file.unlabelled]
    if not wrong:
        return ""
    shown = ", ".join(f"{v} ({counts[v]} px)" for v in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
    return (
        f"holds ids outside the class list: {shown}; allowed are 0 (background), 1..{n_classes} and 255 (ignore). "
        f"Correct the mask or the class list; if {wrong[0]} means 'nothing known here', pass unlabelled={wrong[0]}"
    )


def tags_of_masks(
    files: Mapping[str, MaskFile], photos: Mapping[str, Path], n_classes: int, problems: Problems
) -> dict[str, frozenset[int]]:
    """Read index images and return the class ids in each; unreadable ones, wrong sizes and wrong ids are problems.

    Args:
        files: Index image by photo id.
        photos: Photo file by photo id.
        n_classes: K.
        problems: Gets one sentence per bad file.
    """

    def one(photo: str) -> tuple[frozenset[int], str]:
        file = files[photo]
        try:
            mask = read_index(file.path)
        except LabelError as error:
            return frozenset(), str(error)
        size = size_or_none(photos[photo])
        if size is not None and mask.shape != size:
            return frozenset(), f"{file.path.name} {_wrong_size(mask, size)}"
        why = outside_classes(mask, file, n_classes)
        present = {v for v in np.unique(mask).tolist() if 1 <= v <= n_classes and v != file.unlabelled}
        return frozenset(present), f"{file.path.name} {why}" if why else ""

    with ThreadPoolExecutor(max_workers=2) as pool:
        found = dict(zip(files, pool.map(one, files), strict=True))
    for photo, (_, why) in found.items():
        if why:
            problems.add(files[photo].path.parent.name, why)
    return {photo: present for photo, (present, _) in found.items()}


def paint(boxes: Sequence[Box], size: tuple[int, int]) -> Mask:
    """Paint the outlines of objects: crowds first as 255, then the larger objects first.

    Args:
        boxes: Objects with outlines; a crowd without one is painted as its box.
        size: (height, width), pixels.

    Returns:
        (H, W) uint8, 0 where there is no object.

    Raises:
        LabelError: An object's run lengths belong to another size.
    """
    mask = np.full(size, BACKGROUND, dtype=np.uint8)
    found, kept = list[tuple[Box, int, tuple[Indices, Indices] | None]](), 0
    for box in boxes:
        where = pixels(box, size)
        kept += where[0].size
        found.append((box, where[0].size, where if kept <= _KEPT else None))
    for box, _, known in sorted(found, key=lambda item: (not item[0].crowd, -item[1])):
        mask[known or pixels(box, size)] = IGNORE if box.crowd else box.label
    return mask


def pixels(box: Box, size: tuple[int, int]) -> tuple[Indices, Indices]:
    """Return the rows and columns of an object's pixels: by its run lengths, else its polygons, else its box.

    Args:
        box: The object.
        size: (height, width) of the photo, pixels.

    Raises:
        LabelError: The run lengths belong to another size.
    """
    height, width = size
    if box.rle is not None:
        if (box.rle.height, box.rle.width) != size:
            given, needed = f"{box.rle.width} x {box.rle.height}", f"{width} x {height}"
            raise LabelError(f"an object's run lengths are for {given} pixels, but the photo has {needed}")
        columns, rows = np.divmod(rle.positions(box.rle), height)
        return rows, columns
    rings = [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in box.polygons]
    corners = np.concatenate(rings) if rings else np.array([[box.x0, box.y0], [box.x1, box.y1]])
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), (left, top), (width, height)).astype(int)
    window = (int(bottom - top), int(right - left))
    inside = fill([ring - (left, top) for ring in rings], window) if rings else np.ones(window, dtype=np.bool_)
    rows, columns = np.nonzero(inside)
    return rows + top, columns + left


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


def _has_outline(box: Box) -> bool:
    return box.rle is not None or bool(box.polygons)


def _read_checked(file: MaskFile, size: tuple[int, int], n_classes: int) -> Mask:
    """Read an index image, check its size and ids, and turn its unlabelled value into 255."""
    mask = read_index(file.path)
    if mask.shape != size:
        raise LabelError(f"the mask {file.path} {_wrong_size(mask, size)}")
    why = outside_classes(mask, file, n_classes)
    if why:
        raise LabelError(f"the mask {file.path} {why}")
    if file.unlabelled is not None:
        mask[mask == file.unlabelled] = IGNORE
    return mask


def _wrong_size(mask: Mask, size: tuple[int, int]) -> str:
    given, needed = f"{mask.shape[1]} x {mask.shape[0]}", f"{size[1]} x {size[0]}"
    return f"has {given} pixels, but its photo has {needed} (after EXIF rotation); make them equal"
