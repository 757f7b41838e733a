"""Masks of one object: pictures of two values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hintseg.errors import LabelError
from hintseg.files.images import open_image
from hintseg.geometry import runs
from hintseg.types import Rle


def read_object(path: Path) -> Rle:
    """Return the pixels of the object of a mask: those that are not black.

    Raises:
        LabelError: It cannot be read, or has more than two values.
    """
    try:
        with open_image(path) as image:
            values = np.asarray(image.convert("L"))
    except Exception as error:  # PIL's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise LabelError(f"cannot read the mask {path}: {error}; it may be missing or cut off") from error
    if len(found := np.unique(values)) > 2 or (len(found) == 2 and found[0] != 0):
        raise LabelError(
            f"{path.name} has {len(found)} values; the mask of an object is 0 outside, and one value inside"
        )
    return runs.encode(values > 0)
