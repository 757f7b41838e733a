"""How image files are opened."""

from __future__ import annotations

import base64
import binascii
import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.files.parse import is_file

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and microscopes give each level, which are then kept in 16."""


@cache
def with_heif() -> bool:
    """Teach PIL to read HEIC photos where the extra ``hintseg[heic]`` is installed, and return whether it is."""
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()  # PIL then opens them like any photo
    return True


def open_image(path: Path) -> Image.Image:
    """Return an image of which only the head is read yet.

    Raises:
        OSError: It is missing or no plain file; a pipe would make the reader wait for ever.
        Exception: Whatever PIL's decoders raise: SyntaxError, ValueError, struct.error and more.
    """
    if not is_file(path):
        path.stat()  # raises where it is missing, and says why
        raise OSError("it is no plain file")
    with_heif()
    return Image.open(path)


def open_embedded(text: str) -> Image.Image:
    """Return an image that a text file holds in base 64, of which only the head is read yet.

    Raises:
        ValueError: It is no base 64.
        Exception: Whatever PIL's decoders raise, as for `open_image`.
    """
    try:
        data = base64.b64decode(text.partition("base64,")[2] or text, validate=False)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"no base 64 ({error})") from error
    with_heif()
    return Image.open(io.BytesIO(data))


def deep_levels(path: Path, image: Image.Image) -> npt.NDArray[np.int64] | None:
    """Return the levels of a picture of 16 bits as it is stored, (H, W) or (H, W, 3 or 4); None where it has 8 bits.

    PIL keeps only the high half of colours of 16 bits, so those are read by OpenCV.

    Args:
        path: The file.
        image: What `open_image` made of it, not loaded yet.
    """
    if image.mode.startswith("I"):
        return np.asarray(image, dtype=np.int64)
    if not any(";16" in str(tile) for tile in getattr(image, "tile", ())):  # how PIL says what is stored
        return None
    import cv2  # only here: it takes a while to import

    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16:
        return None
    levels = np.asarray(found, dtype=np.int64)
    return levels if levels.ndim == 2 else levels[..., [2, 1, 0, *range(3, levels.shape[2])]]


def depth(levels: npt.NDArray[np.int64]) -> int:
    """Return how many bits the levels of a picture take: the fewest of `DEPTHS` that hold the largest; 17 if none does.

    Transparency is left out: it takes all 16.

    Example:
        >>> depth(np.array([[0, 3060]])), depth(np.array([[0, 255]]))
        (12, 8)
    """
    largest = int(levels[..., :3].max() if levels.ndim == 3 else levels.max())
    return next((bits for bits in DEPTHS if largest < 1 << bits), DEPTHS[-1] + 1)
