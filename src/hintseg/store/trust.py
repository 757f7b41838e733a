"""How far labels are trusted, on disk: grey PNGs beside the masks, 255 = wholly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hintseg.errors import LabelError
from hintseg.files.atomic import whole_file
from hintseg.store.masks import read_label_png

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def write_trust(path: Path, trust: Floats) -> None:
    """Write trust, (H, W) in 0..1, as a grey PNG of 0..255, whole or not at all."""
    with whole_file(path) as file:
        Image.fromarray((trust * 255).round().astype(np.uint8)).save(file, "PNG")


def read_trust(path: Path, labels: Bytes) -> Floats | None:
    """Read trust in labels (H, W), (H, W) float32 in 0..1; None where there is no file: wholly.

    Raises:
        LabelError: The file is broken, or of another size than the labels.
    """
    return np.divide(read_fitting(path, labels), 255, dtype=np.float32) if path.is_file() else None


def read_fitting(path: Path, labels: Bytes) -> Bytes:
    """Read a grey PNG of the size of labels (H, W).

    Raises:
        LabelError: The file is broken, or of another size.
    """
    values = read_label_png(path)
    if values.shape != labels.shape:
        raise LabelError(f"{path} is {values.shape} pixels and its mask {labels.shape}; make the stage again")
    return values
