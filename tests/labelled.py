"""Small photos and label files that the tests of formats share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from hintseg.errors import LabelError
from hintseg.hints import read_hints
from hintseg.types import Box, HintSet, Mark

SIZE = (40, 80)  # height, width


def photo(file: Path, size: tuple[int, int] = SIZE, orientation: int = 1) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size[::-1], (90, 60, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(file, exif=exif)
    return file


def put(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def boxes(hint_set: HintSet) -> dict[str, list[tuple[str, float, float, float, float]]]:
    def rounded(mark: Mark[Box]) -> tuple[str, float, float, float, float]:
        x0, y0, x1, y1 = (round(v, 3) for v in mark.shape.corners)
        return hint_set.classes[mark.label - 1], x0, y0, x1, y1

    return {one.id: [rounded(mark) for mark in one.hints.objects] for one in hint_set.photos}


def noted(hint_set: HintSet, text: str) -> bool:
    return any(text in note for note in hint_set.notes)


def refusal(root: Path, labels: Path | None = None, **options: object) -> str:
    with pytest.raises(LabelError) as caught:
        read_hints(root, labels, **options)  # type: ignore[arg-type]
    return str(caught.value)
