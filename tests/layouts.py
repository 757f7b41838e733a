"""What the tests of label layouts share: photos, index PNGs and annotations as they are found in the wild."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hintseg.errors import LabelError
from hintseg.hints import read_hints
from hintseg.types import FullMask, Hints, HintSet


def photos(folder: Path, *names: str, size: tuple[int, int] = (20, 10)) -> Path:
    """Write photos of `size` (width, height)."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 30)).save(folder / name)
    return folder


def index_png(path: Path, values: Any, size: tuple[int, int] = (20, 10)) -> Path:
    """Write an index PNG of `size` (width, height) whose first pixels are `values`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    mask.flat[: len(values)] = values
    Image.fromarray(mask).save(path)
    return path


def hints_of(hint_set: HintSet) -> dict[str, Hints]:
    return {photo.id: photo.hints for photo in hint_set.photos}


def truth_of(hint_set: HintSet) -> dict[str, FullMask]:
    return {photo.id: photo.truth for photo in hint_set.photos if photo.truth is not None}


def refusal(path: Path, labels: Path | None = None, **settings: Any) -> str:
    with pytest.raises(LabelError) as caught:
        read_hints(path, labels, **settings)
    return str(caught.value)


def xml(*objects: tuple[str, float | str, float, float, float], size: tuple[int, int] = (20, 10)) -> str:
    """Return a VOC annotation; its objects carry a part that must not be read."""
    body = "".join(
        f"<object><name>{name}</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1 in objects
    )
    width, height = size
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{body}</annotation>"
