"""Index images: PNGs whose pixel values are class ids."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hintseg.errors import LabelError
from hintseg.files.images import open_image
from hintseg.formats.photos import size_or_none
from hintseg.formats.problems import Problems
from hintseg.types import IGNORE, MaskFile

Mask = npt.NDArray[np.uint8]

_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


def read_index(path: Path) -> Mask:
    """Return the values of an index image, (H, W) uint8.

    Raises:
        LabelError: It is missing, cut off, a colour image, or has values above 255.
    """
    try:
        with open_image(path) as image:
            if image.mode not in _MODES:
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


def read_checked(file: MaskFile, size: tuple[int, int], n_classes: int) -> Mask:
    """Return an index image with the hint set's class ids, and 255 where nothing is known.

    Args:
        file: The image.
        size: (height, width) of its photo after EXIF rotation, pixels.
        n_classes: K; larger ids are refused.

    Returns:
        (H, W) uint8: 0 background, 1..K, 255 nothing known.

    Raises:
        LabelError: The image cannot be read, has another size, or holds ids outside the class list.
    """
    mask = read_index(file.path)
    if mask.shape != size:
        raise LabelError(f"the mask {file.path} {_wrong_size(mask, size)}")
    why = outside_classes(mask, file, len(file.ids) or n_classes)
    if why:
        raise LabelError(f"the mask {file.path} {why}")
    if file.unlabelled is not None:
        mask[mask == file.unlabelled] = IGNORE
    if file.ids:
        table = np.arange(IGNORE + 1, dtype=np.uint8)
        table[1 : len(file.ids) + 1] = file.ids
        mask = table[mask]
    return mask


def _wrong_size(mask: Mask, size: tuple[int, int]) -> str:
    given, needed = f"{mask.shape[1]} x {mask.shape[0]}", f"{size[1]} x {size[0]}"
    return f"has {given} pixels, but its photo has {needed} (after EXIF rotation); make them equal"
