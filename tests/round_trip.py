"""What writers are tried with: a hint set of many kinds, random ones, and what it means that two are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st
from PIL import Image

from hintseg.geometry import runs
from hintseg.hints.masks import read_mask
from hintseg.types import (
    BACKGROUND,
    Box,
    Click,
    FullMask,
    Hints,
    HintSet,
    Mark,
    MaskFile,
    Photo,
    Region,
    Shape,
    Stroke,
    Tags,
)

SIZE = (40, 60)
CLASSES = ("größer Hund", "a, b; c", 'say "no" <&>', "person")


def photo_of(folder: Path, name: str, hints: Hints, truth: FullMask | None = None) -> Photo:
    """Write a grey photo of `SIZE`."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", SIZE[::-1], 90).save(path)
    return Photo(name.rpartition(".")[0], path, hints, truth)


def tagged(marks: tuple[Mark[Shape], ...], k: int, *more: int) -> Hints:
    """Marks, and the tags that they and `more` imply."""
    present = {mark.label for mark in marks if 0 < mark.label < 255} | set(more)
    return Hints(Tags.complete(present, k), marks)


def disc(x: float, y: float, radius: float) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.asarray((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2)


def boxes_of(folder: Path, classes: tuple[str, ...] = CLASSES) -> HintSet:
    """Boxes, negatives and an unlabelled photo; names of all kinds, sub-folders, splits."""
    k = len(classes)
    box = Mark(1, Box(0.0, 0.0, 60.0, 40.0), 1)
    some = (
        Mark(k, Box(1.25, 2.5, 9.125, 30.0), 1),
        Mark(1, Box(30.0, 20.0, 31.0, 21.0), 2),
        Mark(k, Box(3, 3, 9, 9), 3),
    )
    photos = (
        photo_of(folder, "a.b.png", tagged((box,), k)),
        photo_of(folder, "negative.png", tagged((), k)),
        photo_of(folder, "sub folder/a.b.png", tagged(some, k)),
        photo_of(folder, "sub folder/unlabelled.png", Hints()),
        photo_of(folder, "sub,ordner/größe 'x'.png", tagged((box,), k)),
    )
    return HintSet(folder.name, classes, photos, {"train": ("a.b", "sub folder/a.b"), "val": ("sub,ordner/größe 'x'",)})


def many_of(folder: Path) -> HintSet:
    """All kinds of marks, full masks as polygons and run lengths, an index image, tags alone."""
    k = len(CLASSES)
    mask = disc(30, 20, 8) & ~disc(30, 20, 3)
    ring = Region(rle=runs.encode(mask))
    two = Region(((1.0, 1.0, 9.5, 1.0, 9.5, 8.0), (20.0, 1.0, 28.0, 1.0, 28.0, 9.25, 20.0, 9.0)))
    outlined = (
        Mark(2, Box(22.0, 12.0, 38.0, 28.0), 1),
        Mark(1, Box(1.0, 1.0, 28.0, 9.25), 2),
        Mark(2, Box(40.0, 1.0, 58.0, 12.0), 3),  # drawn wider than its outline
    )
    triangle = Region(((41.0, 2.0, 57.0, 2.0, 50.0, 11.0),))
    strokes = (
        Mark(3, Stroke((1.5, 2.25, 30.0, 20.0, 59.0, 1.0))),
        Mark(BACKGROUND, Stroke((1.0, 30.0, 50.0, 38.0))),
        Mark(1, Click(4.5, 5.25)),
        Mark(BACKGROUND, Click(55.5, 35.5)),
    )
    index = np.zeros(SIZE, np.uint8)
    index[disc(15, 20, 7)], index[disc(45, 20, 9)], index[2:5, 2:40] = 1, 4, 1
    (folder.parent / "index").mkdir(parents=True)
    Image.fromarray(index).save(folder.parent / "index" / "e.png")
    in_boxes = (Mark(4, Box(35.0, 10.0, 55.0, 30.0), 1), Mark(1, Box(8.0, 12.0, 23.0, 28.0), 2))
    shared = (Mark(1, Box(5.0, 5.0, 20.0, 20.0), 1), Mark(1, Click(8.5, 8.5), 1), Mark(2, Click(50.5, 8.5)))
    photos = (
        photo_of(
            folder,
            "a/one.png",
            tagged(outlined, k),
            (Mark(2, ring, 1), Mark(1, two, 2), Mark(2, triangle, 3)),
        ),
        photo_of(folder, "b/one.png", tagged(strokes, k)),
        photo_of(folder, "c.png", tagged((), k), ()),
        photo_of(folder, "d.png", Hints(Tags.complete({1, 3}, k))),
        photo_of(folder, "e.png", tagged(in_boxes, k), MaskFile(folder.parent / "index" / "e.png")),
        photo_of(folder, "f.png", tagged(shared, k, 4)),
        photo_of(folder, "g.png", Hints()),
    )
    return HintSet(folder.name, CLASSES, photos)


def same(one: HintSet, other: HintSet, *, more_objects: frozenset[str] = frozenset()) -> None:
    """Compare two hint sets; `more_objects`: photos of which `other` may have more boxes."""
    assert other.classes == one.classes
    assert dict(other.splits) == dict(one.splits)
    assert [photo.id for photo in other.photos] == [photo.id for photo in one.photos]
    for before, after in zip(one.photos, other.photos, strict=True):
        assert after.path == before.path
        assert after.hints.tags == before.hints.tags, before.id
        marks = after.hints.marks
        if before.id in more_objects:
            marks = marks[: len(before.hints.marks)]
        assert [(m.label, m.object, type(m.shape)) for m in marks] == [
            (m.label, m.object, type(m.shape)) for m in before.hints.marks
        ], before.id
        for mark, wanted in zip(marks, before.hints.marks, strict=True):
            assert numbers(mark.shape) == pytest.approx(numbers(wanted.shape), abs=1e-3), before.id
        first, second = read_mask(before), read_mask(after)
        assert (first is None) == (second is None), before.id
        if first is not None and second is not None:
            np.testing.assert_array_equal(second, first, before.id)


def numbers(shape: Shape) -> tuple[float, ...]:
    if isinstance(shape, Box):
        return shape.corners
    if isinstance(shape, Click):
        return shape.x, shape.y
    assert isinstance(shape, Stroke)
    return shape.points


NAMES = (
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters="/\\"), min_size=1, max_size=20)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: text.strip("_ .") and text.lower() != "background")
)
"""Names of classes."""


def coordinates(most: int) -> st.SearchStrategy[tuple[float, float]]:
    """Two edges of a box, at least a pixel apart."""
    edge = st.floats(0, most, allow_nan=False)
    return st.tuples(edge, edge).map(lambda pair: (min(pair), max(pair))).filter(lambda pair: pair[1] - pair[0] >= 1)
