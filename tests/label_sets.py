"""A made hint set with what a label format may meet, and comparisons of what is read again with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hintseg.geometry.runs import encode
from hintseg.hints.implied import with_implied
from hintseg.hints.masks import read_mask
from hintseg.types import BACKGROUND, IGNORE, Box, Click, Hints, HintSet, Mark, Photo, Region, Shape, Stroke, Tags

NAMES = ("black cat", "Zürich's dog", 'a "cow", big', "zebra")
"""Class names with spaces, accents, commas and quotes; of the last there is a tag only."""


def photo_files(folder: Path, *names: str, size: tuple[int, int] = (30, 40)) -> list[Path]:
    """Write photos of (height, width) pixels."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1], (9, 99, 9)).save(path)
    return paths


def full_set(root: Path, *, background: bool = True, strokes: bool = False) -> HintSet:
    """Boxes, outlines, clicks, tags, a negative and an unlabelled photo, in sub-folders and with odd names."""
    mask = np.zeros((31, 17), bool)
    mask[4:20, 3:11] = True
    mask[8:12, 5:8] = False
    ring = (1.5, 2.25, 30.125, 2.25, 22.0, 25.5)
    two = ((1.0, 1.0, 5.0, 1.0, 5.0, 6.0), (20.0, 20.0, 30.0, 20.0, 30.0, 28.5))
    names = ["sub/a b.png", "sub/ü.png", "sub/c,d.png", "runs.png", "none.png", "boxes.png", "tags.png", "un.png"]
    sizes = [(30, 40), (30, 40), (30, 40), (31, 17), (30, 40), (30, 40), (30, 40), (30, 40)]
    files = [photo_files(root, name, size=size)[0] for name, size in zip(names, sizes, strict=True)]
    k, triangle, parts, runs = len(NAMES), Region((ring,)), Region(two), Region(rle=encode(mask))

    def photo(number: int, hints: Hints, truth: tuple[Mark[Shape], ...] | None = None) -> Photo:
        return Photo(names[number].rpartition(".")[0], files[number], hints, truth)

    lines: tuple[Mark[Shape], ...] = (Mark(2, Stroke((3.0, 3.0, 9.0, 9.5, 12.0, 4.0))),) if strokes else ()
    photos = (
        photo(0, Hints(None, (Mark(1, Box(1.5, 2.25, 30.125, 25.5), 1),)), (Mark(1, triangle, 1),)),
        photo(1, Hints(None, (Mark(2, Box(1.0, 1.0, 30.0, 28.5), 1),)), (Mark(2, parts, 1),)),
        photo(2, Hints(None, (Mark(3, Box(4.0, 5.0, 12.3, 15.6), 1), Mark(1, Box(0.0, 0.0, 40.0, 30.0), 2), *lines))),
        photo(3, Hints(None, (Mark(3, Box(2.0, 4.0, 11.0, 21.0), 1),)), (Mark(3, runs, 1),)),
        photo(4, Hints(Tags.complete((), k))),
        photo(5, Hints(None, (Mark(2, Box(7.0, 8.0, 9.0, 10.0), 1), Mark(2, Click(20.25, 3.5))))),
        photo(6, Hints(Tags.complete({1, 4}, k))),
        photo(7, Hints()),
    )
    ordered = tuple(sorted(photos, key=lambda one: one.id))
    return with_implied(HintSet("made", NAMES, ordered, {}, background))


def _marks(hint_set: HintSet, kinds: type | tuple[type, ...]) -> dict[str, list[tuple[object, ...]]]:
    return {
        photo.id: [
            (
                mark.label if mark.label in (BACKGROUND, IGNORE) else hint_set.classes[mark.label - 1],
                mark.object,
                type(mark.shape),
                round(mark.trust, 6),
                np.round(_values(mark.shape), 3).tolist(),
            )
            for mark in photo.hints.marks
            if isinstance(mark.shape, kinds)
        ]
        for photo in hint_set.photos
    }


def _values(shape: Shape) -> Sequence[float]:
    if isinstance(shape, Box):
        return shape.corners
    if isinstance(shape, Click):
        return shape.x, shape.y
    return shape.points if isinstance(shape, Stroke) else ()


def same_marks(one: HintSet, other: HintSet, kinds: type | tuple[type, ...] = (Box, Click, Stroke)) -> None:
    """The marks of some shapes are equal, in their order, coordinates to 1e-3 px."""
    assert _marks(one, kinds) == _marks(other, kinds)


def same_masks(one: HintSet, other: HintSet) -> None:
    """The full masks are of the same photos and have the same pixels; a negative may have one more."""
    for photo, again in zip(one.photos, other.photos, strict=True):
        assert photo.truth is None or again.truth is not None, photo.id
        if photo.truth is not None:
            np.testing.assert_array_equal(read_mask(photo), read_mask(again))
        else:
            assert not again.truth, photo.id


def same_tags(one: HintSet, other: HintSet, *, without: Sequence[str] = ("tags",)) -> None:
    """The tags are equal, but for the photos `without`, whose tags the format cannot hold."""

    def names(hint_set: HintSet, photo: Photo) -> object:
        tags = photo.hints.tags
        if tags is None or photo.id in without:
            return None
        return tuple({hint_set.classes[label - 1] for label in some} for some in (tags.present, tags.absent))

    for photo, again in zip(one.photos, other.photos, strict=True):
        assert names(one, photo) == names(other, again), photo.id


def outline_of(mark: Mark[Shape]) -> Region:
    assert isinstance(mark.shape, Region)
    return mark.shape
