"""Every label format of one data set says the same of it, and outlines paint the masks on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hintseg.data.shapes import CLASSES, make_photo, write_shapes
from hintseg.hints import read_hints
from hintseg.hints.check import check
from hintseg.hints.masks import read_mask
from hintseg.types import Click, HintSet

COUNTS = {"train": 40, "val": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shapes") / "photos"
    write_shapes(path, **COUNTS, size=64)
    return path


@pytest.fixture(scope="module")
def sets(folder: Path) -> dict[str, HintSet]:
    """The folder through each of its label files."""
    files = {"voc": None, "csv": "tags.csv", "coco": "Hints/instances.json", "points": "Hints/points.csv"}
    return {
        name: read_hints(folder, None if file is None else folder / file, format=name) for name, file in files.items()
    }


@pytest.mark.parametrize("name", ["voc", "csv", "coco", "points"])
def test_classes_photos_and_tags_are_those_made(sets: dict[str, HintSet], name: str) -> None:
    made = {f"{split}_{i:04d}": make_photo(i, split=split, size=64) for split, n in COUNTS.items() for i in range(n)}
    hint_set = sets[name]
    tags = {}
    for photo in hint_set.photos:
        names = {hint_set.classes[tag - 1] for tag in photo.hints.tags or ()}
        tags[photo.id] = {CLASSES.index(word) + 1 for word in names}
    assert tags == {name: set(photo.tags) for name, photo in made.items()}
    assert sum(not found for found in tags.values()) >= 1  # a true negative
    if name != "coco":  # the others stand in a folder with splits
        assert {split: len(ids) for split, ids in hint_set.splits.items()} == COUNTS


def test_boxes_of_voc_and_coco_are_the_same(sets: dict[str, HintSet], folder: Path) -> None:
    count = len(json.loads((folder / "Hints/instances.json").read_text())["annotations"])
    for name in ("voc", "coco"):
        assert sum(len(photo.hints.objects) for photo in sets[name].photos) == count
    assert sum(len(photo.hints.shaped(Click)) for photo in sets["points"].photos) == count
    for one, other in zip(sets["voc"].photos, sets["coco"].photos, strict=True):
        corners = [sorted(mark.shape.corners for mark in photo.hints.objects) for photo in (one, other)]
        assert corners[0] == corners[1]


def test_painted_objects_are_the_masks_on_disk(sets: dict[str, HintSet]) -> None:
    for one, other in zip(sets["voc"].photos, sets["coco"].photos, strict=True):
        assert one.id == other.id
        mask, painted = (read_mask(photo, n_classes=len(CLASSES)) for photo in (one, other))
        assert mask is not None
        np.testing.assert_array_equal(painted, mask)


def test_the_check_finds_what_comes_together(sets: dict[str, HintSet]) -> None:
    report = check(sets["voc"])
    assert report.photos == 50
    assert not report.unreadable
    assert not report.problems
    tags = [len(photo.hints.tags or ()) for photo in sets["voc"].photos]
    assert report.multi_tag_share == pytest.approx(sum(n > 1 for n in tags) / sum(n > 0 for n in tags))
    horse, cart = CLASSES.index("horse"), CLASSES.index("cart")
    together = sum({horse + 1, cart + 1} <= set(photo.hints.tags or ()) for photo in sets["voc"].photos)
    assert report.cooccurrence[horse][cart] == together > 0
