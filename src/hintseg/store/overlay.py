"""Masks drawn over photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.errors import ShapeError
from hintseg.files.atomic import whole_file
from hintseg.files.palette import voc_palette
from hintseg.types import BACKGROUND

Bytes = npt.NDArray[np.uint8]


def overlay(rgb: Bytes, mask: Bytes, *, alpha: float = 0.5) -> Bytes:
    """Tint a photo with the colours of its mask and outline every region in white.

    Background stays as it is; pixels to ignore get the palette's pale yellow.

    Args:
        rgb: Photo, (H, W, 3) uint8.
        mask: Labels, (H, W) uint8.
        alpha: Weight of the colour, 0..1.

    Returns:
        The picture, (H, W, 3) uint8.

    Raises:
        ShapeError: Photo and mask differ in size.
    """
    if rgb.shape[:2] != mask.shape:
        raise ShapeError(f"a photo of {rgb.shape[:2]} and a mask of {mask.shape} pixels given, equal sizes are needed")
    inside = mask != BACKGROUND
    picture = rgb.copy()
    picture[inside] = (rgb[inside] * (1 - alpha) + voc_palette()[mask[inside]] * alpha).astype(np.uint8)
    edge = np.zeros(mask.shape, bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    picture[edge] = 255
    return picture


def write_overlay(path: Path, rgb: Bytes, mask: Bytes, *, alpha: float = 0.5) -> None:
    """Write the overlay of a photo (H, W, 3) and its mask (H, W), whole or not at all; `path` ends in .jpg or .png.

    Raises:
        ShapeError: Photo and mask differ in size.
        RunError: The file cannot be written.
    """
    picture = Image.fromarray(overlay(rgb, mask, alpha=alpha))
    with whole_file(path) as file:
        picture.save(file, "PNG" if path.suffix.lower() == ".png" else "JPEG", quality=90)
