"""A folder of photos and a table, and what is read out of them, for the tests of tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from hintseg.errors import LabelError
from hintseg.hints import read_hints
from hintseg.types import HintSet

PHOTOS = ("a.png", "b.png", "c.png", "d.png")


def data(
    folder: Path,
    text: str | bytes,
    name: str = "tags.csv",
    *,
    photos: tuple[str, ...] = PHOTOS,
    size: tuple[int, int] = (20, 10),
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write photos of `size` (width, height), a table, and other files."""
    for photo in photos:
        (folder / photo).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 30)).save(folder / photo)
    for path, content in {name: text, **(files or {})}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def tags(hint_set: HintSet) -> dict[str, set[str]]:
    """Return the names of the classes that each photo is said to show; photos of which nothing is said are left out."""
    return {
        photo.id: {hint_set.classes[k - 1] for k in photo.hints.tags}
        for photo in hint_set.photos
        if photo.hints.tags is not None
    }


def absent(hint_set: HintSet) -> dict[str, set[str]]:
    """Return the names of the classes that each photo is said not to show."""
    return {
        photo.id: {hint_set.classes[k - 1] for k in photo.hints.tags.absent}
        for photo in hint_set.photos
        if photo.hints.tags is not None
    }


def marks(hint_set: HintSet) -> dict[str, list[tuple[str, object]]]:
    """Return the class and shape of each mark, by photo; crowds and background have no class."""
    names = {0: "background", 255: "crowd", **dict(enumerate(hint_set.classes, start=1))}
    return {
        photo.id: [(names[mark.label], mark.shape) for mark in photo.hints.marks]
        for photo in hint_set.photos
        if photo.hints.marks
    }


def note(hint_set: HintSet, part: str) -> bool:
    """Tell whether a note says something."""
    return any(part in one for one in hint_set.notes)


def refused(folder: Path, **settings: object) -> str:
    """Return the message a data set is refused with."""
    with pytest.raises(LabelError) as caught:
        read_hints(folder, **settings)  # type: ignore[arg-type]
    return str(caught.value)
