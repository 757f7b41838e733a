"""Pictures for the page: photos as browsers take them, masks and class maps as see-through PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.data.photos import read_photo
from hintseg.errors import PhotoError
from hintseg.files.images import open_image
from hintseg.files.palette import voc_palette
from hintseg.types import BACKGROUND

Bytes = npt.NDArray[np.uint8]

_AS_IT_IS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_ORIENTATION = 0x0112


def photo_for_browser(path: Path) -> tuple[bytes, str]:
    """Return a photo, upright, and its media type; the file itself where browsers show it as hintseg reads it.

    Raises:
        PhotoError: It cannot be read.
    """
    try:
        with open_image(path) as image:
            kind = _AS_IT_IS.get(image.format or "")
            plain = image.mode in ("RGB", "L") and image.getexif().get(_ORIENTATION, 1) == 1
        if kind is not None and plain:
            return path.read_bytes(), kind
    except FileNotFoundError as error:
        raise PhotoError(f"{path}: no such photo") from error
    except Exception as error:  # as in `read_photo`
        raise PhotoError(f"{path}: cannot be read as a photo ({error}); replace or remove the file") from error
    file = io.BytesIO()
    Image.fromarray(read_photo(path)).save(file, "JPEG", quality=92)
    return file.getvalue(), "image/jpeg"


def mask_png(mask: Bytes, *, background: bool) -> bytes:
    """Return a mask in its classes' colours; background and 255 are transparent."""
    image = Image.fromarray(mask)
    image.putpalette(voc_palette().tobytes())
    clear = bytearray(b"\xff" * 256)
    clear[255] = 0
    if background:
        clear[BACKGROUND] = 0
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes(clear), compress_level=1)
    return file.getvalue()


def heat_png(scores: npt.NDArray[np.float32], label: int) -> bytes:
    """Return a class map (h, w) in 0..1 in its class's colour, as opaque as it is strong."""
    rgba = np.empty((*scores.shape, 4), np.uint8)
    rgba[..., :3] = voc_palette()[label]
    rgba[..., 3] = (255 * scores).round()
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG", compress_level=1)
    return file.getvalue()


def colours(classes: int) -> list[str]:
    """Return the colour of label 0..K as CSS has it.

    Example:
        >>> colours(1)
        ['#000000', '#800000']
    """
    return ["#" + bytes(row).hex() for row in voc_palette()[: classes + 1].astype(np.uint8).tolist()]
