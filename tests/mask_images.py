"""Small photos and mask images, and what was read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hintseg.errors import LabelError
from hintseg.hints import read_hints
from hintseg.hints.masks import read_mask
from hintseg.types import HintSet

ANT, BEE = (200, 0, 0), (0, 0, 200)
SIZE = (20, 10)


def mask_of(label: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask of `size` (width, height) whose upper left quarter is of one class."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[: size[1] // 2, : size[0] // 2] = label
    return mask


def save(path: Path, pixels: np.ndarray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def photo(path: Path, size: tuple[int, int] = SIZE, turn: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = turn
    return save(path, Image.new("RGB", size, (90, 120, 30)), exif=exif)


def coloured(label: int) -> np.ndarray:
    colours: np.ndarray = np.array([(0, 0, 0), ANT, BEE], np.uint8)[mask_of(label)]
    return colours


def refusal(path: Path, labels: Path | None = None, **options: Any) -> str:
    with pytest.raises(LabelError) as caught:
        read_hints(path, labels, **options)
    return str(caught.value)


def labels_of(hint_set: HintSet) -> dict[str, set[int]]:
    """The classes that the mask of each photo shows, which its tags say too."""
    found = {}
    for one in hint_set.photos:
        mask = read_mask(one, n_classes=len(hint_set.classes))
        if mask is not None:
            assert (mask > 0)[: mask.shape[0] // 2, : mask.shape[1] // 2].mean() in (0, 1)
            found[one.id] = set(np.unique(mask).tolist()) - {0, 255}
            assert set(one.hints.tags or ()) == found[one.id]
    return found
